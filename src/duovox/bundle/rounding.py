"""Weights in eight bits: takes tensors by name, gives whole numbers with a step for each row of a matrix, and back.

A row is what makes one output: `weight[i]`. Its numbers are -127 to 127 times its step, which is a bfloat16, so that rounding what was
rounded changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STEP = ".step"
"""What follows a matrix's name in that of its steps (rows,) bfloat16."""

MOST = 127


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix or kernel (rows, ...) as int8 with its steps beside it; all else, a hundredth of the weights, as it is."""
    packed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim < 2 or not value.is_floating_point():
            packed[name] = value
            continue
        rows = value.float().flatten(1)
        steps = (rows.abs().amax(1) / MOST).bfloat16()
        whole = rows / torch.where(steps > 0, steps, 1).float()[:, None]
        packed |= {name: whole.round().clamp(-MOST, MOST).to(torch.int8).view(value.shape), name + STEP: steps}
    return packed


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `rounded` packed as float32, and tensors that it did not pack as they are. Steps of no matrix, or not one a row, stay."""
    whole = {name: value for name, value in tensors.items() if _steps(name, tensors) is not None}
    used = {name + STEP for name in whole}
    return {name: _restored(value, _steps(name, tensors)) for name, value in tensors.items() if name not in used}


def _steps(name: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
    value, steps = tensors[name], tensors.get(name + STEP)
    fits = steps is not None and value.dtype == torch.int8 and value.ndim > 1 and steps.shape == value.shape[:1]
    return steps if fits else None


def _restored(value: Tensor, steps: Tensor | None) -> Tensor:
    return value if steps is None else value.float() * steps.float().view(-1, *[1] * (value.ndim - 1))
