"""Samplers: noise in, mel out. Pure functions that know a `Denoiser` and nothing else.

Each takes noised (B, 1, M, T) at the first noise level of its grid and returns mels (B, 1, M, T). `nfe` below counts
network evaluations. "EDM" is Karras et al. 2022, arXiv 2206.00364.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from duovox.config import NoiseConfig
from duovox.contracts import Denoiser
from duovox.diffusion.noise import vp_beta, vp_sigma


def _levels(sigma: Tensor, like: Tensor) -> Tensor:
    """One scalar noise level as a (B,) tensor of the batch's type and device."""
    return sigma.to(device=like.device, dtype=like.dtype).expand(like.shape[0])


def euler(denoiser: Denoiser, noised: Tensor, sigmas: Tensor) -> Tensor:
    """First-order probability-flow ODE over `sigmas` (n + 1,) falling to 0; nfe n. The reference the others are held to."""
    for here, there in itertools.pairwise(sigmas):
        slope = (noised - denoiser(noised, _levels(here, noised))) / here.item()
        noised = noised + (there - here).item() * slope
    return noised


def heun(denoiser: Denoiser, noised: Tensor, sigmas: Tensor) -> Tensor:
    """Second-order probability-flow ODE over `sigmas` (n + 1,) falling to 0; nfe 2 n - 1 (EDM algorithm 1)."""
    for here, there in itertools.pairwise(sigmas):
        slope = (noised - denoiser(noised, _levels(here, noised))) / here.item()
        moved = noised + (there - here).item() * slope
        if there > 0:
            correction = (moved - denoiser(moved, _levels(there, noised))) / there.item()
            moved = noised + (there - here).item() * (slope + correction) / 2
        noised = moved
    return noised


def dpmpp_2m(denoiser: Denoiser, noised: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M), data prediction, over `sigmas` (n + 1,) falling to 0; nfe n (Lu et al. 2022, arXiv 2211.01095).

    In lambda = -log sigma the last denoised mels are extrapolated linearly to the middle of the step.
    """
    previous: Tensor | None = None
    previous_step = 0.0
    for here, there in itertools.pairwise(sigmas):
        denoised = denoiser(noised, _levels(here, noised))
        if there == 0:
            return denoised
        step = torch.log(here / there).item()
        middle = denoised
        if previous is not None:
            middle = denoised + (denoised - previous) * (step / (2 * previous_step))
        ratio = (there / here).item()
        noised = ratio * noised + (1 - ratio) * middle
        previous, previous_step = denoised, step
    return noised


def euler_maruyama(denoiser: Denoiser, noised: Tensor, times: Tensor, config: NoiseConfig, draw: Callable[[], Tensor]) -> Tensor:
    """Reverse-time VP-SDE by Euler-Maruyama over `times` (n + 1,) falling to its end; nfe n (Song et al. 2021, eq. 6).

    Steps in the variance-preserving coordinate x = noised / sqrt(1 + sigma^2); `draw()` gives fresh standard normal
    noise (B, 1, M, T). The last step adds no noise.
    """
    sigmas = vp_sigma(times, config)
    scales = 1 / (1 + sigmas.square()).sqrt()
    x = noised * scales[0].item()
    for index in range(len(times) - 1):
        sigma, scale, beta = sigmas[index].item(), scales[index].item(), vp_beta(times[index], config).item()
        span = (times[index] - times[index + 1]).item()
        unscaled = x / scale
        score = (denoiser(unscaled, _levels(sigmas[index], x)) - unscaled) / (sigma**2 * scale)
        x = x + (beta * x / 2 + beta * score) * span
        if index < len(times) - 2:
            x = x + (beta * span) ** 0.5 * draw()
    return x / scales[-1].item()
