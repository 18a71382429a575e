"""From labels, seeds and guides to mels: takes a bundle, gives scaled mels to `voice`. Here is chosen who samples, the guided model or its
student, and which noise of a seed it begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from duovox.bundle import Bundle
from duovox.config import SampleConfig
from duovox.contracts import NO_LABEL, BundleError, Denoiser, Evaluation, GenerationError, Guide
from duovox.diffusion.guidance import ClassifierGuidance, GuidanceSchedule
from duovox.diffusion.sampling import Callback, sample, sample_jumps
from duovox.guides import LabelGuide, TargetGuide
from duovox.model import Conditioned
from duovox.steering import ScheduledGuide
from duovox.student import Student, Taught

SKETCH_STEPS = 4
"""Steps of DPM-Solver++ in which a mel is sketched where there is no student to do it."""

SKETCHED = 16
"""How many sketches are made at once."""


def sample_mels(
    bundle: Bundle,
    numbers: Tensor | None,
    seeds: Sequence[int],
    settings: SampleConfig,
    callback: Callback | None = None,
    guides: Sequence[ScheduledGuide] = (),
    device: torch.device | str = "cpu",
    starts: Sequence[int] | None = None,
) -> Tensor:
    """Scaled mels (B, 1, M, T), one per seed, towards labels by their numbers (B,) or shares (B, K), or towards none; unchecked, as the
    sampler leaves them. Each begins with noise number `starts[i]` of its seed, where none are given with the one that its guides like best.
    """
    mel, noise = bundle.config.recipe.mel, bundle.config.recipe.noise
    shape = (1, mel.n_mels, mel.frames)
    if settings.sampler == "student":
        student = choose_student(bundle, settings)
        named = torch.full((len(seeds),), NO_LABEL, device=device) if numbers is None else numbers
        taught = Taught(student, named, settings.gamma)
        return sample_jumps(taught, seeds, shape, student.levels(settings.steps), callback, device, starts or ())
    if starts is None:
        starts = best_starts(bundle, numbers, seeds, settings, guides, device)
    return sample(denoiser_of(bundle, numbers, settings, guides), seeds, shape, settings, noise, callback, device, starts)


def choose_student(bundle: Bundle, settings: SampleConfig) -> Student:
    """The bundle's student, which must know the settings. Raises `BundleError` where there is none, `GenerationError`."""
    if bundle.student is None:
        raise BundleError("this bundle has no student; train one (`duovox solve`, `duovox train student`), or take another sampler")
    bundle.student.repertoire.check(settings, bundle.config.recipe.sample.guide_at)
    return bundle.student


def denoiser_of(bundle: Bundle, numbers: Tensor | None, settings: SampleConfig, guides: Sequence[ScheduledGuide] = ()) -> Denoiser:
    """The bundle's model, guided towards labels (see `guided`) or towards none, and by further guides."""
    if numbers is not None:
        return guided(bundle, numbers, settings, guides=guides)
    model = bundle.model
    return ClassifierGuidance(Conditioned(model), tuple((one.guide, one.schedule) for one in guides)) if guides else model


def guided(
    bundle: Bundle, numbers: Tensor, settings: SampleConfig, gamma: Tensor | None = None, guides: Sequence[ScheduledGuide] = ()
) -> Denoiser:
    """A bundle's model guided towards labels, given by their numbers (B,) or by shares (B, K) of each, as `settings` say; `gamma` (B,)
    takes the place of theirs. Further `guides` steer all items alike.

    Where the number is `NO_LABEL`, gamma must be 0.
    """
    sigma_data, strength = bundle.config.recipe.noise.sigma_data, settings.gamma if gamma is None else gamma
    schedule = GuidanceSchedule(strength, settings.guidance_low, settings.guidance_high, settings.schedule, sigma_data)
    steered = ((towards(bundle, numbers, settings), schedule), *((one.guide, one.schedule) for one in guides))
    return ClassifierGuidance(Conditioned(bundle.model, numbers), steered)


def towards(bundle: Bundle, numbers: Tensor, settings: SampleConfig) -> LabelGuide | TargetGuide:
    """The bundle's classifier as a guide towards labels, by their numbers (B,) or shares (B, K)."""
    classifier = bundle.model.classifier
    asked = (settings.guide_at, bundle.config.recipe.noise.sigma_min, bundle.config.calibration)
    if numbers.ndim == 1:
        return LabelGuide(classifier, numbers.clamp(min=0), *asked)
    return TargetGuide(classifier, numbers, *asked)


# the noise to begin with


def best_starts(
    bundle: Bundle,
    numbers: Tensor | None,
    seeds: Sequence[int],
    settings: SampleConfig,
    guides: Sequence[ScheduledGuide],
    device: torch.device | str = "cpu",
    shared: bool = False,
) -> list[int]:
    """Which of its `candidates` noises each seed is to begin with: the one whose sketch those guides like best that choose at all; none
    where none does. `shared`: items of the same seed begin with the same one, which they like best on the whole.

    A guide moves a clip a little; where it begins decides much of it. So each candidate is sketched by the word alone, in few evaluations,
    and the guides, the word's among them, say how probable what they want is there: the sum of gamma log p. That is best of n, among noises
    (N. Ma et al. 2025, arXiv 2501.09732).
    """
    choosing = [guide for guide in guides if guide.record.strength.candidates > 1]
    if not choosing:
        return []
    candidates = max(guide.record.strength.candidates for guide in choosing)
    pairs = [(place, start) for place in range(len(seeds)) for start in range(candidates)]
    likings = []
    for begin in range(0, len(pairs), SKETCHED):
        places, starts = zip(*pairs[begin : begin + SKETCHED], strict=True)
        some = None if numbers is None else numbers[list(places)]
        mels = sketches(bundle, some, [seeds[place] for place in places], settings, starts, device)
        asked: list[tuple[float, Guide]] = [] if some is None else [(settings.gamma, towards(bundle, some, settings))]
        asked += [(guide.record.strength.gamma, guide.guide) for guide in choosing]
        likings.append(liking(mels, asked, bundle.config.recipe.noise.sigma_min))
    likes = torch.cat(likings).reshape(len(seeds), candidates)
    if shared:
        likes = torch.stack([likes[[other == seed for other in seeds]].sum(dim=0) for seed in seeds])
    return likes.argmax(dim=1).tolist()


def sketches(
    bundle: Bundle,
    numbers: Tensor | None,
    seeds: Sequence[int],
    settings: SampleConfig,
    starts: Sequence[int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Rough mels (B, 1, M, T) of the same labels and noises: by the fewest jumps of the student where there is one and the labels are
    single ones, else by a few steps of the model."""
    rough = replace(settings, sampler="dpmpp_2m", steps=SKETCH_STEPS)
    if bundle.student is not None and (numbers is None or numbers.ndim == 1):
        quick = replace(bundle.student.repertoire.nearest(settings), steps=bundle.student.evaluations[0])
        with suppress(GenerationError):
            choose_student(bundle, quick)
            rough = quick
    return sample_mels(bundle, numbers, seeds, rough, device=device, starts=starts)


@torch.no_grad()
def liking(mels: Tensor, guides: Sequence[tuple[float, Guide]], sigma_min: float) -> Tensor:
    """The sum of gamma log p of what guides want, each with its gamma, in mels (B, 1, M, T): (B,). No number counts as impossible."""
    seen = Evaluation(mels, torch.full((len(mels),), sigma_min, device=mels.device), mels)
    values = [gamma * guide.log_probability(seen) for gamma, guide in guides]
    return torch.stack(values).sum(dim=0).nan_to_num(nan=-torch.inf)
