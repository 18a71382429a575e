"""sampler.py: on Gaussian data the denoiser, the path and the end of sampling are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from duovox.config import NoiseConfig
from duovox.contracts import Denoiser
from duovox.diffusion.noise import VP_END, sigma_grid, vp_sigma, vp_times
from duovox.diffusion.sampler import dpmpp_2m, euler, euler_maruyama, heun

MEAN, STD = 0.7, 0.5
EDM, VP = NoiseConfig(kind="edm"), NoiseConfig(kind="vp")

Solver = Callable[[Denoiser, Tensor, Tensor], Tensor]


class Gaussian:
    """The exact denoiser of clean ~ N(MEAN, STD^2) in every pixel; counts its calls and keeps the levels it was asked for."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (noised.shape[0],)
        assert sigma.dtype == noised.dtype
        self.levels.append(sigma[0].item())
        variance = sigma.square().reshape(-1, 1, 1, 1)
        return (STD**2 * noised + variance * MEAN) / (STD**2 + variance)


def exact(noised: Tensor, start: float, end: float) -> Tensor:
    """The probability-flow ODE keeps (noised - MEAN) / sqrt(STD^2 + sigma^2) as it is."""
    return MEAN + (noised - MEAN) * math.sqrt((STD**2 + end**2) / (STD**2 + start**2))


