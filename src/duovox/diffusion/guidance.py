"""Guidance: a denoiser and guides in, a denoiser out.

Takes a `Denoiser` from `model` (or anyone's) and `Guide`s; gives a `Denoiser` to the samplers. A sum of scores, score + sum_i gamma_i *
d log p_i / d noised, is, in terms of the denoised data, denoised + sum_i gamma_i * sigma^2 * gradient_i (arXiv 2606.20457 section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.config import ScheduleName
from duovox.contracts import Denoiser, Evaluation, GuidableDenoiser, Guide, expand_to


@dataclass(frozen=True)
class GuidanceSchedule:
    """How strongly to guide at each noise level: gamma at low <= sigma <= high, nothing elsewhere (interval: Kynkaanniemi et al. 2024,
    arXiv 2404.07724); gamma may be one for all, or one an item (B,).

    `schedule` weighs gamma by a share of the noised data's variance sigma_data^2 + sigma^2: `early` by the noise's, near 1 at first
    and 0 at the end of sampling; `late` by the data's, the other way round.
    """

    gamma: float | Tensor
    low: float = 0.0
    high: float = float("inf")
    schedule: ScheduleName = "constant"
    sigma_data: float = 0.5

    def at(self, sigma: Tensor) -> Tensor:
        """The guidance scale (B,) at sigma (B,)."""
        noise = sigma.square() / (sigma.square() + self.sigma_data**2)
        weight = {"constant": torch.ones_like(sigma), "early": noise, "late": 1 - noise}[self.schedule]
        inside = (sigma >= self.low) & (sigma <= self.high)
        return torch.where(inside, self.gamma * weight, torch.zeros_like(sigma))


@dataclass(frozen=True)
class ClassifierGuidance:
    """`denoiser` steered by guides, each with a schedule of its own. A guide whose scale is 0 everywhere is not asked.

    With one guide at a constant gamma of 1, and exact parts, this is the score of p(noised | wanted).
    """

    denoiser: GuidableDenoiser
    guides: tuple[tuple[Guide, GuidanceSchedule], ...]

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        scales = [(guide, schedule.at(sigma)) for guide, schedule in self.guides]
        active = [(guide, scale) for guide, scale in scales if bool(scale.any())]
        if not active:
            return self.denoiser(noised, sigma)
        denoised, gradients = self.denoiser.with_gradients(noised, sigma, [guide for guide, _ in active])
        for (_, scale), gradient in zip(active, gradients, strict=True):
            denoised = denoised + expand_to(scale * sigma.square(), noised) * gradient
        return denoised


@dataclass(frozen=True)
class Guidable:
    """Any differentiable `Denoiser` as one that guides may ask."""

    denoiser: Denoiser

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(noised, sigma)

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        """One forward of the denoiser, one backward a guide."""
        with torch.enable_grad():
            source = noised.detach().requires_grad_()
            denoised = self.denoiser(source, sigma)
            return denoised.detach(), gradients_of(guides, Evaluation(source, sigma, denoised))


def gradients_of(guides: Sequence[Guide], seen: Evaluation, retain_graph: bool = False) -> list[Tensor]:
    """d log_probability / d noised of each guide; the graph is kept after the last one only with `retain_graph`."""
    gradients: list[Tensor] = []
    for number, guide in enumerate(guides, 1):
        total = guide.log_probability(seen).sum()
        gradients += torch.autograd.grad(total, seen.noised, retain_graph=retain_graph or number < len(guides))
    return gradients
