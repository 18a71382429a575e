"""Guides joined to a voice: takes guides from folders or memory, and a bundle; gives them with target and schedule to `mels`, `voice`."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.bundle import Bundle
from duovox.classifiers.front_end import WaveFrontEnd
from duovox.classifiers.frozen import fingerprint
from duovox.config import (
    MAX_GUIDES,
    Calibration,
    GuideRecord,
    GuideStrength,
    MelConfig,
    Recipe,
    SampleConfig,
    between,
    check_target,
    from_dict,
    listed,
    read_target,
    to_dict,
)
from duovox.contracts import Classifier, ConfigError, Evaluation, Guide, GuideError, LabelError
from duovox.diffusion.guidance import GuidanceSchedule
from duovox.embedders import Embedder, OwnEmbedder, SoundEmbedder
from duovox.files import differences
from duovox.guide_folder import GuideNetwork, read_guide, with_digests
from duovox.guides import CosineClassifier, FunctionGuide, NamedGuide, Rescaled, StraightGuide, TargetGuide, weights_of
from duovox.labels import resolve
from duovox.model import build_external
from duovox.quantities import LEVELS, PITCHES, LoudnessClassifier, PitchClassifier
from duovox.sound.audio import as_sound, read_excerpt
from duovox.sound.folders import name_of, sounds_of
from duovox.sound.hearing import hear

OWN, PITCH, LOUDNESS = "own", "pitch", "loudness"
OF_VOICE = (OWN, PITCH, LOUDNESS)
"""What guides are called that every voice has: its own classifier, the pitch that its vocoder hears, how loud its mel is."""

LIKE = "like"
"""The label of a guide that wants a wave without a name."""


@dataclass(frozen=True)
class ScheduledGuide:
    """A guide as `generate` takes it: what it says, how strongly it guides, and what a clip's record tells of it; `network` is the one
    that it asks, None for a function. Two are equal whose records are."""

    record: GuideRecord
    guide: Guide = field(compare=False, repr=False)
    schedule: GuidanceSchedule = field(compare=False, repr=False)
    network: nn.Module | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class JoinedGuide:
    """A guide's network as a classifier of a voice's mels, (noised, sigma) -> logits (B, `outputs`), the first of which are its labels.
    Only one that `knows_noise` can be asked at the noised mel."""

    name: str
    labels: tuple[str, ...]
    classifier: Classifier
    outputs: int
    digest: str
    calibration: Calibration
    strength: GuideStrength
    knows_noise: bool = True


def opened(
    source: str | Path | GuideNetwork, bundle: Bundle, trust_code: bool = False, like: str | Path | NDArray[np.float32] | None = None
) -> JoinedGuide:
    """A guide by its name or folder, or one in memory, ready to guide the voice of a bundle; towards the sound `like`, where it is given.
    Raises `GuideError`, and `AudioError` for a sound that cannot be heard."""
    if isinstance(source, str) and source in OF_VOICE:
        if like is not None:
            raise GuideError(f"the guide {source} embeds no sounds; take speaker to be near to one")
        return join_of_voice(source, bundle)
    made = source if isinstance(source, GuideNetwork) else read_guide(source, trust_code)
    return join(made if like is None else likened(made, reference(like, bundle.config.recipe.mel), bundle), bundle)


def join(guide: GuideNetwork, bundle: Bundle) -> JoinedGuide:
    """A guide ready to guide the voice of a bundle. Raises `GuideError` where what it takes cannot be made from what the voice gives."""
    config, recipe = guide.config, bundle.config.recipe
    try:
        classifier = _foreign(guide, bundle) if config.recipe.external else _ours(guide, recipe, bundle)
    except ConfigError as error:
        raise GuideError(f"the guide {guide.name} does not fit this voice, which speaks at {recipe.mel.sample_rate} Hz: {error}") from None
    outputs = len(config.labels) if guide.anchors is None else len(guide.anchors)
    frozen = classifier.eval().requires_grad_(False)
    return JoinedGuide(
        guide.name, guide.labels, frozen, outputs, guide.digest, config.calibration, config.strength, config.recipe.external is None
    )


def join_of_voice(name: str, bundle: Bundle) -> JoinedGuide:
    """One of the guides that every voice has (`OF_VOICE`). Raises `GuideError` for the pitch of a voice without a neural vocoder."""
    if name == OWN:
        return join_own(bundle)
    mel, scale = bundle.config.recipe.mel, bundle.config.mel_scale
    if name == LOUDNESS:
        return _measured(name, LEVELS, LoudnessClassifier(mel, scale), [to_dict(mel)], GuideStrength(gamma=1.0))
    if bundle.vocoder is None:
        raise GuideError("the guide pitch hears with the voice's neural vocoder, and this voice has none; take a bundle with one")
    head = copy.deepcopy(bundle.vocoder.pitch)
    strength = GuideStrength(gamma=50.0, cap=0.1, candidates=8)
    return _measured(name, PITCHES, PitchClassifier(head, mel, scale), [to_dict(mel), fingerprint(head)], strength)


def _measured(name: str, labels: tuple[str, ...], classifier: nn.Module, decided_by: Sequence[Any], strength: GuideStrength) -> JoinedGuide:
    digest = hashlib.sha256(json.dumps([name, labels, *decided_by], sort_keys=True).encode()).hexdigest()
    frozen = classifier.eval().requires_grad_(False)
    return JoinedGuide(name, labels, frozen, len(labels), digest, Calibration(), strength, knows_noise=False)


def join_own(bundle: Bundle) -> JoinedGuide:
    """The voice's own classifier as a guide, as its settings guide towards a label."""
    config, own = bundle.config, bundle.config.recipe.sample
    strength = GuideStrength(own.gamma, own.guidance_low, own.guidance_high, math.inf, own.schedule, own.guide_at)
    return JoinedGuide(OWN, config.labels, bundle.model.classifier, len(config.labels), config.digest, config.calibration, strength)


