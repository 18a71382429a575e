"""Noise levels: the VP-SDE, sigma grids, the sigmas of training, and preconditioning. Pure functions of tensors.

Takes settings from `config`; gives sigmas to the trainings and samplers, coefficients to the classifier and the model.
Noise is written in one coordinate everywhere: noised = clean + sigma * eps. The variance-preserving process of the paper
is the same thing seen through x_vp = noised / sqrt(1 + sigma^2). "EDM" is Karras et al. 2022, arXiv 2206.00364.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.config import NoiseConfig
from duovox.contracts import expand_to

VP_END = 1e-3
"""Smallest time of the VP-SDE, where sampling stops (Song et al. 2021, arXiv 2011.13456, appendix C)."""


def vp_sigma(time: Tensor, config: NoiseConfig) -> Tensor:
    """sigma of the VP-SDE with linear beta at `time` in (0, 1] (EDM table 1)."""
    growth = 0.5 * (config.beta_max - config.beta_min) * time.square() + config.beta_min * time
    return torch.expm1(growth).sqrt()


def vp_time(sigma: Tensor, config: NoiseConfig) -> Tensor:
    """Time of the VP-SDE at which its sigma is `sigma`; inverse of `vp_sigma`."""
    slope = config.beta_max - config.beta_min
    return ((config.beta_min**2 + 2 * slope * torch.log1p(sigma.square())).sqrt() - config.beta_min) / slope


def vp_beta(time: Tensor, config: NoiseConfig) -> Tensor:
    """beta(time) of the VP-SDE: linear from beta_min to beta_max."""
    return config.beta_min + (config.beta_max - config.beta_min) * time


def vp_times(steps: int) -> Tensor:
    """`steps` + 1 times from 1 down to `VP_END`, evenly spaced, float64."""
    return torch.linspace(1, VP_END, steps + 1, dtype=torch.float64)


def sigma_grid(steps: int, config: NoiseConfig, last: float = 0.0) -> Tensor:
    """`steps` + 1 sigmas from sigma_max down to sigma_min, or `last` where that is higher, and then 0; float64 (EDM eq. 5).

    Raises `ConfigError` for a `last` that is not below sigma_max.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = config.sigma_max ** (1 / config.rho), config.lowest(last) ** (1 / config.rho)
    return torch.cat([(high + ramp * (low - high)) ** config.rho, torch.zeros(1, dtype=torch.float64)])


def training_sigma(count: int, config: NoiseConfig, generator: torch.Generator) -> Tensor:
    """`count` sigmas drawn for training (count,): log-normal (EDM section 5), or the VP-SDE at uniform times.

    Drawn stratified, one per equal slice of the distribution, which lowers the variance of the loss.
    """
    slices = torch.randperm(count, generator=generator, device=generator.device)
    uniform = (slices + torch.rand(count, generator=generator, device=generator.device)) / count
    if config.kind == "vp":
        return vp_sigma(VP_END + uniform * (1 - VP_END), config)
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.9999, 0.9999))
    return (config.log_sigma_mean + config.log_sigma_std * normal).exp()


@dataclass(frozen=True)
class Preconditioning:
    """denoised = c_skip * noised + c_out * network(c_in * noised, c_noise); each coefficient (B,) (EDM eq. 7)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor

    def estimate(self, noised: Tensor, output: Tensor) -> Tensor:
        """c_skip * noised + c_out * output, all (B, ...)."""
        return expand_to(self.c_skip, noised) * noised + expand_to(self.c_out, noised) * output


def precondition(sigma: Tensor, config: NoiseConfig) -> Preconditioning:
    """The coefficients at sigma (B,): `edm` is EDM table 1 "ours", `vp` is its VP column with time itself as c_noise."""
    if config.kind == "vp":
        return Preconditioning(torch.ones_like(sigma), -sigma, 1 / (1 + sigma.square()).sqrt(), vp_time(sigma, config))
    total = sigma.square() + config.sigma_data**2
    return Preconditioning(config.sigma_data**2 / total, sigma * config.sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)


def add_noise(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """noised = clean + sigma * eps, with eps drawn from `generator`."""
    eps = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    return clean + expand_to(sigma, clean) * eps
