"""Classifier guidance: a denoiser in, a denoiser out.

Takes a `GuidableDenoiser` from `model`; gives a `Denoiser` to the samplers. score + gamma * d log p(label | noised) / d noised
is, in terms of the denoised mel, denoised + gamma * sigma^2 * that gradient (arXiv 2606.20457 section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from duovox.contracts import GuidableDenoiser, expand_to


@dataclass(frozen=True)
class Strength:
    """How strongly to guide at each noise level: gamma at low <= sigma <= high, nothing elsewhere (interval: Kynkaanniemi et al. 2024,
    arXiv 2404.07724).

    `schedule` weighs gamma by a share of the noised mel's variance sigma_data^2 + sigma^2: `early` by the noise's, near 1 at first
    and 0 at the end of sampling; `late` by the mel's, the other way round.
    """

    gamma: float
    low: float = 0.0
    high: float = float("inf")
    schedule: Literal["constant", "early", "late"] = "constant"
    sigma_data: float = 0.5

    def at(self, sigma: Tensor) -> Tensor:
        """The guidance scale (B,) at sigma (B,)."""
        noise = sigma.square() / (sigma.square() + self.sigma_data**2)
        weight = {"constant": torch.ones_like(sigma), "early": noise, "late": 1 - noise}[self.schedule]
        inside = (sigma >= self.low) & (sigma <= self.high)
        return torch.where(inside, self.gamma * weight, torch.zeros_like(sigma))


@dataclass(frozen=True)
class Guided:
    """`denoiser` steered towards its label. Where the strength is 0 no gradient is computed.

    At a constant gamma of 1 and with exact parts this is the score of p(noised | label).
    """

    denoiser: GuidableDenoiser
    strength: Strength

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        scale = self.strength.at(sigma)
        if not bool(scale.any()):
            return self.denoiser(noised, sigma)
        denoised, gradient = self.denoiser.with_label_gradient(noised, sigma)
        return denoised + expand_to(scale * sigma.square(), noised) * gradient