def _ours(guide: GuideNetwork, recipe: Recipe, bundle: Bundle) -> nn.Module:
    for name, its, ours in differences(to_dict(guide.config.recipe.mel), to_dict(recipe.mel)):
        raise ConfigError(f"it takes a mel of {name} = {its!r}, the voice's has {ours!r}")
    rescaled = Rescaled(guide.network, guide.config.mel_scale, bundle.config.mel_scale)
    if guide.anchors is None:
        return rescaled
    return CosineClassifier(OwnEmbedder(rescaled, recipe.mel, bundle.config.mel_scale, recipe.noise.sigma_min), guide.anchors)


def _foreign(guide: GuideNetwork, bundle: Bundle) -> nn.Module:
    external = guide.config.recipe.external
    assert external is not None
    if external.wave_input is not None and bundle.vocoder is None:
        raise ConfigError("it takes a waveform, and the voice has no neural vocoder to make one that gradients pass")
    classifier = build_external(replace(bundle.config.recipe, external=external), guide.network, bundle.config.mel_scale)
    if isinstance(classifier.front_end, WaveFrontEnd):
        assert bundle.vocoder is not None
        classifier.front_end.vocoder.load_state_dict(bundle.vocoder.state_dict(), strict=True)
    return classifier if guide.anchors is None else CosineClassifier(Embedder(classifier), guide.anchors)


def likened(guide: GuideNetwork, references: Mapping[str, Sequence[NDArray[np.float32]]], bundle: Bundle) -> GuideNetwork:
    """An embedding guide whose labels are other references, each of waves (S,) at the voice's rate; its background stays. Raises
    `GuideError` for a guide that embeds no sounds."""
    classifier = join(guide, bundle).classifier
    if not isinstance(classifier, CosineClassifier) or guide.anchors is None:
        raise GuideError(f"the guide {guide.name} embeds no sounds; take speaker, or make one with `duovox guide --background ...`")
    embedder: Any = classifier.embed
    with torch.no_grad():
        own = [centre_of(embedder, waves) for waves in references.values()]
    anchors = torch.cat([torch.stack(own), guide.anchors[len(guide.labels) :]])
    return with_digests(replace(guide, config=replace(guide.config, labels=tuple(references)), anchors=anchors))


