"""From any network to a guide: takes someone else's classifier or embedding network, or a classifier of ours, gives a `GuideNetwork`.

Whatever `load_network` opens, and any module in memory, is inspected just as for `repurpose`: what is no function of one clip, or no
answer for each label, is refused with the reason. Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.bundle import locate, packaged, read_bundle
from duovox.calibration import Level, calibrate
from duovox.classifiers.loading import Loaded
from duovox.classifiers.output_kinds import OutputKind
from duovox.config import Calibration, GuideConfig, GuideStrength, MelConfig, MelInput, MelScale, Recipe, WaveInput, from_dict
from duovox.contracts import Classifier, ConfigError, GuideError
from duovox.data import Features, gather, relabelled
from duovox.data.features import open_features
from duovox.embedders import Embedder, OwnEmbedder, SoundEmbedder
from duovox.guide_folder import FORMAT, GuideNetwork, halved, with_digests
from duovox.model import build_speaker
from duovox.repurposing.building import layers_of, repurpose
from duovox.repurposing.training import Repurposed
from duovox.runs import SPEAKER_DIMENSIONS, fill_classifier, read_weights, scale_of
from duovox.sound.audio import as_sound, read_excerpt
from duovox.sound.hearing import hear
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.steering import join, likened
from duovox.text import read_text
from duovox.voice import Duovox

COSINE_TEMPERATURE = 0.1
"""Cosine similarities are divided by this, where nothing else is said: an embedding trained by GE2E multiplies them by about 10."""

BACKGROUND = 128
"""The most speakers of a feature folder that are taken for the background."""

Sounds = Sequence[str | Path | NDArray[np.float32]]
"""Sound files, or waves (S,) at the voice's rate."""


def make_guide(
    classifier: nn.Module | Loaded,
    labels: Sequence[str] | None = None,
    features: MelInput | WaveInput | None = None,
    *,
    name: str = "guide",
    output: str = "",
    output_kind: OutputKind | None = None,
    temperature: float = 1.0,
    strength: GuideStrength | None = None,
    recipe: str | Path | Recipe = "compact",
    vocoder: ISTFTNet | None = None,
) -> GuideNetwork:
    """Any classifier as a guide, asked at the estimate of the clean mel. `labels`, `features`, `output`, `output_kind`, `recipe`
    and `vocoder` are as in `repurpose` (of the recipe the mel alone counts, in which the network is tried); its logits are divided by
    `temperature`, until `calibrate_guide` has fitted better ones.

    Raises `ClassifierError` and `ConfigError` as `repurpose` does, `GuideError` for a strength it cannot have.
    """
    made = repurpose(classifier, labels, features, (), output=output, output_kind=output_kind, recipe=recipe, vocoder=vocoder)
    config = _config(made, "classifier", made.classifier.config.labels, temperature, strength)
    return with_digests(GuideNetwork(name, config, made.classifier.network, None, made.classifier.code))


def make_embedding_guide(
    network: nn.Module | Loaded,
    references: Mapping[str, Sounds],
    background: Sounds,
    features: MelInput | WaveInput | None = None,
    *,
    name: str = "guide",
    output: str = "",
    temperature: float = COSINE_TEMPERATURE,
    strength: GuideStrength | None = None,
    recipe: str | Path | Recipe = "compact",
    vocoder: ISTFTNet | None = None,
) -> GuideNetwork:
    """An embedding network as a guide towards sounds: its labels are the `references`, each with its sounds, told apart from each other and
    from the `background` clips by the cosine similarity of embeddings (see `CosineClassifier`).

    Without references they are given with the target: `voice.guide(..., like="ann.wav")`. Of a longer sound the loudest second counts.
    Raises `AudioError`, with its path, for a sound that is silent or cannot be read, `GuideError` without background or for a reference
    without sounds, and what `make_guide` raises.
    """
    _demand_sounds(references, background)
    made = layers_of(network, features, output=output, output_kind="logits", recipe=recipe, vocoder=vocoder)
    anchors = _anchors(Embedder(made.classifier), references, background, made.classifier.mel)
    config = _config(made, "embedding", tuple(references), temperature, strength)
    return with_digests(GuideNetwork(name, config, made.classifier.network, anchors, made.classifier.code))


