"""Resampling that gradients pass: takes waves of one rate, gives them at another, to `front_end`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.contracts import ConfigError, ShapeError

ZERO_CROSSINGS, ROLL_OFF, KAISER_BETA = 32, 0.95, 9.0

LARGEST_KERNEL = 2**25


class Resampler(nn.Module):
    """wave (B, S) at `old` Hz -> (B, ceil(S * new / old)) at `new` Hz: windowed sinc (Kaiser), one filter for each output phase.

    The same wave for equal rates. Raises `ConfigError` where the rates have so small a common divisor that the filters are huge.
    """

    kernel: Tensor

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        common = math.gcd(old, new)
        self.up, self.down = new // common, old // common
        self.reach = math.ceil(ZERO_CROSSINGS / (ROLL_OFF * min(1.0, new / old)))
        if self.up * (2 * self.reach + self.down) > LARGEST_KERNEL:
            raise ConfigError(f"cannot resample from {old} to {new} Hz; choose a sample rate in a simpler ratio to {old}")
        self.register_buffer("kernel", self._kernel() if self.up != self.down else torch.ones(1, 1, 1), persistent=False)

    def _kernel(self) -> Tensor:
        """(up, 1, 2 * reach + down): row i gives output sample i from input samples -reach, ..., reach + down - 1."""
        cut_off = ROLL_OFF * min(1.0, self.up / self.down)
        centres = torch.arange(self.up, dtype=torch.float64)[:, None] * self.down / self.up
        away = torch.arange(-self.reach, self.reach + self.down, dtype=torch.float64) - centres
        inside = (1 - (away / self.reach).square()).clamp(min=0)
        window = torch.special.i0(KAISER_BETA * inside.sqrt()) * (inside > 0)
        kernel = torch.sinc(cut_off * away) * window
        return (kernel / kernel.sum(dim=1, keepdim=True)).float().unsqueeze(1)

    def forward(self, wave: Tensor) -> Tensor:
        if self.up == self.down:
            return wave
        samples = -(-wave.shape[1] * self.up // self.down)
        padded = nn.functional.pad(wave, (self.reach, self.reach + self.down)).unsqueeze(1)
        phases = nn.functional.conv1d(padded, self.kernel.to(wave.dtype), stride=self.down)
        return phases.transpose(1, 2).flatten(1)[:, :samples]


def resample(wave: Tensor, old: int, new: int) -> Tensor:
    """wave (B, S) from `old` to `new` Hz, (B, ceil(S * new / old)); see `Resampler`. Raises `ShapeError` for another rank."""
    check_wave(wave)
    module = Resampler(old, new).to(wave.device)
    return module(wave)


def check_wave(wave: Tensor) -> None:
    """Raise `ShapeError` unless `wave` is (B, S)."""
    if wave.ndim != 2:
        raise ShapeError(f"expected a wave of shape (B, S), got {tuple(wave.shape)}")
