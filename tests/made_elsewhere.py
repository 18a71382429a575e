"""A classifier of waves, for the tests of several rooms."""

from __future__ import annotations

from torch import Tensor, nn


class OnWaves(nn.Module):
    """One-dimensional convolutions on a waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 8, 64, 128), nn.ReLU(), nn.Conv1d(8, 12, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(2))
