"""noise.py: the VP-SDE, the preconditioning, the grids and the sigmas of training against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from duovox.config import NoiseConfig
from duovox.contracts import ConfigError, ShapeError
from duovox.diffusion.noise import VP_END, add_noise, precondition, sigma_grid, training_sigma, vp_beta, vp_sigma, vp_time, vp_times

EDM, VP = NoiseConfig(kind="edm"), NoiseConfig(kind="vp")
SIGMAS = torch.tensor([0.002, 0.01, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_vp_sigma_of_the_usual_beta() -> None:
    """alpha_bar(1) = exp(-(20 - 0.1) / 2 - 0.1) = exp(-10.05) for beta from 0.1 to 20 (Song et al. 2021)."""
    assert vp_sigma(torch.tensor(1.0, dtype=torch.float64), VP).item() == pytest.approx(math.sqrt(math.exp(10.05) - 1), rel=1e-12)


def test_vp_sigma_and_vp_time_are_inverse() -> None:
    times = torch.linspace(VP_END, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(vp_time(vp_sigma(times, VP), VP), times, rtol=1e-10, atol=0)
    torch.testing.assert_close(vp_sigma(vp_time(SIGMAS, VP), VP), SIGMAS, rtol=1e-10, atol=0)


def test_vp_time_holds_in_float32() -> None:
    """The network is fed vp_time of float32 sigmas, also of the smallest."""
    times = vp_times(100)
    torch.testing.assert_close(vp_time(vp_sigma(times, VP).float(), VP), times.float(), rtol=1e-4, atol=0)


def test_beta_is_the_slope_of_log_variance() -> None:
    """1 + sigma^2 = exp(integral of beta), for any beta range."""
    config = NoiseConfig(kind="vp", beta_min=0.3, beta_max=11.0)
    times = torch.linspace(0.01, 1, 20, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(torch.log1p(vp_sigma(times, config).square()).sum(), times)
    torch.testing.assert_close(slope, vp_beta(times, config).detach())


def test_vp_times_fall_evenly_from_one_to_the_end() -> None:
    times = vp_times(7)
    assert times.shape == (8,)
    assert times[0].item() == 1
    assert times[-1].item() == pytest.approx(VP_END)
    torch.testing.assert_close(times.diff(), torch.full((7,), -(1 - VP_END) / 7, dtype=torch.float64))


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_preconditioning_on_gaussian_data(sigma_data: float) -> None:
    """EDM appendix B.6: input and target have variance 1, and c_skip is the one that makes c_out smallest."""
    c = precondition(SIGMAS, NoiseConfig(sigma_data=sigma_data))
    data, noise = sigma_data**2, SIGMAS.square()
    ones = torch.ones_like(SIGMAS)
    torch.testing.assert_close(c.c_in.square() * (data + noise), ones)
    torch.testing.assert_close(((1 - c.c_skip).square() * data + c.c_skip.square() * noise) / c.c_out.square(), ones)
    torch.testing.assert_close((1 - c.c_skip) * data, c.c_skip * noise)
    torch.testing.assert_close(c.c_noise, SIGMAS.log() / 4)


def test_edm_preconditioning_in_numbers() -> None:
    """sigma = sigma_data = 0.5: c_skip 1/2, c_out 0.5 / sqrt 2, c_in sqrt 2, c_noise ln(0.5) / 4."""
    c = precondition(torch.tensor([0.5], dtype=torch.float64), EDM)
    got = [x.item() for x in (c.c_skip, c.c_out, c.c_in, c.c_noise)]
    assert got == pytest.approx([0.5, 0.5 / math.sqrt(2), math.sqrt(2), math.log(0.5) / 4], rel=1e-12)


def test_the_best_edm_denoiser_of_gaussian_data_is_c_skip() -> None:
    """For N(0, sigma_data^2) the exact denoiser is c_skip * noised: the network has nothing left to learn."""
    c = precondition(SIGMAS, EDM)
    torch.testing.assert_close(c.c_skip, 0.25 / (0.25 + SIGMAS.square()))


def test_vp_preconditioning_asks_for_eps() -> None:
    """The target (clean - c_skip noised) / c_out is eps itself; the input has variance 1 for data of variance 1."""
    clean, eps = torch.randn(2, 6, generator=seeded(), dtype=torch.float64)
    c = precondition(SIGMAS, VP)
    noised = clean + SIGMAS * eps
    torch.testing.assert_close((clean - c.c_skip * noised) / c.c_out, eps)
    torch.testing.assert_close(c.c_in.square() * (1 + SIGMAS.square()), torch.ones_like(SIGMAS))
    torch.testing.assert_close(c.c_noise, vp_time(SIGMAS, VP))


@pytest.mark.parametrize("steps", [2, 5, 18])
def test_the_grid_falls_from_sigma_max_to_sigma_min_and_zero(steps: int) -> None:
    grid = sigma_grid(steps, EDM)
    assert grid.shape == (steps + 1,)
    assert grid.dtype == torch.float64
    assert grid[0].item() == pytest.approx(80, rel=1e-12)
    assert grid[-2].item() == pytest.approx(0.01, rel=1e-12)
    assert grid[-1].item() == 0
    assert (grid.diff() < 0).all()


def test_the_grid_is_even_in_sigma_to_the_power_one_over_rho() -> None:
    grid = sigma_grid(9, NoiseConfig(rho=3.0))[:-1]
    assert grid[[0, -1]].tolist() == pytest.approx([80, 0.01], rel=1e-12)
    steps = (grid ** (1 / 3)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(8))


@pytest.mark.parametrize(("last", "lowest"), [(0.0, 0.01), (0.001, 0.01), (0.05, 0.05)])
def test_the_grid_ends_where_it_is_told(last: float, lowest: float) -> None:
    grid = sigma_grid(7, EDM, last)
    assert grid[[0, -2, -1]].tolist() == pytest.approx([80, lowest, 0], rel=1e-12)


def test_a_last_sigma_that_is_not_below_the_first_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sample\.last_sigma 80 must lie below noise\.sigma_max 80"):
        sigma_grid(7, EDM, 80.0)


def test_a_grid_of_one_step() -> None:
    assert sigma_grid(1, EDM).tolist() == pytest.approx([80, 0])


def uniform_of(sigma: Tensor, config: NoiseConfig) -> Tensor:
    """Where each sigma lies in its training distribution, from 0 to 1."""
    if config.kind == "vp":
        return (vp_time(sigma.double(), config) - VP_END) / (1 - VP_END)
    return torch.special.ndtr((sigma.double().log() - config.log_sigma_mean) / config.log_sigma_std)


def test_edm_training_sigmas_are_log_normal() -> None:
    logs = training_sigma(20000, NoiseConfig(log_sigma_mean=-0.7, log_sigma_std=1.1), seeded()).log()
    assert logs.mean().item() == pytest.approx(-0.7, abs=0.01)
    assert logs.std().item() == pytest.approx(1.1, abs=0.01)
    assert (logs < -0.7).float().mean().item() == pytest.approx(0.5, abs=0.001)


def test_vp_training_times_are_uniform() -> None:
    times = vp_time(training_sigma(20000, VP, seeded()).double(), VP)
    assert times.min().item() >= VP_END * 0.999
    assert times.max().item() <= 1 + 1e-5
    assert times.mean().item() == pytest.approx((1 + VP_END) / 2, abs=0.001)
    assert times.std().item() == pytest.approx((1 - VP_END) / math.sqrt(12), abs=0.001)


@pytest.mark.parametrize("config", [EDM, VP], ids=["edm", "vp"])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_training_sigmas_fall_one_into_each_slice(config: NoiseConfig, count: int) -> None:
    position = uniform_of(training_sigma(count, config, seeded(5)), config).sort().values
    assert (position * count + 1e-3).floor().clamp(max=count - 1).tolist() == list(range(count))


@pytest.mark.parametrize("config", [EDM, VP], ids=["edm", "vp"])
def test_each_item_of_a_batch_meets_every_noise_level(config: NoiseConfig) -> None:
    """The slices are shuffled: item 0 would else always be nearly clean."""
    generator = seeded()
    first = torch.stack([uniform_of(training_sigma(8, config, generator), config)[0] for _ in range(400)])
    assert first.mean().item() == pytest.approx(0.5, abs=0.05)
    assert first.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.03)


@pytest.mark.parametrize("config", [EDM, VP], ids=["edm", "vp"])
def test_training_sigmas_depend_on_the_generator_alone(config: NoiseConfig) -> None:
    torch.manual_seed(1)
    one = training_sigma(16, config, seeded(3))
    torch.manual_seed(2)
    assert torch.equal(one, training_sigma(16, config, seeded(3)))
    assert not torch.equal(one, training_sigma(16, config, seeded(4)))
    assert one.isfinite().all()


def test_noise_has_each_items_own_sigma() -> None:
    clean = torch.randn(3, 1, 80, 64, generator=seeded(1))
    sigma = torch.tensor([0.1, 1.0, 40.0])
    added = add_noise(clean, sigma, seeded()) - clean
    torch.testing.assert_close(added.std(dim=(1, 2, 3)), sigma, rtol=0.03, atol=0)
    assert (added.mean(dim=(1, 2, 3)).abs() < 4 * sigma / math.sqrt(80 * 64)).all()
    assert torch.equal(add_noise(clean, sigma, seeded()), clean + added)
    assert not torch.equal(add_noise(clean, sigma, seeded(2)), clean + added)


def test_a_sigma_per_item_is_wanted() -> None:
    """A sigma of another length must not broadcast over the mel."""
    for sigma in (torch.ones(2), torch.ones(1), torch.ones(3, 1), torch.tensor(1.0)):
        with pytest.raises(ShapeError, match="one value per item of a batch of 3"):
            add_noise(torch.zeros(3, 1, 4, 2), sigma, seeded())
