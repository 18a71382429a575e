"""ideal.py: exact on points that are known, in one, two and more axes; samplers end on the points."""

from __future__ import annotations

import math

import pytest
import torch

from duovox.config import NoiseConfig, SampleConfig
from duovox.diffusion.ideal import IdealDenoiser
from duovox.diffusion.sampling import sample

PAIR = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def test_between_two_points_it_is_a_hyperbolic_tangent() -> None:
    """Data -1 and 1: E[clean | x] = tanh(x / sigma^2)."""
    x, sigma = torch.tensor([[-2.0], [0.1], [0.5]], dtype=torch.float64), torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(IdealDenoiser(PAIR)(x, sigma), torch.tanh(x / sigma[:, None].square()))


def test_weights_shift_it_by_their_log_odds() -> None:
    """tanh(x / sigma^2 + log(w1 / w0) / 2)."""
    weights, x, sigma = torch.tensor([0.2, 0.8], dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64), torch.ones(1).double()
    torch.testing.assert_close(IdealDenoiser(PAIR, weights)(x, sigma), torch.tanh(x + math.log(4.0) / 2))


def test_the_score_is_the_slope_of_the_log_density() -> None:
    data = torch.randn(5, 1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(4, 1, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    sigma = torch.tensor([0.3, 0.7, 1.0, 4.0], dtype=torch.float64)
    distance = (x[:, None] - data).square().flatten(2).sum(dim=2)
    density = (-distance / (2 * sigma[:, None].square())).logsumexp(dim=1).sum()
    (slope,) = torch.autograd.grad(density, x)
    torch.testing.assert_close(IdealDenoiser(data).score(x.detach(), sigma), slope)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize("shape", [(2,), (1, 2, 3)])
def test_every_sampler_ends_on_the_points_in_their_shares(sampler: str, shape: tuple[int, ...]) -> None:
    """Data of one axis or of three: 200 seeds, each on one of four points, each point about as often as its weight says."""
    points = 2 * torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    steps = 200 if sampler == "euler_maruyama" else 30
    settings = SampleConfig(sampler=sampler, steps=steps)  # type: ignore[arg-type]
    ends = sample(IdealDenoiser(points, weights), range(200), shape, settings, NoiseConfig(sigma_min=0.002))
    distance = torch.cdist(ends.flatten(1), points.flatten(1))
    assert distance.amin(dim=1).max() < 0.1
    share = distance.argmin(dim=1).bincount(minlength=4) / 200
    torch.testing.assert_close(share, weights, rtol=0, atol=4 * 0.5 / math.sqrt(200))
