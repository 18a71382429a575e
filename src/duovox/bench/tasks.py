"""What is timed: takes a voice and a setup, gives the tasks by name, each with its costs.

A task does the whole work for `setup.batch` clips; time and costs are told for each clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from duovox.bench.rows import Kind, Setup
from duovox.config import NoiseConfig, PresetName, SampleConfig
from duovox.costs import count_costs, gmacs, student_gmacs
from duovox.diffusion.sampling import sample
from duovox.guides import LabelGuide
from duovox.model import Conditioned
from duovox.sound.mel import LogMel
from duovox.voice import Duovox

SIGMA = 2.0
"""The noise level at which one evaluation is timed; the time does not depend on it."""


@dataclass(frozen=True)
class Task:
    """Something to time, with what it costs a clip. `settings` are those of a whole generation."""

    kind: Kind
    name: str
    run: Callable[[], object]
    gmacs: float
    evaluations: int | None = None
    settings: SampleConfig | None = None


@dataclass(frozen=True)
class Costs:
    """GMACs a clip of each part of a voice."""

    classify: float
    plain: float
    tapped: float
    guided: float
    vocoder: float
    student: float = 0.0
    """One evaluation of the student, where there is one."""


def count(voice: Duovox) -> Costs:
    """The costs of a voice's parts, counted once."""
    model, settings = voice.bundle.model, voice.config.recipe.sample
    counted = count_costs(model, settings.guide_at)
    silence = voice.log_mels(torch.zeros(1, 1, model.mel.n_mels, model.mel.frames, device=voice.device))
    heard = gmacs(lambda: voice.vocode(silence)) if voice.bundle.vocoder is not None else 0.0
    plain = counted.unconditional_gmacs
    student = student_gmacs(voice.bundle.student) if voice.bundle.student is not None else 0.0
    return Costs(counted.classifier_gmacs, plain, plain, counted.guided_gmacs, heard, student)


def noise_levels(settings: SampleConfig, noise: NoiseConfig) -> list[float]:
    """The noise level of every evaluation that these settings make."""
    seen: list[float] = []

    def denoiser(noised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(sigma[0].item())
        return torch.zeros_like(noised)

    sample(denoiser, [0], (1,), settings, noise)
    return seen


def generation_gmacs(settings: SampleConfig, noise: NoiseConfig, costs: Costs) -> float:
    """GMACs a clip: its evaluations, guided where the settings guide, or the student's; and the vocoder."""
    if settings.sampler == "student":
        return settings.steps * costs.student + costs.vocoder
    low, high = settings.guidance_low, settings.guidance_high
    guided = [settings.gamma > 0 and low <= sigma <= high for sigma in noise_levels(settings, noise)]
    return sum(costs.guided if each else costs.tapped for each in guided) + costs.vocoder


def tasks_of(voice: Duovox, setup: Setup, presets: dict[PresetName, SampleConfig], costs: Costs) -> Iterator[Task]:
    """Every task of a voice in one setup."""
    model, batch = voice.bundle.model, setup.batch
    mel = model.mel
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(batch, mel.clip_samples, generator=generator).mul(0.1).to(voice.device)
    noised = (SIGMA * torch.randn(batch, 1, mel.n_mels, mel.frames, generator=generator)).to(voice.device)
    sigma = torch.full((batch,), SIGMA, device=voice.device)
    label = torch.arange(batch, device=voice.device) % len(voice.labels)
    asked, log_mel = Conditioned(model, label), voice.log_mels(noised / SIGMA)
    guide = LabelGuide(model.classifier, label, voice.config.recipe.sample.guide_at, model.noise.sigma_min, voice.config.calibration)
    front, classifier = LogMel(mel).to(voice.device), model.classifier.network
    yield Task("classify", "classify", lambda: classifier.hear(wave, front(wave), voice.config.mel_scale), costs.classify)
    yield Task("evaluation", "plain", lambda: model(noised, sigma), costs.plain, 1)
    yield Task("evaluation", "tapped", lambda: asked(noised, sigma), costs.tapped, 1)
    yield Task("evaluation", "guided", lambda: asked.with_gradients(noised, sigma, [guide]), costs.guided, 1)
    yield Task("vocoder", "vocoder", lambda: voice.vocode(log_mel), costs.vocoder)
    wanted: list[tuple[str | None, int]] = [(voice.labels[i % len(voice.labels)], i) for i in range(batch)]
    for name, settings in presets.items():
        levels = len(noise_levels(settings, model.noise))
        work = generation_gmacs(settings, model.noise, costs)
        yield Task("generate", name, _generation(voice, wanted, settings), work, levels, settings)


def _generation(voice: Duovox, wanted: list[tuple[str | None, int]], settings: SampleConfig) -> Callable[[], object]:
    return lambda: voice.generate_batch(wanted, settings)
