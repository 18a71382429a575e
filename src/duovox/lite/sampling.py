"""From seeds to mels in numpy: the samplers of `diffusion.sampler`, the jumps of `diffusion.flow_map`, the schedule of
`diffusion.guidance`, step for step. No torch.

Takes a denoiser (noised (B, ...), sigma) -> denoised, seeds and `SampleConfig`, or a flow map (noised, sigma, to) -> estimate and the
levels of its jumps; gives the same data as PyTorch, but for rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from duovox.config import NoiseConfig, SampleConfig
from duovox.lite.random import TorchNormal

Array = NDArray[np.float32]
Denoise = Callable[[Array, float], Array]
Jump = Callable[[Array, float, float], Array]
VP_END = 1e-3
"""Smallest time of the VP-SDE, as in `diffusion.noise`."""


def sample(denoise: Denoise, seeds: Sequence[int], shape: tuple[int, ...], settings: SampleConfig, noise: NoiseConfig) -> Array:
    """One item of `shape` for each seed: (B, *shape), float32."""
    sources = [TorchNormal(seed) for seed in seeds]

    def draw() -> Array:
        return np.stack([source(shape) for source in sources])

    if settings.sampler == "euler_maruyama":
        times = np.linspace(1, VP_END, settings.steps + 1)
        return euler_maruyama(denoise, draw() * float(vp_sigma(times[:1], noise)[0]), times, noise, draw)
    sigmas = sigma_grid(settings.steps, noise, settings.last_sigma)
    solve = heun if settings.sampler == "heun" else dpmpp_2m
    return solve(denoise, draw() * sigmas[0], sigmas)


def sample_jumps(jump: Jump, seeds: Sequence[int], shape: tuple[int, ...], sigmas: Sequence[float]) -> Array:
    """As `sample`, by the jumps of a flow map over `sigmas`, which fall to 0."""
    noised = np.stack([TorchNormal(seed)(shape) for seed in seeds]) * np.float32(sigmas[0])
    for here, there in itertools.pairwise(sigmas):
        ratio = np.float32(there / here)
        noised = ratio * noised + (1 - ratio) * jump(noised, here, there)
    return noised


def sigma_grid(steps: int, config: NoiseConfig, last: float = 0.0) -> list[float]:
    """`steps` + 1 sigmas from sigma_max down to sigma_min, or `last` where that is higher, and then 0 (EDM eq. 5)."""
    high, low = config.sigma_max ** (1 / config.rho), config.lowest(last) ** (1 / config.rho)
    return [float(root**config.rho) for root in high + np.linspace(0, 1, steps) * (low - high)] + [0.0]


def heun(denoise: Denoise, noised: Array, sigmas: Sequence[float]) -> Array:
    """Second-order probability-flow ODE over `sigmas` falling to 0 (EDM algorithm 1)."""
    for here, there in itertools.pairwise(sigmas):
        slope = (noised - denoise(noised, here)) / here
        moved = noised + (there - here) * slope
        if there > 0:
            correction = (moved - denoise(moved, there)) / there
            moved = noised + (there - here) * (slope + correction) / 2
        noised = moved
    return noised


def dpmpp_2m(denoise: Denoise, noised: Array, sigmas: Sequence[float]) -> Array:
    """DPM-Solver++(2M), data prediction, over `sigmas` falling to 0 (Lu et al. 2022, arXiv 2211.01095)."""
    previous, previous_step = None, 0.0
    for here, there in itertools.pairwise(sigmas):
        denoised = denoise(noised, here)
        if there == 0:
            return denoised
        step = math.log(here / there)
        middle = denoised if previous is None else denoised + (denoised - previous) * (step / (2 * previous_step))
        noised = (there / here) * noised + (1 - there / here) * middle
        previous, previous_step = denoised, step
    return noised


def euler_maruyama(denoise: Denoise, noised: Array, times: NDArray[np.float64], config: NoiseConfig, draw: Callable[[], Array]) -> Array:
    """Reverse-time VP-SDE by Euler-Maruyama over `times` falling to its end (Song et al. 2021, eq. 6)."""
    sigmas = [float(sigma) for sigma in vp_sigma(times, config)]
    scales = [1 / math.sqrt(1 + sigma**2) for sigma in sigmas]
    x = noised * scales[0]
    for index in range(len(times) - 1):
        sigma, scale, span = sigmas[index], scales[index], float(times[index] - times[index + 1])
        beta = config.beta_min + (config.beta_max - config.beta_min) * float(times[index])
        unscaled = x / scale
        score = (denoise(unscaled, sigma) - unscaled) / (sigma**2 * scale)
        x = x + (beta * x / 2 + beta * score) * span
        if index < len(times) - 2:
            x = x + (beta * span) ** 0.5 * draw()
    return x / scales[-1]


def vp_sigma(time: NDArray[np.float64], config: NoiseConfig) -> NDArray[np.float64]:
    """sigma of the VP-SDE with linear beta at `time` in (0, 1] (EDM table 1)."""
    return np.sqrt(np.expm1(0.5 * (config.beta_max - config.beta_min) * time**2 + config.beta_min * time))


def guidance_scale(settings: SampleConfig, sigma: float, sigma_data: float) -> float:
    """How strongly to guide at sigma; see `diffusion.guidance.GuidanceSchedule`."""
    if not settings.guidance_low <= sigma <= settings.guidance_high:
        return 0.0
    noise = sigma**2 / (sigma**2 + sigma_data**2)
    return settings.gamma * {"constant": 1.0, "early": noise, "late": 1 - noise}[settings.schedule]
