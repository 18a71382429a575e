"""Temperature scaling per noise level: accuracy and calibration error of a classifier, and the temperatures that lower the latter.

Takes a model and features; gives accuracy and calibration error before and after, and a `Calibration` that the guidance uses. A
classifier that never met noise is wrong in both: it is sure of nonsense. One temperature per noise level, fitted on the validation
split, cannot make it right more often, but makes it as sure as it may be (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.config import Calibration, MelScale
from duovox.contracts import Classifier, GuideAt
from duovox.data import Features, in_order
from duovox.diffusion.noise import add_noise
from duovox.model import ScoreModel
from duovox.sound.mel import scale_mel

CALIBRATION_SIGMAS = (0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 80.0)
"""Noise levels at which temperatures are fitted."""

LOWEST, HIGHEST = 0.5, 100.0
"""Temperatures are sought in this range. Above it the guidance is none; far below 1 only a split without a single error asks to go,
and that says little."""


@dataclass(frozen=True)
class Level:
    """A classifier at one noise level: accuracy, temperature, and calibration error and negative log-likelihood without and with it."""

    sigma: float
    accuracy: float
    temperature: float
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float


def calibrate(
    model: ScoreModel,
    features: Features,
    scale: MelScale,
    guide_at: GuideAt,
    *,
    sigmas: Sequence[float] = CALIBRATION_SIGMAS,
    limit: int = 256,
    seed: int = 0,
    classifier: Classifier | None = None,
) -> tuple[Calibration, tuple[Level, ...]]:
    """Fit temperatures on the validation split; measure them on the test split (at most `limit` clips of each, evenly taken).

    Logits are those of the noised mel, or of the model's unconditional estimate of the clean one; the model's own classifier gives them,
    or another, by whose labels the features are numbered. Raises `DataError` for an empty split.
    """
    levels = []
    for number, sigma in enumerate(sigmas):
        seeds = [seed * 1_000_003 + 2 * number + offset for offset in (0, 1)]
        held, held_label = collect_logits(model, features, "validation", scale, sigma, guide_at, limit, seeds[0], classifier)
        test, test_label = collect_logits(model, features, "test", scale, sigma, guide_at, limit, seeds[1], classifier)
        temperature = fit_temperature(held, held_label)
        levels.append(_level(sigma, test, test_label, temperature))
    return Calibration(guide_at, tuple(sigmas), tuple(level.temperature for level in levels)), tuple(levels)


@torch.no_grad()
def collect_logits(
    model: ScoreModel,
    features: Features,
    split: str,
    scale: MelScale,
    sigma: float,
    guide_at: GuideAt,
    limit: int,
    seed: int,
    classifier: Classifier | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and labels (N,) of a split at one noise level, taken where `guide_at` says; the model's own classifier's by default."""
    classifier = model.classifier if classifier is None else classifier
    device = next(model.score_network.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    logits, labels = [], []
    for batch in in_order(features, split, 128, limit):
        clean, level = scale_mel(batch.log_mel.to(device), scale), torch.full((len(batch.label),), sigma, device=device)
        noised = add_noise(clean, level, generator)
        if guide_at == "estimate":
            noised, level = model(noised, level), torch.full_like(level, model.noise.sigma_min)
        logits.append(classifier(noised, level).cpu())
        labels.append(batch.label)
    return torch.cat(logits), torch.cat(labels)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature with the least negative log-likelihood of labels (N,) under logits (N, K), by golden section in its logarithm.

    The likelihood has one minimum, for it is convex in the inverse temperature.
    """
    low, high = torch.tensor([LOWEST, HIGHEST], dtype=torch.float64).log().tolist()
    share = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        left, right = high - share * (high - low), low + share * (high - low)
        if _loss(logits, label, left) < _loss(logits, label, right):
            high = right
        else:
            low = left
    return float(torch.tensor((low + high) / 2, dtype=torch.float64).exp())


def _loss(logits: Tensor, label: Tensor, log_temperature: float) -> float:
    tempered = logits.double() / torch.tensor(log_temperature, dtype=torch.float64).exp()
    return torch.nn.functional.cross_entropy(tempered, label).item()


def calibration_error(logits: Tensor, label: Tensor, bins: int = 15) -> float:
    """Expected calibration error: the mean difference, over clips, of confidence and accuracy within bins of equal confidence range."""
    confidence, chosen = torch.softmax(logits.double(), dim=1).max(dim=1)
    right = (chosen == label).double()
    place = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - right)
    return float(sums.abs().sum() / len(label))


def _level(sigma: float, logits: Tensor, label: Tensor, temperature: float) -> Level:
    tempered = logits / temperature
    accuracy = (logits.argmax(1) == label).double().mean().item()
    errors = calibration_error(logits, label), calibration_error(tempered, label)
    losses = [torch.nn.functional.cross_entropy(values.double(), label).item() for values in (logits, tempered)]
    return Level(sigma, accuracy, temperature, *errors, *losses)


def levels_table(levels: Sequence[Level]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| sigma | accuracy | temperature | calibration error | with temperature | NLL | with temperature |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {v.sigma:g} | {v.accuracy:.3f} | {v.temperature:.2f} | {v.error_before:.3f} | {v.error_after:.3f} "
        f"| {v.loss_before:.2f} | {v.loss_after:.2f} |"
        for v in levels
    ]
    return "\n".join(lines)
