"""The ideal denoiser: exact where the data are a known, finite set of points. The oracle for samplers, ours and users' own.

Takes clean data; gives a `Denoiser` to the samplers. Over such data the score is known in closed form (Karras et al. 2022, arXiv
2206.00364, appendix B.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from duovox.contracts import expand_to


@dataclass(frozen=True)
class IdealDenoiser:
    """E[clean | noised] where clean is one of the points `data` (N, ...), each as probable as its share of `weights` (N,) (None: all
    alike). Works on data of any shape; differentiable, so that guides may be tried on it (see `guidance.Guidable`)."""

    data: Tensor
    weights: Tensor | None = None

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, ...), sigma (B,) -> denoised (B, ...)."""
        points = self.data.flatten(1)
        distance = (noised.flatten(1)[:, None] - points).square().sum(dim=2)  # not torch.cdist: its square root has no gradient at 0
        closeness = -distance / (2 * sigma.square()[:, None])
        if self.weights is not None:
            closeness = closeness + self.weights.log()
        return (closeness.softmax(dim=1) @ points).reshape(noised.shape)

    def score(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """d log p(noised) / d noised = (denoised - noised) / sigma^2, of the shape of `noised`."""
        return (self(noised, sigma) - noised) / expand_to(sigma.square(), noised)
