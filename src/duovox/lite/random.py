"""The normal noise of `torch.randn` on a processor, drawn by numpy: the same seed, the same clip. No torch.

PyTorch takes 24 bits of each number of a Mersenne twister as a uniform number, and turns sixteen at a time into normal ones: eight radii
and eight angles (Box and Muller 1958). Equal but for the last bits of logarithms and cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GROUP = 16


class TorchNormal:
    """`torch.Generator().manual_seed(seed)` for normal noise; of a seed the lower 32 bits count, as there."""

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed & 0xFFFFFFFF)._bit_generator

    def __call__(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """What `torch.randn(shape, generator=...)` gives next, float32. Raises `ValueError` for fewer than 16 numbers, which PyTorch draws
        in another way."""
        count = math.prod(shape)
        if count < GROUP:
            raise ValueError(f"at least {GROUP} numbers must be drawn at once, not {count}")
        noise = np.empty(count, np.float32)
        whole, rest = count - count % GROUP, count % GROUP
        drawn = self._uniform(count)
        noise[:whole] = _box_muller(drawn[:whole])
        if rest:  # the last sixteen are drawn anew
            noise[-GROUP:] = _box_muller(self._uniform(GROUP))
        return noise.reshape(shape)

    def _uniform(self, count: int) -> NDArray[np.float32]:
        bits = self._twister.random_raw(count) & 0xFFFFFF
        return bits.astype(np.float32) * np.float32(2.0**-24)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), a multiple of sixteen -> as many normal ones."""
    groups = uniform.reshape(-1, 2, GROUP // 2)
    radius = np.sqrt(-2 * np.log(1 - groups[:, 0]))
    angle = np.float32(2 * math.pi) * groups[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
