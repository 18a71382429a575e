"""Exponential moving average of weights, on torch's own `AveragedModel`; the average is what is validated and shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A moving average of `module`: decay rises as (1 + n) / (10 + n) to `decay`, so that early averages are not stale.

    Call `.update_parameters(module)` after each step; `.module` is the averaged network.
    """

    @torch.no_grad()
    def average(means: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(means), list(values), 1 - now)

    return AveragedModel(module, multi_avg_fn=average, use_buffers=False)
