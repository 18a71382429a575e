"""The baseline: a U-Net that learns the score from the noised mel alone, with no classifier in it.

Takes the preconditioned noised mel and c_noise; gives F of `denoised = c_skip * noised + c_out * F`, as the Score Subnet does from
taps. Its way down is built like our classifier, its way up takes the skips by concatenation (Ronneberger et al. 2015, arXiv
1505.04597; the two-model system of arXiv 2606.20457, table 1).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from duovox.config import UNetConfig
from duovox.contracts import expand_to
from duovox.diffusion.noise import Preconditioning
from duovox.diffusion.taps import Taps
from duovox.networks.base import ScoreNetwork
from duovox.networks.blocks import NoiseEmbedding, Stage, group_norm


class UNet(ScoreNetwork):
    """noised (B, 1, M, T) times c_in, and c_noise (B,) -> F (B, 1, M, T)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        down, up = config.widths, config.up_widths

        def stage(before: int, width: int, count: int) -> Stage:
            return Stage(before, width, count, config.embedding, config.group_size, config.dropout)

        self.embedding = NoiseEmbedding(config.embedding)
        self.stem = nn.Conv2d(config.patch**2, down[0], 3, padding=1)
        self.stages = nn.ModuleList(stage(before, width, config.blocks) for before, width in zip((down[0], *down), down, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for width in down[:-1])
        self.bottleneck = stage(down[-1], up[-1], config.bottleneck_blocks)
        self.joins = nn.ModuleList(stage(width + skip, width, config.blocks) for width, skip in zip(up, down, strict=True))
        self.ups = nn.ModuleList(nn.Conv2d(deep, width, 1) for width, deep in itertools.pairwise(up))
        self.head = nn.Sequential(group_norm(up[0], config.group_size), nn.SiLU(), nn.Conv2d(up[0], config.patch**2, 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, noised: Tensor, c: Preconditioning, taps: Taps | None = None) -> Tensor:
        embedding = self.embedding(c.c_noise)
        hidden = self.stem(nn.functional.pixel_unshuffle(expand_to(c.c_in, noised) * noised, self.config.patch))
        skips = []
        for index, stage in enumerate(self.stages):
            hidden = stage(hidden, embedding)
            skips.append(hidden)
            hidden = self.downs[index](hidden) if index < len(self.downs) else hidden
        hidden = self.bottleneck(hidden, embedding)
        for index in reversed(range(len(self.joins))):
            hidden = self.joins[index](torch.cat([hidden, skips[index]], dim=1), embedding)
            if index:
                hidden = nn.functional.interpolate(self.ups[index - 1](hidden), scale_factor=2.0)
        return nn.functional.pixel_shuffle(self.head(hidden), self.config.patch).float()
