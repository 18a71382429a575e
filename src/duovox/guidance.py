"""Classifier guidance: a denoiser in, a denoiser out.

Takes a `GuidableDenoiser` from `model`; gives a `Denoiser` to the samplers. score + gamma * d log p(label | noised) / d noised
is, in terms of the denoised mel, denoised + gamma * sigma^2 * that gradient (arXiv 2606.20457 section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.contracts import GuidableDenoiser, expand_to


@dataclass(frozen=True)
class Guided:
    """`denoiser` steered towards its label with scale `gamma`, at noise levels low <= sigma <= high only.

    Outside the interval no gradient is computed (Kynkaanniemi et al. 2024, arXiv 2404.07724). At gamma 1 and with exact
    parts this is the score of p(noised | label).
    """

    denoiser: GuidableDenoiser
    gamma: float
    low: float = 0.0
    high: float = float("inf")

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        active = (sigma >= self.low) & (sigma <= self.high)
        if self.gamma == 0 or not bool(active.any()):
            return self.denoiser(noised, sigma)
        denoised, gradient = self.denoiser.with_label_gradient(noised, sigma)
        strength = torch.where(active, self.gamma * sigma.square(), torch.zeros_like(sigma))
        return denoised + expand_to(strength, noised) * gradient
