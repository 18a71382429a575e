"""The Score Subnet: fuses each pair of taps and decodes them, deepest first, into the network's part of the denoised mel.

Takes `Taps` (their shapes are all it knows of the classifier); gives F of `denoised = c_skip * noised + c_out * F`.
It is the only part that is trained on denoising, and it never sees the label. Source: arXiv 2606.20457 section 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duovox.config import SubnetConfig
from duovox.diffusion.noise import Preconditioning
from duovox.diffusion.taps import Taps
from duovox.networks.base import ScoreNetwork
from duovox.networks.blocks import NoiseEmbedding, Stage, group_norm


@dataclass(frozen=True)
class TapShape:
    """Shape of one tap without the batch: channels, mel rows, frames; and the decoder stage it is added to.

    A tap without mel rows (rows = 1: a sequence) is given them by a projection of its own; one of another size than its
    stage is averaged or repeated onto it.
    """

    channels: int
    rows: int
    columns: int
    stage: int


def rms_normalise(tap: Tensor) -> Tensor:
    """Divide each item (C, M', T') by its root mean square, found in float32. An all-zero tap stays zero, and one below 1e-18,
    whose squares float32 cannot hold, fades towards it.

    Per item rather than per position, because *where* a gradient is large is what it has to say. A gain per channel would
    be lost in the projection that follows, so there is none.
    """
    scale = torch.linalg.vector_norm(tap, dim=(1, 2, 3), keepdim=True, dtype=torch.float32) / tap[0].numel() ** 0.5
    return tap * scale.clamp(min=1e-18).reciprocal().to(tap.dtype)


class ConcatFusion(nn.Module):
    """Stack both taps and project: (h_k, g_k or None) -> (B, width, M', T')."""

    def __init__(self, channels: int, width: int, gradient_taps: bool) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels * (1 + gradient_taps), width, 1)

    def forward(self, activation: Tensor, gradient: Tensor | None) -> Tensor:
        fused: Tensor = self.project(activation if gradient is None else torch.cat([activation, gradient], dim=1))
        return fused


class AttentionFusion(nn.Module):
    """Cross-attention at every position: the activation a asks, the activation and the gradient b answer.

    Softmax over two sources is a sigmoid w of the difference of their scores, q . k(b - a), and the answer is
    v(a) + w v(b - a); its first term is linear in a, so the projection of a carries it already.
    """

    def __init__(self, channels: int, width: int, gradient_taps: bool, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.activation = nn.Conv2d(channels, width, 1)
        if gradient_taps:
            self.gradient = nn.Conv2d(channels, width, 1)
            self.query, self.key = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1, bias=False)
            self.value, self.out = nn.Conv2d(width, width, 1, bias=False), nn.Conv2d(width, width, 1)

    def forward(self, activation: Tensor, gradient: Tensor | None) -> Tensor:
        own: Tensor = self.activation(activation)
        if gradient is None:
            return own
        change = self.gradient(gradient) - own
        batch, width, rows, columns = own.shape
        per_head = (batch, self.heads, width // self.heads, rows, columns)
        preference = (self.query(own) * self.key(change)).reshape(per_head).sum(dim=2, keepdim=True)
        attention = torch.sigmoid(preference * (width // self.heads) ** -0.5)
        answer = (attention * self.value(change).reshape(per_head)).reshape(own.shape)
        fused: Tensor = own + self.out(answer)
        return fused


class ScoreSubnet(ScoreNetwork):
    """The taps and c_noise (B,) -> F (B, 1, M, T). `patch` is how many mel pixels a side one position of stage 0 covers.

    The first tap has the size of stage 0; each further stage has half the rows and columns.
    """

    reads_taps = True

    def __init__(self, config: SubnetConfig, shapes: Sequence[TapShape], patch: int) -> None:
        super().__init__()
        self.gradient_taps = config.gradient_taps
        self.config, self.shapes, self.patch = config, tuple(shapes), patch
        self.sizes = [(shapes[0].rows >> stage, shapes[0].columns >> stage) for stage in range(len(config.widths))]
        widths, gradient_taps = config.widths, config.gradient_taps != "none"
        self.embedding = NoiseEmbedding(config.embedding)
        self.fusions = nn.ModuleList(self._fusion(shape.channels, widths[shape.stage], gradient_taps) for shape in self.shapes)
        self.lifts = nn.ModuleList(self._lift(shape) for shape in self.shapes)
        self.stages = nn.ModuleList(Stage(w, w, config.blocks, config.embedding, config.group_size, config.dropout) for w in widths)
        self.ups = nn.ModuleList(nn.Conv2d(deep, w, 1) for w, deep in itertools.pairwise(widths))
        self.head = nn.Sequential(group_norm(widths[0], config.group_size), nn.SiLU(), nn.Conv2d(widths[0], patch**2, 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def _fusion(self, channels: int, width: int, gradient_taps: bool) -> nn.Module:
        if self.config.fusion == "concat":
            return ConcatFusion(channels, width, gradient_taps)
        return AttentionFusion(channels, width, gradient_taps, self.config.heads)

    def _lift(self, shape: TapShape) -> nn.Module:
        """From (B, width, 1, T') to (B, width * rows, 1, T') for a tap that has no mel rows where its stage has."""
        width, rows = self.config.widths[shape.stage], self.sizes[shape.stage][0]
        return nn.Conv2d(width, width * rows, 1) if shape.rows == 1 < rows else nn.Identity()

    def forward(self, noised: Tensor, c: Preconditioning, taps: Taps | None, told: Tensor | None = None) -> Tensor:
        """F (B, 1, M, T) from the taps alone; the noised mel reaches it through the classifier. `told` (B, E) is added to the embedding
        of the noise level."""
        assert taps is not None
        embedding = self.embedding(c.c_noise)
        embedding = embedding if told is None else embedding + told
        merged = self._merge(taps)
        hidden = merged[len(self.stages) - 1]
        for index in reversed(range(len(self.stages))):
            hidden = self.stages[index](hidden, embedding)
            if index:
                hidden = nn.functional.interpolate(self.ups[index - 1](hidden), scale_factor=2.0)
                hidden = hidden + merged[index - 1] if index - 1 in merged else hidden
        return nn.functional.pixel_shuffle(self.head(hidden), self.patch).float()

    def _merge(self, taps: Taps) -> dict[int, Tensor]:
        """The fused taps of each stage that has some, added up: one feature map (B, width, rows, columns) a stage."""
        merged: dict[int, Tensor] = {}
        gradients: Sequence[Tensor | None] = taps.gradients or [None] * len(self.shapes)
        for index, (activation, gradient) in enumerate(zip(taps.activations, gradients, strict=True)):
            stage = self.shapes[index].stage
            normal = rms_normalise(activation), None if gradient is None else rms_normalise(gradient)
            fused = self._onto_stage(self.fusions[index](*normal), index)
            merged[stage] = merged[stage] + fused if stage in merged else fused
        return merged

    def _onto_stage(self, fused: Tensor, index: int) -> Tensor:
        """(B, width, M', T') -> (B, width, rows, columns) of the tap's stage."""
        rows, columns = self.sizes[self.shapes[index].stage]
        if fused.shape[2:] == (rows, columns):
            return fused
        if isinstance(self.lifts[index], nn.Identity):
            return nn.functional.adaptive_avg_pool2d(fused, (rows, columns))
        pooled = nn.functional.adaptive_avg_pool2d(fused, (1, columns))
        return self.lifts[index](pooled).reshape(fused.shape[0], -1, rows, columns)