def reference(sound: str | Path | NDArray[np.float32], mel: MelConfig) -> dict[str, list[NDArray[np.float32]]]:
    """A sound to be near to, by its name: what counts of a file, of each file of a folder, or of a wave at the rate of `mel`. Raises
    `AudioError`, for silence too."""
    if isinstance(sound, np.ndarray):
        return {LIKE: [hear(as_sound(sound, mel.sample_rate), mel.sample_rate, mel.clip_samples).wave]}
    path = Path(sound)
    return {name_of(path): [read_excerpt(one, mel.sample_rate, mel.clip_samples).wave for one in sounds_of(path)]}


def centre_of(embedder: SoundEmbedder, waves: Sequence[NDArray[np.float32]]) -> Tensor:
    """The direction (D,) of the embeddings of waves (S,)."""
    found = torch.cat([embedder.of_waves(torch.from_numpy(wave)[None]) for wave in waves])
    return nn.functional.normalize(nn.functional.normalize(found, dim=1).mean(dim=0), dim=0)


def aim(joined: JoinedGuide, bundle: Bundle, target: str | Mapping[str, float] | None, changes: Mapping[str, Any]) -> ScheduledGuide:
    """A guide with a target and a strength: its own, but for `changes` (fields of `GuideStrength`, or interval=(low, high)).

    A target is a label, or labels with weights (see `guides.log_target`); None is the only label of a guide that has one. Raises
    `LabelError` and `ConfigError`, and `GuideError` for a place where the guide cannot be asked.
    """
    strength, weights = changed(joined.strength, changes), _target(joined, target)
    if strength.at == "noised" and not joined.knows_noise:
        raise GuideError(f"the guide {joined.name} never met noise and can be asked at the estimate alone: leave noised out")
    noise = bundle.config.recipe.noise
    wanted = weights_of(weights, joined.labels, joined.outputs)
    guide = TargetGuide(joined.classifier, wanted, strength.at, noise.sigma_min, joined.calibration)
    scheduled = _scheduled(GuideRecord(joined.name, joined.digest, weights, strength), guide, noise.sigma_data)
    return replace(scheduled, network=joined.classifier if isinstance(joined.classifier, nn.Module) else None)


def _scheduled(record: GuideRecord, guide: Guide, sigma_data: float) -> ScheduledGuide:
    """A guide by the strength of its record."""
    strength, named = record.strength, NamedGuide(record.called, guide)
    asked = StraightGuide(named, sigma_data) if strength.way == "straight" else named
    return ScheduledGuide(record, asked, schedule_of(strength, sigma_data))


def aim_function(function: Callable[[Tensor], Tensor], bundle: Bundle, name: str, changes: Mapping[str, Any]) -> ScheduledGuide:
    """A plain function of the estimated log-mel (see `FunctionGuide`), which is tried on noise first. Raises `GuideError` for one that
    gives something else than a value a clip, or whose value of a clip depends on the others."""
    strength = changed(GuideStrength(), changes)
    if strength.at != "estimate":
        raise GuideError(f"the function {name} can be asked at the estimate alone: a noised mel is no log-mel")
    config = bundle.config
    guide = FunctionGuide(function, config.mel_scale)
    _demand_alone(function, NamedGuide(name, guide), bundle)
    return _scheduled(GuideRecord(name, "", {}, strength), guide, config.recipe.noise.sigma_data)


