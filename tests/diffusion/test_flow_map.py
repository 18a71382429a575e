"""flow_map.py: on Gaussian data the flow leads where it is known to lead, in one jump or in many; a path comes back from what was said."""

from __future__ import annotations

import torch
from test_sampler import EDM, STD, Gaussian, exact, starts
from torch import Tensor

from duovox.diffusion.flow_map import estimate_between, follow, jump, path, solve
from duovox.diffusion.noise import sigma_grid
from duovox.diffusion.sampler import dpmpp_2m, euler


def flow_map(noised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """The exact one of `Gaussian`'s data."""
    return estimate_between(noised, exact(noised, sigma[0].item(), to[0].item()), sigma, to)


def test_a_jump_leads_to_what_its_estimate_was_made_of() -> None:
    here, there = starts(10.0), starts(1.0)
    sigma, to = torch.full((3,), 10.0, dtype=torch.float64), torch.tensor([1.0, 0.0, 9.9], dtype=torch.float64)
    assert torch.allclose(jump(here, estimate_between(here, there, sigma, to), sigma, to), there, atol=1e-12)


def test_any_grid_leads_to_the_same_end() -> None:
    begin = starts(80.0)
    for sigmas in ([80.0, 0.0], [80.0, 3.0, 0.0], [80.0, 20.0, 1.0, 0.1, 0.0]):
        assert torch.allclose(follow(flow_map, begin, torch.tensor(sigmas, dtype=torch.float64)), exact(begin, 80.0, 0.0), atol=1e-9)


def test_the_estimate_of_a_short_jump_is_the_denoised_data() -> None:
    begin, sigma = starts(2.0), torch.full((3,), 2.0, dtype=torch.float64)
    assert torch.allclose(flow_map(begin, sigma, sigma * (1 - 1e-6)), Gaussian()(begin, sigma), atol=1e-5)


def test_a_denoiser_as_a_flow_map_is_eulers_method() -> None:
    begin, sigmas, denoiser = starts(80.0), sigma_grid(6, EDM), Gaussian()
    assert torch.allclose(follow(lambda noised, sigma, to: denoiser(noised, sigma), begin, sigmas), euler(Gaussian(), begin, sigmas))


def test_a_path_comes_back_from_what_was_said() -> None:
    """The nodes are those that the solver went through: the first is the noise, the last its result, each nearly on the exact path."""
    sigmas, begin = sigma_grid(48, EDM), starts(EDM.sigma_max)
    said = solve(Gaussian(), begin, sigmas)
    nodes = path(said, begin, sigmas)
    assert said.shape == (3, 48, 1, 4, 2) and nodes.shape == (3, 49, 1, 4, 2)
    assert torch.equal(nodes[:, 0], begin) and torch.equal(nodes[:, -1], dpmpp_2m(Gaussian(), begin, sigmas))
    for number, sigma in enumerate(sigmas.tolist()):
        scale = (STD**2 + sigma**2) ** 0.5
        assert (nodes[:, number] - exact(begin, EDM.sigma_max, sigma)).abs().max() < 0.03 * scale
