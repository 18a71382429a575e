"""Small classifiers for the tests of `classifiers/`, on mels of 16 x 16 with three labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, MelConfig, MelInput, MelScale, NoiseConfig

MEL = MelConfig(n_mels=16, frames=16, clip_samples=3840)


class Base(nn.Module):
    """Two convolutions and a linear head: mel (B, 1, 16, 16) -> logits (B, 3)."""

    def __init__(self, labels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, labels)

    def forward(self, x: Tensor) -> Any:
        return 3 * self.head(self.body(x).mean((2, 3)))

    def frames(self, x: Tensor) -> Tensor:
        """Logits of each of four frames, (B, 4, labels)."""
        return 3 * self.head(self.body(x).mean(2).transpose(1, 2))


def external(network: nn.Module, labels: int = 3, **settings: Any) -> ExternalClassifier:
    """The network as a classifier on our own mel."""
    mel = MelInput(n_mels=16, frames=16)
    config = ExternalConfig(labels=tuple("abcdefgh"[:labels]), mel_input=mel, **settings)
    front_end = build_front_end(MEL, mel, None, None)
    return ExternalClassifier(config, network.eval(), front_end, MEL, MelScale("standard", -5.0, 2.5), NoiseConfig())