@torch.enable_grad()
def _demand_alone(function: Callable[[Tensor], Tensor], guide: NamedGuide, bundle: Bundle) -> None:
    mel = bundle.config.recipe.mel
    noise = torch.randn(3, 1, mel.n_mels, mel.frames, generator=torch.Generator().manual_seed(0))
    mels = (noise * torch.tensor([0.5, 0.5, 2.0]).reshape(3, 1, 1, 1)).requires_grad_()
    whole, alone = (guide.log_probability(Evaluation(some, torch.ones(len(some)), some)) for some in (mels, mels[:1]))
    if not torch.allclose(whole[:1], alone, rtol=1e-2, atol=1e-4):
        raise GuideError(f"{guide} is no function of one clip: it gives {alone[0]:.4g} for a clip alone, {whole[0]:.4g} beside others")


def _target(joined: JoinedGuide, target: str | Mapping[str, float] | None) -> dict[str, float]:
    """The target with the labels that are meant. Raises `LabelError` that names the guide."""
    if not joined.labels:
        raise LabelError(f"say what sound the guide {joined.name} is to be near to: {joined.name}-FILE.wav, like=...")
    if target is None:
        if len(joined.labels) != 1:
            raise LabelError(f"say what is wanted of the guide {joined.name}, one of {listed(joined.labels)}")
        target = joined.labels[0]
    if isinstance(target, str):
        target = {target: 1.0} if target in joined.labels else between(target, joined.labels) or read_target(target)
    try:
        meant = [(resolve(label, joined.labels), weight) for label, weight in check_target(target).items()]
    except LabelError as error:
        raise LabelError(f"the guide {joined.name}: {_said(str(error), joined.labels)}") from None
    if len(dict(meant)) < len(meant):
        raise ConfigError(f"the target of the guide {joined.name} names a label twice")
    return dict(meant)


def _said(error: str, labels: Sequence[str]) -> str:
    """What is said of an unknown label, in the words of guides; of values, where they begin and end."""
    known = listed(labels)
    if error.startswith("unknown label") and known != ", ".join(labels):
        return f"{error.partition(';')[0]}; it knows {known} and what lies between"
    return error.replace("this model speaks:", "it knows:")


def changed(strength: GuideStrength, changes: Mapping[str, Any]) -> GuideStrength:
    """The strength with those of the changes that are not None. Raises `ConfigError`."""
    values = {name: value for name, value in changes.items() if value is not None}
    interval = values.pop("interval", None)
    if interval is not None:
        if len(interval) != 2:
            raise ConfigError(f"guide.interval must be two noise levels, low and high, not {interval!r}")
        values |= {"low": float(interval[0]), "high": float(interval[1])}
    current = {f.name: getattr(strength, f.name) for f in fields(strength)}
    return from_dict(GuideStrength, current | values, "guide")


def schedule_of(strength: GuideStrength, sigma_data: float) -> GuidanceSchedule:
    return GuidanceSchedule(strength.gamma, strength.low, strength.high, strength.schedule, sigma_data, strength.cap)


def steering(guides: Sequence[ScheduledGuide]) -> tuple[ScheduledGuide, ...]:
    """Those that steer at all: a guide whose gamma is 0 changes nothing, costs nothing and is not recorded."""
    return tuple(guide for guide in guides if guide.record.strength.gamma)


def check_guides(guides: Sequence[ScheduledGuide], settings: SampleConfig) -> None:
    """Raise `GuideError` for guides that cannot steer together, or not with these settings."""
    if len(guides) > MAX_GUIDES:
        raise GuideError(f"{len(guides)} guides are too many, at most {MAX_GUIDES} can steer a clip; one target may want several labels")
    called = [guide.record.called for guide in guides]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is not None:
        raise GuideError(f"the guide {twice} is given twice; give it once, with a higher gamma")
    if guides and settings.sampler == "student":
        raise GuideError("the sampler student asks no guide, its guidance is within it; take another preset than turbo, or dpmpp_2m")
