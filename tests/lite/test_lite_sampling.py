"""The samplers in numpy against those of torch, step for step, on a denoiser that is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duovox.config import NoiseConfig, SampleConfig
from duovox.diffusion import sampling
from duovox.diffusion.guidance import GuidanceSchedule
from duovox.diffusion.ideal import IdealDenoiser
from duovox.lite.sampling import Array, guidance_scale, sample, sample_jumps, sigma_grid

SHAPE = (1, 4, 8)


@pytest.mark.parametrize("kind", ["edm", "vp"])
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize(("steps", "last"), [(1, 0.0), (2, 0.0), (9, 0.0), (9, 0.2)])
def test_the_same_data(kind: str, sampler: str, steps: int, last: float) -> None:
    points = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    ideal, noise = IdealDenoiser(points), NoiseConfig(kind=kind)  # type: ignore[arg-type]
    settings = SampleConfig(sampler=sampler, steps=steps, last_sigma=last)  # type: ignore[arg-type]

    def denoise(noised: Array, sigma: float) -> Array:
        return ideal(torch.from_numpy(noised), torch.full((len(noised),), sigma)).numpy()

    seeds = [0, 5, 2**40]
    expected = sampling.sample(ideal, seeds, SHAPE, settings, noise).numpy()
    np.testing.assert_allclose(sample(denoise, seeds, SHAPE, settings, noise), expected, rtol=0, atol=1e-3)


def test_the_same_jumps() -> None:
    """Towards the points of an exact denoiser, by a flow map that says something else for each length of a jump."""
    ideal = IdealDenoiser(torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0)))

    def flow_map(noised: torch.Tensor, sigma: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return ideal(noised, sigma) * (1 + (to / sigma).reshape(-1, 1, 1, 1))

    def jump(noised: Array, sigma: float, to: float) -> Array:
        assert noised.dtype == np.float32
        return flow_map(torch.from_numpy(noised), *(torch.full((len(noised),), value) for value in (sigma, to))).numpy()

    for levels in ([80.0, 0.0], [80.0, 2.0, 0.2, 0.0]):
        expected = sampling.sample_jumps(flow_map, [0, 2**40], SHAPE, torch.tensor(levels, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(sample_jumps(jump, [0, 2**40], SHAPE, levels), expected, rtol=0, atol=1e-3)


def test_the_noise_levels() -> None:
    for steps, last in ((1, 0.0), (4, 0.05), (14, 0.0), (14, 0.2)):
        assert sigma_grid(steps, NoiseConfig(), last) == pytest.approx(sampling.sigma_grid(steps, NoiseConfig(), last).tolist(), rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "early", "late"])
def test_the_strength_of_guidance(schedule: str) -> None:
    settings = SampleConfig(gamma=2.0, guidance_low=0.1, guidance_high=5.0, schedule=schedule)  # type: ignore[arg-type]
    theirs = GuidanceSchedule(2.0, 0.1, 5.0, schedule, 0.5)  # type: ignore[arg-type]
    for sigma in (0.01, 0.1, 0.7, 5.0, 6.0):
        assert guidance_scale(settings, sigma, 0.5) == pytest.approx(theirs.at(torch.tensor([sigma], dtype=torch.float64)).item())
