"""The few layers that the classifier and the Score Subnet (and the U-Net baseline) are built of.

Takes and gives feature maps (B, C, M', T'); the noise level comes in as an embedding (B, E).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


class NoiseEmbedding(nn.Module):
    """c_noise (B,) -> embedding (B, width): sines and cosines at geometric frequencies, then two linear layers."""

    frequencies: Tensor

    def __init__(self, width: int, channels: int = 64, top: float = 200.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(top), channels // 2)), persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None].float() * self.frequencies
        embedding: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
        return embedding


def group_norm(width: int, group_size: int) -> nn.GroupNorm:
    """Group normalisation with groups of `group_size` channels (the largest divisor of `width` not above it)."""
    size = max(s for s in range(1, group_size + 1) if width % s == 0)
    return nn.GroupNorm(width // size, width)


class ResBlock(nn.Module):
    """Residual block: norm-SiLU-conv, shifted and scaled by the noise embedding, norm-SiLU-conv, plus the shortcut."""

    def __init__(self, width_in: int, width: int, embedding: int, group_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in, group_size)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.norm2 = group_norm(width, group_size)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        update = self.conv1(nn.functional.silu(self.norm1(hidden)))
        update = torch.addcmul(shift, self.norm2(update), 1 + scale)
        update = self.conv2(self.dropout(nn.functional.silu(update)))
        result: Tensor = self.shortcut(hidden) + update
        return result


class Stage(nn.Module):
    """ResBlocks one after the other at one resolution: (B, width_in, M', T') -> (B, width, M', T')."""

    def __init__(self, width_in: int, width: int, count: int, embedding: int, group_size: int, dropout: float) -> None:
        super().__init__()
        widths = [width_in] + [width] * count
        self.blocks = nn.ModuleList(ResBlock(a, b, embedding, group_size, dropout) for a, b in itertools.pairwise(widths))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, embedding)
        return hidden
