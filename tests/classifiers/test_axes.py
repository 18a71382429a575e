"""axes.py: batch, time and frequency are told apart by what grows and what moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duovox.classifiers.axes import ITEMS, NO_EXTENT, find_axes, folded_into_batch, why_no_axes


def moved(shape: tuple[int, ...], axis: int, by: float) -> tuple[Tensor, Tensor]:
    """Changes on the first and the last disturbance whose centres along an axis are `by` of its length apart."""
    ramp = (torch.linspace(-1, 1, shape[axis]) * by).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    slope = 1 / torch.linspace(-1, 1, shape[axis]).square().mean()
    return (1 - slope * ramp).expand(shape), (1 + slope * ramp).expand(shape)


@pytest.mark.parametrize(("by", "axes"), [(0.0, "BCMT"), (0.1, "BCMT"), (0.2, "BCTM"), (0.3, "BCTM")])
def test_the_usual_order_is_preferred_but_a_little(by: float, axes: str) -> None:
    """Time moves along axis 2 and frequency along axis 3: both together must outweigh 0.3."""
    shape = (ITEMS, 5, 8, 6)
    score, found = find_axes(torch.zeros(shape), torch.zeros(ITEMS - 1, 5, 8, 6), moved(shape, 3, by), moved(shape, 2, by))
    assert found == axes
    assert score == pytest.approx(2 * by if axes == "BCTM" else 0.3, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "fewer"),
    [
        ((ITEMS, 4), (ITEMS - 1, 4)),
        ((1, 4, 5), (1, 4, 5)),
        ((ITEMS, 4, ITEMS), (ITEMS - 1, 4, ITEMS - 1)),
        ((2 * ITEMS, 4, 5), (2 * ITEMS - 2, 4, 5)),
        ((ITEMS, 2, 2, 2, 2), (ITEMS - 1, 2, 2, 2, 2)),
        ((ITEMS, 4, 5), (ITEMS - 1, 4)),
    ],
)
def test_without_a_batch_or_time_there_are_no_axes(shape: tuple[int, ...], fewer: tuple[int, ...]) -> None:
    still = (torch.zeros(shape), torch.zeros(shape))
    assert find_axes(torch.zeros(shape), torch.zeros(fewer), still, still) == (0.0, "")


@pytest.mark.parametrize(
    ("shape", "fewer", "folded", "why"),
    [
        ((ITEMS, 4, 5), (ITEMS - 1, 4, 5), 1, ""),
        ((4, ITEMS, 5, 6), (4, ITEMS - 1, 5, 6), 1, ""),
        ((ITEMS, 4), (ITEMS - 1, 4), 1, NO_EXTENT),
        ((16 * ITEMS, 4), (16 * (ITEMS - 1), 4), 16, r"it folds 16 positions of each clip into the batch: (48, 4) for 3 clips"),
        ((2 * ITEMS, 4, 5), (2 * ITEMS - 2, 4, 5), 2, "it folds 2 positions of each clip into the batch: (6, 4, 5) for 3 clips"),
        ((4, 5), (4, 5), 0, "no axis of its output (4, 5) is the batch"),
        ((ITEMS, ITEMS, 4), (ITEMS - 1, ITEMS - 1, 4), 0, "no axis of its output (3, 3, 4) is the batch"),
        ((ITEMS, 4, 5), (ITEMS - 1, 4), 0, "no axis of its output (3, 4, 5) is the batch"),
        ((ITEMS, 2, 2, 2, 2), (ITEMS - 1, 2, 2, 2, 2), 1, "its output (3, 2, 2, 2, 2) has 5 axes; a tap has batch, channels, time and"),
    ],
)
def test_why_an_output_has_no_axes(shape: tuple[int, ...], fewer: tuple[int, ...], folded: int, why: str) -> None:
    assert folded_into_batch(torch.zeros(shape), torch.zeros(fewer)) == folded
    said = why_no_axes(torch.zeros(shape), torch.zeros(fewer))
    assert said.startswith(why) and bool(said) == bool(why)