def make_own_guide(source: str | Path, *, name: str = "guide", strength: GuideStrength | None = None) -> GuideNetwork:
    """A classifier of ours as a guide: that of a run folder of `duovox train classifier` (or its `weights.safetensors`), or of a bundle.

    It knows noise, so it is asked at the noised mel unless `strength` says otherwise, as a bundle's settings guide. Raises `GuideError`
    for a source that is neither, `TrainingError` and `BundleError` for one that is damaged.
    """
    if is_bundle(source):
        bundle = read_bundle(locate(source))
        recipe, scale, labels = bundle.config.recipe, bundle.config.mel_scale, bundle.config.labels
        network, calibration = bundle.model.classifier.network, bundle.config.calibration
    else:
        folder = _folder(source)
        facts, tensors = read_weights(folder)
        recipe, scale, labels = _recipe_of_run(facts["recipe"], source), scale_of(facts), tuple(facts["labels"])
        calibration = Calibration()
        network = fill_classifier(folder, recipe, scale, len(labels), tensors)
    _demand_ours(recipe, source)
    config = GuideConfig(FORMAT, "classifier", labels, recipe, scale, calibration, strength or GuideStrength(at="noised"))
    return with_digests(GuideNetwork(name, config, network.eval().requires_grad_(False)))


def make_speaker_guide(
    source: str | Path,
    background: Sounds,
    references: Mapping[str, Sounds] = MappingProxyType({}),
    *,
    name: str = "guide",
    temperature: float = COSINE_TEMPERATURE,
    strength: GuideStrength | None = None,
) -> GuideNetwork:
    """An embedding network of ours as a guide: that of a run folder of `duovox train speaker` (or its `weights.safetensors`), in half
    precision. It knows noise; otherwise as `make_embedding_guide`, also in what it raises."""
    _demand_sounds(references, background)
    facts, tensors = read_weights(_folder(source))
    if facts.get("part") != "speaker":
        raise GuideError(f"{source} embeds no speakers; name OUT/speaker, of `duovox train speaker`")
    recipe, scale, strength = _recipe_of_run(facts["recipe"], source), scale_of(facts), strength or GuideStrength()
    network = build_speaker(recipe, recipe.speaker.networks * SPEAKER_DIMENSIONS)
    network.load_state_dict(tensors, strict=True)
    embedder = OwnEmbedder(network.eval().requires_grad_(False), recipe.mel, scale, recipe.noise.sigma_min)
    anchors = _anchors(embedder, references, background, recipe.mel)
    calibration = Calibration(strength.at, (1.0,), (temperature,))
    config = GuideConfig(FORMAT, "embedding", tuple(references), recipe, scale, calibration, strength)
    return halved(GuideNetwork(name, config, network, anchors))


def with_references(
    guide: GuideNetwork,
    references: Mapping[str, Sequence[Path]],
    voice: Duovox,
    *,
    name: str = "guide",
    strength: GuideStrength | None = None,
) -> GuideNetwork:
    """A guide that embeds sounds, with labels: the references, each with its sound files, in the place of those it had; its background
    stays. It hears them as this voice would, and keeps its own strength where none is given. Raises `GuideError`, `AudioError`."""
    mel = voice.config.recipe.mel
    waves = {label: [read_excerpt(path, mel.sample_rate, mel.clip_samples).wave for path in paths] for label, paths in references.items()}
    made = likened(guide, waves, voice.bundle)
    return replace(made, name=name, config=replace(made.config, strength=strength or made.config.strength))


