"""Noise without PyTorch: the numbers of `torch.randn`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duovox.lite.random import TorchNormal


@pytest.mark.parametrize("seed", [0, 1, 7, 12345, 2**32 - 1, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(16,), (17,), (31,), (1, 80, 64), (16128,)])
def test_the_numbers_of_torch(seed: int, shape: tuple[int, ...]) -> None:
    expected = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_allclose(TorchNormal(seed)(shape), expected, rtol=0, atol=2e-6)


def test_draw_after_draw() -> None:
    """Also after draws that are no multiple of sixteen, whose end is drawn anew."""
    ours, theirs = TorchNormal(3), torch.Generator().manual_seed(3)
    for shape in ((4, 5), (100,), (2, 8), (33,)):
        np.testing.assert_allclose(ours(shape), torch.randn(shape, generator=theirs).numpy(), rtol=0, atol=2e-6)


def test_too_few_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        TorchNormal(0)((15,))
