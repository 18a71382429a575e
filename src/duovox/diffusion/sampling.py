"""From seeds to data: takes a denoiser, a seed for each item and `SampleConfig`; gives data, the same for a seed in any batch.

Knows noise levels and samplers, nothing of mels: the shape of an item is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.config import NoiseConfig, SampleConfig
from duovox.contracts import Denoiser, FlowMap
from duovox.diffusion.flow_map import follow
from duovox.diffusion.noise import sigma_grid, vp_sigma, vp_times
from duovox.diffusion.sampler import dpmpp_2m, euler_maruyama, heun

Callback = Callable[[float, Tensor], None]
"""Called with sigma and the denoised data (B, ...) after every evaluation; what it raises ends the sampling."""


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    settings: SampleConfig,
    noise: NoiseConfig,
    callback: Callback | None = None,
    device: torch.device | str = "cpu",
    starts: Sequence[int] = (),
) -> Tensor:
    """One item of `shape` for each seed: (B, *shape), float32. The guidance settings are the denoiser's affair; `starts` as in
    `SeededNoise`."""
    draw = SeededNoise(seeds, shape, torch.device(device), starts)
    if callback is not None:
        denoiser = WithCallback(denoiser, callback)
    if settings.sampler == "euler_maruyama":
        times = vp_times(settings.steps)
        return euler_maruyama(denoiser, draw() * vp_sigma(times[0], noise).item(), times, noise, draw)
    sigmas = sigma_grid(settings.steps, noise, settings.last_sigma)
    solve = heun if settings.sampler == "heun" else dpmpp_2m
    return solve(denoiser, draw() * sigmas[0].item(), sigmas)


@torch.no_grad()
def sample_jumps(
    flow_map: FlowMap,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    sigmas: Tensor,
    callback: Callback | None = None,
    device: torch.device | str = "cpu",
    starts: Sequence[int] = (),
) -> Tensor:
    """As `sample`, by the jumps of a flow map over `sigmas` (n + 1,), which fall to 0."""

    def told(noised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        estimate = flow_map(noised, sigma, to)
        if callback is not None:
            callback(sigma[0].item(), estimate)
        return estimate

    return follow(told, SeededNoise(seeds, shape, torch.device(device), starts)() * sigmas[0].item(), sigmas)


class SeededNoise:
    """Standard normal noise with one generator per item: `draw()` -> (B, *shape). Item i depends on its own seed alone, and begins with
    noise number `starts[i]` of that seed, number 0 where there are none."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device, starts: Sequence[int] = ()) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = shape, device
        for generator, start in zip(self.generators, starts, strict=bool(starts)):
            for _ in range(start):
                torch.randn(shape, generator=generator)

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self.generators]).to(self.device)


@dataclass(frozen=True)
class WithCallback:
    """A denoiser that tells `callback` of every evaluation."""

    denoiser: Denoiser
    callback: Callback

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.denoiser(noised, sigma)
        self.callback(sigma[0].item(), denoised)
        return denoised
