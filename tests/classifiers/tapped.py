"""A classifier with layers of every form, for the tests of `external` and `modulation`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, MelConfig, MelInput, MelScale, NoiseConfig, TapConfig

MEL = MelConfig(n_mels=16, frames=16, clip_samples=3840)

SCALE = MelScale("standard", -5.0, 2.5)

LABELS = ("a", "b", "c")

TAPS = (TapConfig("conv", "BCMT"), TapConfig("mix", "BMTC"))

SIGMA = torch.tensor([0.05, 1.0, 20.0])


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Toy(nn.Module):
    """A network on (B, 1, 16, 16): convolution, batch statistics, dropout, and a layer with the channels last."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, outputs)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.drop(torch.tanh(self.norm(self.conv(mel))))
        return self.head(torch.tanh(self.mix(hidden.permute(0, 2, 3, 1))).mean(dim=(1, 2)))


def toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    network = Toy()
    network.norm.running_mean = seeded(4)
    network.norm.running_var = seeded(4, seed=1).exp()
    return network.eval()


def external(network: nn.Module, noise: NoiseConfig | None = None, output: str = "", **settings: Any) -> ExternalClassifier:
    """`network` as a classifier on our own mel, unscaled."""
    mel = MelInput(n_mels=16, frames=16)
    config = ExternalConfig(labels=LABELS, mel_input=mel, output=output, **settings)
    front_end = build_front_end(MEL, mel, None, None)
    return ExternalClassifier(config, network, front_end, MEL, SCALE, noise or NoiseConfig())
