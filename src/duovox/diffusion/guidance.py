"""Guidance: a denoiser and guides in, a denoiser out.

Takes a `Denoiser` from `model` (or anyone's) and `Guide`s; gives a `Denoiser` to the samplers. A sum of scores, score + sum_i gamma_i *
d log p_i / d noised, is, in terms of the denoised data, denoised + sum_i gamma_i * sigma^2 * gradient_i (arXiv 2606.20457 section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from duovox.config import ScheduleName
from duovox.contracts import Denoiser, Evaluation, GuidableDenoiser, Guide, GuideError, GuidePlace, expand_to


@dataclass(frozen=True)
class GuidanceSchedule:
    """How strongly to guide at each noise level: gamma at low <= sigma <= high, nothing elsewhere (interval: Kynkaanniemi et al. 2024,
    arXiv 2404.07724); gamma may be one for all, or one an item (B,).

    `schedule` weighs gamma by a share of the noised data's variance sigma_data^2 + sigma^2: `early` by the noise's, near 1 at first
    and 0 at the end of sampling; `late` by the data's, the other way round.

    `cap` is the most that the root mean square of the shift of an item may be at one evaluation; a larger shift keeps its direction.
    """

    gamma: float | Tensor
    low: float = 0.0
    high: float = float("inf")
    schedule: ScheduleName = "constant"
    sigma_data: float = 0.5
    cap: float = math.inf

    def at(self, sigma: Tensor) -> Tensor:
        """The guidance scale (B,) at sigma (B,)."""
        noise = sigma.square() / (sigma.square() + self.sigma_data**2)
        weight = {"constant": torch.ones_like(sigma), "early": noise, "late": 1 - noise}[self.schedule]
        inside = (sigma >= self.low) & (sigma <= self.high)
        return torch.where(inside, self.gamma * weight, torch.zeros_like(sigma))


@dataclass(frozen=True)
class ClassifierGuidance:
    """`denoiser` steered by guides, each with a schedule of its own. A guide whose scale is 0 everywhere is not asked.

    With one guide at a constant gamma of 1, and exact parts, this is the score of p(noised | wanted). Guides share the denoiser's forward;
    one that has a cap takes a backward of its own, those without one are differentiated together. Raises `GuideError` where a guide
    with a cap has a gradient that is not finite.
    """

    denoiser: GuidableDenoiser
    guides: tuple[tuple[Guide, GuidanceSchedule], ...]

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        scales = [(guide, schedule.at(sigma), schedule.cap) for guide, schedule in self.guides]
        active = joined([part for part in scales if bool(part[1].any())])
        if not active:
            return self.denoiser(noised, sigma)
        denoised, gradients = self.denoiser.with_gradients(noised, sigma, [guide for guide, _, _ in active])
        for (guide, scale, cap), gradient in zip(active, gradients, strict=True):
            shift = expand_to(scale * sigma.square(), noised) * gradient
            denoised = denoised + (shift if math.isinf(cap) else limited(shift, cap, noised, scale, guide, sigma))
        return denoised


ScaledGuide = tuple[Guide, Tensor, float]
"""A guide, its scale (B,) at the noise level at hand, and its cap."""


def joined(guides: Sequence[ScaledGuide]) -> list[ScaledGuide]:
    """The same guides, those without a cap that look at the same place as one: the gradient of a sum is the sum of the gradients."""
    capped = [part for part in guides if not math.isinf(part[2])]
    free = [part for part in guides if math.isinf(part[2])]
    places: tuple[GuidePlace, ...] = get_args(GuidePlace)
    return [*(one for at in places for one in _together(at, [part for part in free if part[0].at == at])), *capped]


def _together(at: GuidePlace, parts: Sequence[ScaledGuide]) -> Sequence[ScaledGuide]:
    if len(parts) < 2:
        return parts
    whole = WeightedSum(at, tuple((guide, scale) for guide, scale, _ in parts))
    return [(whole, torch.ones_like(parts[0][1]), math.inf)]


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Guides that look at the same place as one guide: the sum of their log-probabilities, each times its weight (B,)."""

    at: GuidePlace
    parts: tuple[tuple[Guide, Tensor], ...]

    def log_probability(self, seen: Evaluation) -> Tensor:
        return torch.stack([weight * guide.log_probability(seen) for guide, weight in self.parts]).sum(dim=0)


def limited(shift: Tensor, cap: float, noised: Tensor, scale: Tensor, guide: Guide, sigma: Tensor) -> Tensor:
    """The shift (B, ...) of a guide with a root mean square of at most `cap` an item; nothing where the scale (B,) is 0 or the noised data
    ran off by themselves. Raises `GuideError` where it is not finite otherwise."""
    asked = (scale != 0) & noised.flatten(1).isfinite().all(dim=1)
    lost = asked & ~shift.flatten(1).isfinite().all(dim=1)
    if bool(lost.any()):
        raise GuideError(
            f"{guide} gives no finite gradient at noise level {sigma[lost][0].item():.3g}; let it guide at lower noise alone, or by less"
        )
    shift = torch.where(expand_to(asked, shift), shift, torch.zeros_like(shift))
    size = shift.flatten(1).square().mean(dim=1).sqrt()
    return shift * expand_to((cap / size.clamp(min=1e-12)).clamp(max=1), shift)


@dataclass(frozen=True)
class Guidable:
    """Any differentiable `Denoiser` as one that guides may ask."""

    denoiser: Denoiser

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(noised, sigma)

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        """One forward of the denoiser, one backward a guide; through the denoiser for those at the estimate."""
        source = noised.detach().requires_grad_()
        with torch.set_grad_enabled(any(guide.at == "estimate" for guide in guides)):
            denoised = self.denoiser(source, sigma)
        with torch.enable_grad():
            return denoised.detach(), gradients_of(guides, Evaluation(source, sigma, denoised))


def gradients_of(guides: Sequence[Guide], seen: Evaluation, retain_graph: bool = False) -> list[Tensor]:
    """d log_probability / d noised of each guide; the graph is kept after the last one only with `retain_graph`."""
    gradients: list[Tensor] = []
    for number, guide in enumerate(guides, 1):
        total = guide.log_probability(seen).sum()
        gradients += torch.autograd.grad(total, seen.noised, retain_graph=retain_graph or number < len(guides))
    return gradients
