"""Bundles of classifiers made elsewhere, for the tests of exports."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from duovox.bundle import Bundle, BundleConfig
from duovox.config import Calibration, ExternalConfig, MelInput, SampleConfig, TapConfig, WaveInput
from duovox.model import build_external, build_model


class WithGRU(nn.Module):
    """A recurrent layer, whose backward pass is one operation of a library."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, 0].transpose(1, 2))[0].mean(1))


class WithAiry(nn.Module):
    """An operation that no ONNX opset has, in a layer with a name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, 2, 1)
        self.odd = Unusual()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.odd(self.body(x)).mean((2, 3)))


class Unusual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.airy_ai(x)


class Deciding(nn.Module):
    """Takes another way for loud sounds: a graph holds one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, 2, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3))) * (5 if float(x.detach().mean()) > -3 else 1)


class Pooled(nn.Module):
    """What most classifiers are made of: strided convolutions on odd sizes, normalisation, pooling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 3, 2, 1), nn.GELU(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


def bundle_of(like: Bundle, network: nn.Module, taps: tuple[TapConfig, ...] = (), waves: bool = False) -> Bundle:
    """A bundle on someone else's classifier, otherwise as `like`; guided at the estimate, with temperatures."""
    torch.manual_seed(0)
    takes = {"wave_input": WaveInput(samples=3840, layout="B1S")} if waves else {"mel_input": MelInput(n_mels=16, frames=16)}
    external = ExternalConfig(labels=like.config.labels, taps=taps, patch=4, **takes)  # type: ignore[arg-type]
    recipe = replace(like.config.recipe, external=external, sample=SampleConfig(steps=3, gamma=0.3, guide_at="estimate"))
    classifier = build_external(recipe, network.eval(), like.config.mel_scale)
    model = build_model(recipe, classifier).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.score_network.parameters():
        if not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    calibration = Calibration("estimate", (0.1, 1.0, 10.0), (1.0, 1.5, 4.0))
    config = BundleConfig(like.config.format, like.config.labels, recipe, like.config.mel_scale, calibration=calibration)
    return Bundle(config, model, like.vocoder)