def starts(sigma: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return MEAN + math.sqrt(STD**2 + sigma**2) * torch.randn(3, 1, 4, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


def error(solver: Solver, steps: int) -> float:
    """Largest error at sigma 0.05 after `steps` steps from sigma 10, evenly spaced in log sigma."""
    sigmas = torch.logspace(1, math.log10(0.05), steps + 1, dtype=torch.float64)
    begin = starts(10.0)
    return (solver(Gaussian(), begin, sigmas) - exact(begin, 10.0, 0.05)).abs().max().item()


@pytest.mark.parametrize(("solver", "factor"), [(euler, 2), (heun, 4), (dpmpp_2m, 4)])
def test_halving_the_step_cuts_the_error_as_the_order_says(solver: Solver, factor: float) -> None:
    coarse, middle, fine = (error(solver, steps) for steps in (50, 100, 200))
    assert coarse / middle == pytest.approx(factor, rel=0.1)
    assert middle / fine == pytest.approx(factor, rel=0.05)
    assert fine < {2: 0.02, 4: 2e-4}[int(factor)]


@pytest.mark.parametrize("solver", [euler, heun, dpmpp_2m])
def test_the_end_is_clean_data(solver: Solver) -> None:
    """Over the real grid, down to 0, every start lands where the exact path does: items keep their own starts."""
    begin = starts(80.0)
    end = solver(Gaussian(), begin, sigma_grid(256, EDM))
    torch.testing.assert_close(end, exact(begin, 80.0, 0.0), rtol=0, atol=0.02 if solver is euler else 1e-4)


@pytest.mark.parametrize("solver", [heun, dpmpp_2m])
def test_the_default_number_of_steps_is_enough_for_a_gaussian(solver: Solver) -> None:
    begin = starts(80.0)
    torch.testing.assert_close(solver(Gaussian(), begin, sigma_grid(14, EDM)), exact(begin, 80.0, 0.0), rtol=0, atol=0.15)


@pytest.mark.parametrize(("solver", "nfe"), [(euler, 6), (heun, 11), (dpmpp_2m, 6)])
def test_network_evaluations(solver: Solver, nfe: int) -> None:
    """Heun corrects all steps but the last, where sigma is 0; nobody ever asks for sigma 0."""
    denoiser, grid = Gaussian(), sigma_grid(6, EDM)
    solver(denoiser, starts(80.0), grid)
    assert len(denoiser.levels) == nfe
    assert set(denoiser.levels) == set(grid[:-1].tolist())


@pytest.mark.parametrize("solver", [euler, heun, dpmpp_2m])
def test_one_step_is_one_denoising(solver: Solver) -> None:
    begin = starts(80.0)
    end = solver(Gaussian(), begin, sigma_grid(1, EDM))
    torch.testing.assert_close(end, Gaussian()(begin, torch.full((3,), 80.0, dtype=torch.float64)))


@pytest.mark.parametrize("solver", [euler, heun, dpmpp_2m])
def test_sampling_is_deterministic_keeps_its_start_and_its_type(solver: Solver) -> None:
    begin = starts(80.0, torch.float32)
    kept = begin.clone()
    first = solver(Gaussian(), begin, sigma_grid(5, EDM))
    torch.manual_seed(1)
    assert torch.equal(first, solver(Gaussian(), begin, sigma_grid(5, EDM)))
    assert torch.equal(begin, kept)
    assert first.dtype == torch.float32
    torch.testing.assert_close(solver(Gaussian(), begin[1:2], sigma_grid(5, EDM)), first[1:2])


def end_of_the_sde(steps: int, last: float = VP_END) -> tuple[float, float]:
    """Exact mean and variance after `steps` Euler-Maruyama steps down to the time `last`, without drawing anything.

    With a Gaussian's denoiser every step is affine, so the end is m + a * start + sum of b_i * noise_i. Item 0 of the batch
    starts at the mean and meets no noise: it ends at m. Item 1 starts one standard deviation off: its difference is a.
    Item 2 + i meets one unit of noise, at step i: its difference is b_i. The variance is a^2 + sum of b_i^2.
    """
    first = vp_sigma(torch.tensor(1.0, dtype=torch.float64), VP).item()
    begin = torch.full((1 + steps, 1, 1, 1), MEAN, dtype=torch.float64)
    begin[1] += math.sqrt(STD**2 + first**2)
    draws = iter(torch.eye(steps - 1, 1 + steps, dtype=torch.float64).roll(2, dims=1))
    times = torch.linspace(1, last, steps + 1, dtype=torch.float64)
    end = euler_maruyama(Gaussian(), begin, times, VP, lambda: next(draws).reshape(-1, 1, 1, 1)).flatten()
    assert next(draws, None) is None  # one draw a step, none at the last
    return end[0].item(), (end[1:] - end[0]).square().sum().item()


@pytest.mark.parametrize("last", [VP_END, 0.3])
def test_the_reverse_sde_keeps_mean_and_variance(last: float) -> None:
    """At the end the variance is STD^2 + sigma(last)^2, up to the step's error, which falls as the step does."""
    variance = STD**2 + vp_sigma(torch.tensor(last, dtype=torch.float64), VP).item() ** 2
    errors = []
    for steps in (250, 500, 1000):
        mean, got = end_of_the_sde(steps, last)
        assert mean == pytest.approx(MEAN, abs=4 / steps)
        errors.append(abs(got - variance))
    assert errors[-1] < 0.01 * variance
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_the_reverse_sde_on_many_samples() -> None:
    """20,000 drawn ends: four standard errors for the mean and the variance, and a percent for the step."""
    count, steps = 20000, 300
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(count // 20, 1, 5, 4, generator=generator, dtype=torch.float64)  # noqa: E731
    denoiser = Gaussian()
    first = vp_sigma(torch.tensor(1.0, dtype=torch.float64), VP).item()
    end = euler_maruyama(denoiser, MEAN + math.sqrt(STD**2 + first**2) * draw(), vp_times(steps), VP, draw)
    variance = STD**2 + vp_sigma(torch.tensor(VP_END), VP).item() ** 2
    assert len(denoiser.levels) == steps
    assert end.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(count) + 0.005)
    assert end.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / count) + 0.02)


def test_the_reverse_sde_depends_on_its_draws_alone() -> None:
    def sample(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return euler_maruyama(
            Gaussian(), starts(150.0, torch.float32), vp_times(10), VP, lambda: torch.randn(3, 1, 4, 2, generator=generator)
        )

    first = sample(0)
    torch.manual_seed(1)
    assert torch.equal(first, sample(0))
    assert not torch.equal(first, sample(1))
    assert first.dtype == torch.float32
