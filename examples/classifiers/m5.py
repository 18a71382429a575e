"""M5: a convolutional network on the raw wave, from its description in Dai et al., "Very deep convolutional neural networks for raw
waveforms", arXiv 1610.00087, with the first stride of 16 that is usual for speech commands at 8 kHz."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class M5(nn.Module):
    """wave (B, 1, 8000) at 8 kHz -> logits (B, K)."""

    def __init__(self, labels: int, widths: tuple[int, ...] = (64, 64, 128, 128)) -> None:
        super().__init__()
        narrow = [block(before, after, kernel=3, stride=1) for before, after in pairwise(widths)]
        self.blocks = nn.Sequential(block(1, widths[0], kernel=80, stride=16), *narrow)
        self.head = nn.Linear(widths[-1], labels)

    def forward(self, wave: Tensor) -> Tensor:
        return self.head(self.blocks(wave).mean(dim=-1))


def block(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU, maximum of every four."""
    return nn.Sequential(nn.Conv1d(before, after, kernel, stride), nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(4))


def build(labels: int = 6) -> nn.Module:
    """An untrained M5."""
    return M5(labels)