def one_of_each(features: Features, most: int = BACKGROUND) -> list[NDArray[np.float32]]:
    """A clip (S,) of each of at most so many speakers of the train split, evenly taken: what a speaker is told apart from."""
    first = {features.speakers[clip]: clip for clip in reversed(features.indices("train"))}
    clips = [first[name] for name in sorted(first)]
    return [gather(features, np.array([clip])).wave[0].numpy() for clip in clips[:: -(-len(clips) // most)]]


def calibrate_guide(guide: GuideNetwork, data: str | Path, voice: Duovox, limit: int = 256) -> tuple[GuideNetwork, tuple[Level, ...]]:
    """The guide with a temperature for each noise level, fitted on the validation split of a feature folder whose labels it knows, where it
    is asked in this voice's sampling; and how sure and how right it is there, before and after. Raises `DataError`."""
    joined, config = join(guide, voice.bundle), guide.config
    features = relabelled(open_features(Path(data), voice.config.recipe.mel), guide.labels)
    asked: Classifier = joined.classifier
    at, scale = config.strength.at, voice.config.mel_scale
    fitted, levels = calibrate(voice.bundle.model, features, scale, at, limit=limit, classifier=asked)
    return replace(guide, config=replace(config, calibration=fitted)), levels


def _folder(run: str | Path) -> Path:
    """The folder of a run that may be named by its file of weights."""
    return Path(run).parent if Path(run).is_file() else Path(run)


def is_bundle(source: str | Path) -> bool:
    """Whether a source names a bundle of ours: one in the package, or a folder (which a Hugging Face folder resembles)."""
    if source in packaged():
        return True
    try:
        return "mel_scale" in json.loads(read_text(Path(source) / "config.json"))
    except (OSError, ValueError):
        return False


def is_run(source: str | Path) -> bool:
    """Whether a source is a run folder of ours, or its file of weights."""
    path = Path(source)
    return path.name == "weights.safetensors" or (path / "weights.safetensors").is_file()


def is_speaker_run(source: str | Path) -> bool:
    """Whether a source names a run of `duovox train speaker`."""
    return is_run(source) and read_weights(_folder(source))[0].get("part") == "speaker"


def _recipe_of_run(settings: Mapping[str, Any], source: str | Path) -> Recipe:
    """The recipe of a classifier's run, which says nothing of a decoder: one of as many stages."""
    if "classifier" not in settings:
        raise GuideError(f"{source} holds no classifier of ours; name OUT/classifier, or make the guide from the network itself")
    return from_dict(Recipe, {**settings, "subnet": {"widths": settings["classifier"]["widths"]}})


def _demand_ours(recipe: Recipe, source: str | Path) -> None:
    if recipe.external is not None:
        raise GuideError(f"the classifier of {source} is someone else's; make the guide from the network itself")


def _config(
    made: Repurposed, kind: Literal["classifier", "embedding"], labels: tuple[str, ...], temperature: float, strength: GuideStrength | None
) -> GuideConfig:
    strength = strength or GuideStrength()
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"the temperature of a guide must be positive and finite, not {temperature}")
    if strength.at == "noised":
        raise GuideError("a network that never met noise can be asked at the estimate alone; leave --at out, at='estimate'")
    recipe = Recipe(name="guide", mel=made.recipe.mel, external=replace(made.classifier.config, taps=()))
    calibration = Calibration("estimate", (1.0,), (temperature,)) if temperature != 1 else Calibration()
    return GuideConfig(FORMAT, kind, labels, recipe, MelScale(), calibration, strength, {}, made.notes)


def _demand_sounds(references: Mapping[str, Sounds], background: Sounds) -> None:
    if not all(len(sounds) for sounds in references.values()):
        raise GuideError("an embedding guide needs at least one sound of each reference")
    if not len(background):
        raise GuideError("an embedding guide needs background clips to tell the references from: --background, background=[...]")


def _anchors(embedder: SoundEmbedder, references: Mapping[str, Sounds], background: Sounds, mel: MelConfig) -> Tensor:
    """Directions (K, D): of each reference, of each background clip."""
    centres = [nn.functional.normalize(_embedded(embedder, sounds, mel).mean(dim=0), dim=0)[None] for sounds in references.values()]
    return torch.cat([*centres, _embedded(embedder, background, mel)])


@torch.no_grad()
def _embedded(embedder: SoundEmbedder, sounds: Sounds, mel: MelConfig) -> Tensor:
    """Embeddings of length 1, (N, D), of what counts of each sound, by the network's own front end."""
    waves = (_heard(sound, mel.sample_rate, mel.clip_samples) for sound in sounds)
    found = torch.cat([embedder.of_waves(torch.from_numpy(wave)[None]) for wave in waves])
    if not bool(found.isfinite().all()):
        raise GuideError("the network gives embeddings that are not finite for these sounds; check what it takes: --takes, features=...")
    return nn.functional.normalize(found, dim=1)


def _heard(sound: str | Path | NDArray[np.float32], rate: int, samples: int) -> NDArray[np.float32]:
    """The second that counts of a sound; silence is refused."""
    excerpt = hear(as_sound(sound, rate), rate, samples) if isinstance(sound, np.ndarray) else read_excerpt(sound, rate, samples)
    return excerpt.wave
