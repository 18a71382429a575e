"""Flow maps: jumps along the probability flow from one noise level to a lower one, however far.

Takes a `FlowMap` (a student) or a sampler's path (its teacher's); gives data, or what a student is to say. A jump is an Euler step
whose estimate G leads exactly to where the flow leads: x_s = (s / sigma) x + (1 - s / sigma) G (Boffi et al. 2025, arXiv 2505.18825,
in the coordinate noised = clean + sigma * eps). At s = sigma, G is the denoised data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from duovox.contracts import Denoiser, FlowMap, expand_to
from duovox.diffusion.sampler import dpmpp_2m


def jump(noised: Tensor, estimate: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """Data (B, ...) at noise level `to` (B,), from those at `sigma` (B,) and the estimate G between the two."""
    ratio = expand_to(to / sigma, noised)
    return ratio * noised + (1 - ratio) * estimate


def estimate_between(noised: Tensor, reached: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """The estimate G (B, ...) of the jump that leads from `noised` at `sigma` to `reached` at `to` < sigma: the inverse of `jump`."""
    ratio = expand_to(to / sigma, noised)
    return (reached - ratio * noised) / (1 - ratio)


def follow(flow_map: FlowMap, noised: Tensor, sigmas: Tensor) -> Tensor:
    """Jump from each of `sigmas` (n + 1,) to the next, down to 0; n evaluations."""
    for here, there in itertools.pairwise(sigmas.to(noised)):
        sigma, to = here.expand(len(noised)), there.expand(len(noised))
        noised = jump(noised, flow_map(noised, sigma, to), sigma, to)
    return noised


@dataclass
class Recording:
    """A denoiser that keeps what it was asked, and what it said."""

    denoiser: Denoiser
    asked: list[Tensor] = field(default_factory=list)
    said: list[Tensor] = field(default_factory=list)

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.denoiser(noised, sigma)
        self.asked.append(noised)
        self.said.append(denoised)
        return denoised


def solve(denoiser: Denoiser, noised: Tensor, sigmas: Tensor) -> Tensor:
    """What the denoiser says at each step of DPM-Solver++(2M) over `sigmas` (n + 1,): (B, n, ...). The last is where the path ends."""
    recorded = Recording(denoiser)
    dpmpp_2m(recorded, noised, sigmas)
    return torch.stack(recorded.said, dim=1)


def path(said: Tensor, noised: Tensor, sigmas: Tensor) -> Tensor:
    """The nodes (B, n + 1, ...) of a solution, from its noise (B, ...) and what `solve` gave (B, n, ...): at sigmas[0] to sigmas[n] = 0."""
    recorded = Recording(_replay(said.unbind(dim=1)))
    end = dpmpp_2m(recorded, noised, sigmas)
    return torch.stack([*recorded.asked, end], dim=1)


def _replay(said: Sequence[Tensor]) -> Denoiser:
    answers = iter(said)

    def denoiser(noised: Tensor, sigma: Tensor) -> Tensor:
        return next(answers)

    return denoiser
