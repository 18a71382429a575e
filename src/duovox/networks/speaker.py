"""Networks that embed who speaks, for guides: a time-delay network, and several networks side by side.

Takes noised mels and noise levels; gives embeddings (B, D) to the training `speaker` and to guides. The encoder of `networks/encoder.py` is
the other kind that stands in the row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, NoiseConfig, SpeakerConfig
from duovox.contracts import check_mel, expand_to
from duovox.diffusion.noise import precondition
from duovox.networks.blocks import NoiseEmbedding, group_norm

_LEAST_VARIANCE = 1e-5


class TimeDelayNetwork(nn.Module):
    """noised (B, 1, M, T), sigma (B,) -> embeddings (B, `dimensions`) of what is the same throughout a clip.

    The mean of each band over time is taken off, so that neither loudness nor a microphone's colour counts; then convolutions over time,
    ever wider apart (x-vectors: D. Snyder et al. 2018); then mean and spread over time of the frames, weighed by what they tell (K. Okabe
    et al. 2018, arXiv 1803.10963).
    """

    def __init__(self, config: SpeakerConfig, mel: MelConfig, noise: NoiseConfig, dimensions: int) -> None:
        super().__init__()
        self.mel, self.noise = mel, noise
        width = config.width
        self.embedding = NoiseEmbedding(config.embedding)
        self.first = nn.Conv1d(mel.n_mels, width, 5, padding=2)
        self.blocks = nn.ModuleList(DilatedBlock(width, dilation, config) for dilation in config.dilations)
        self.last = nn.Conv1d(width, 2 * width, 1)
        self.attention = nn.Sequential(nn.Conv1d(2 * width, config.embedding, 1), nn.Tanh(), nn.Conv1d(config.embedding, 2 * width, 1))
        self.head = nn.Sequential(nn.LayerNorm(4 * width), nn.Linear(4 * width, dimensions))

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        check_mel(noised, self.mel.n_mels)
        coefficients = precondition(sigma, self.noise)
        embedding = self.embedding(coefficients.c_noise)
        scaled = (noised * expand_to(coefficients.c_in, noised))[:, 0]
        hidden = self.first(scaled - scaled.mean(dim=2, keepdim=True))
        for block in self.blocks:
            hidden = block(hidden, embedding)
        frames = nn.functional.silu(self.last(nn.functional.silu(hidden)))
        found: Tensor = self.head(torch.cat(weighted_moments(frames.float(), self.attention(frames).float()), dim=1))
        return found.float()


class DilatedBlock(nn.Module):
    """(B, C, T) -> (B, C, T): norm, shifted and scaled by the noise embedding, SiLU, a convolution over `dilation` frames; plus the
    shortcut."""

    def __init__(self, width: int, dilation: int, config: SpeakerConfig) -> None:
        super().__init__()
        self.norm = group_norm(width, config.group_size)
        self.modulation = nn.Linear(config.embedding, 2 * width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None].chunk(2, dim=1)
        update: Tensor = self.conv(nn.functional.silu(torch.addcmul(shift, self.norm(hidden), 1 + scale)))
        return hidden + update


def weighted_moments(frames: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C) of frames (B, C, T) over time, each channel weighed by the softmax of its logits (B, C, T)."""
    weights = logits.softmax(dim=2)
    mean = (weights * frames).sum(dim=2)
    variance = (weights * (frames - mean[:, :, None]).square()).sum(dim=2)
    return mean, variance.clamp(min=_LEAST_VARIANCE).sqrt()


class SideBySide(nn.Module):
    """Several networks as one: their embeddings, each of length 1, one after the other, (B, N D). The cosine similarity of two such is the
    mean of those of each network, and what deceives one of them does not yet deceive the others."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([nn.functional.normalize(network(noised, sigma), dim=1) for network in self.networks], dim=1)
