"""From any network to a guide: takes someone else's classifier or embedding network, or a classifier of ours, gives a `GuideNetwork`.

Whatever `load_network` opens, and any module in memory, is inspected just as for `repurpose`: what is no function of one clip, or no
answer for each label, is refused with the reason. Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.bundle import locate, packaged, read_bundle
from duovox.calibration import Level, calibrate
from duovox.classifiers.loading import Loaded
from duovox.classifiers.output_kinds import OutputKind
from duovox.config import Calibration, GuideConfig, GuideStrength, MelInput, MelScale, Recipe, WaveInput, from_dict
from duovox.contracts import Classifier, ConfigError, GuideError
from duovox.data import relabelled
from duovox.data.features import open_features
from duovox.guide_folder import FORMAT, GuideNetwork, with_digests
from duovox.repurposing.building import layers_of, repurpose
from duovox.repurposing.training import Repurposed
from duovox.runs import fill_classifier, read_weights, scale_of
from duovox.sound.audio import as_sound, read_excerpt
from duovox.sound.folders import find_sounds
from duovox.sound.hearing import hear
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.steering import Embedder, join
from duovox.text import read_text
from duovox.voice import Duovox

COSINE_TEMPERATURE = 0.1
"""Cosine similarities are divided by this, where nothing else is said: an embedding trained by GE2E multiplies them by about 10."""

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

    Of a longer sound the loudest second counts. Raises `AudioError`, with its path, for a sound that is silent or cannot be read,
    `GuideError` without references or background, and what `make_guide` raises.
    """
    if not references or not all(len(sounds) for sounds in references.values()):
        raise GuideError("an embedding guide needs references, each with at least one sound")
    if not len(background):
        raise GuideError("an embedding guide needs background clips to tell the references from: --background, background=[...]")
    made = layers_of(network, features, output=output, output_kind="logits", recipe=recipe, vocoder=vocoder)
    embedder = Embedder(made.classifier)
    anchors = [_centre(_embedded(embedder, sounds)) for sounds in references.values()]
    config = _config(made, "embedding", tuple(references), temperature, strength)
    whole = torch.cat([torch.stack(anchors), _embedded(embedder, background)])
    return with_digests(GuideNetwork(name, config, made.classifier.network, whole, made.classifier.code))


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
        folder = Path(source).parent if Path(source).is_file() else Path(source)
        facts, tensors = read_weights(folder)
        recipe, scale, labels = _recipe_of_run(facts["recipe"], source), scale_of(facts), tuple(facts["labels"])
        calibration = Calibration()
        network = fill_classifier(folder, recipe, scale, len(labels), tensors)
    _demand_ours(recipe, source)
    config = GuideConfig(FORMAT, "classifier", labels, recipe, scale, calibration, strength or GuideStrength(at="noised"))
    return with_digests(GuideNetwork(name, config, network.eval().requires_grad_(False)))


def calibrate_guide(guide: GuideNetwork, data: str | Path, voice: Duovox, limit: int = 256) -> tuple[GuideNetwork, tuple[Level, ...]]:
    """The guide with a temperature for each noise level, fitted on the validation split of a feature folder whose labels it knows, where it
    is asked in this voice's sampling; and how sure and how right it is there, before and after. Raises `DataError`."""
    joined, config = join(guide, voice.bundle), guide.config
    features = relabelled(open_features(Path(data), voice.config.recipe.mel), guide.labels)
    asked: Classifier = joined.classifier
    at, scale = config.strength.at, voice.config.mel_scale
    fitted, levels = calibrate(voice.bundle.model, features, scale, at, limit=limit, classifier=asked)
    return replace(guide, config=replace(config, calibration=fitted)), levels


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


def sounds_of(path: Path) -> list[Path]:
    """The sound file itself, or all below a folder. Raises `GuideError` where there is none."""
    if not path.is_dir():
        return [path]
    found = find_sounds(path).sounds
    if not found:
        raise GuideError(f"there are no sound files in {path}")
    return found


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


@torch.no_grad()
def _embedded(embedder: Embedder, sounds: Sounds) -> Tensor:
    """Embeddings of length 1, (N, D), of what counts of each sound, by the network's own front end."""
    mel = embedder.classifier.mel
    waves = (_heard(sound, mel.sample_rate, mel.clip_samples) for sound in sounds)
    found = torch.cat([embedder.of_waves(torch.from_numpy(wave)[None]) for wave in waves])
    if not bool(found.isfinite().all()):
        raise GuideError("the network gives embeddings that are not finite for these sounds; check what it takes: --takes, features=...")
    return nn.functional.normalize(found, dim=1)


def _heard(sound: str | Path | NDArray[np.float32], rate: int, samples: int) -> NDArray[np.float32]:
    """The second that counts of a sound; silence is refused."""
    excerpt = hear(as_sound(sound, rate), rate, samples) if isinstance(sound, np.ndarray) else read_excerpt(sound, rate, samples)
    return excerpt.wave


def _centre(embeddings: Tensor) -> Tensor:
    """The direction (D,) of embeddings (N, D)."""
    return nn.functional.normalize(embeddings.mean(dim=0), dim=0)
