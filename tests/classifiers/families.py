"""Toy networks of every family, and what the axes of their layers are, for the tests of `discovery` and `choice`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from duovox.classifiers.discovery import Candidate, candidates
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, MelConfig, MelInput, MelScale, NoiseConfig, TapConfig, WaveInput
from duovox.sound.vocoder.griffin_lim import GriffinLim

MEL = MelConfig(n_mels=16, frames=16, clip_samples=3840)
"""As many rows as frames: no shape tells which axis is which."""

WAVE = WaveInput(samples=3840, layout="B1S")

Layout = str | WaveInput


def external(network: nn.Module, takes: Layout = "B1MT", taps: tuple[TapConfig, ...] = ()) -> ExternalClassifier:
    """`network`, with three labels, on our own mel in a layout, or on a waveform."""
    wave = takes if isinstance(takes, WaveInput) else None
    mel = None if wave else MelInput(n_mels=16, frames=16, layout=takes)  # type: ignore[arg-type]
    config = ExternalConfig(labels=("a", "b", "c"), mel_input=mel, wave_input=wave, taps=taps)
    vocoder = GriffinLim(MEL, iterations=4, inversion_steps=10) if wave else None
    front_end = build_front_end(MEL, mel, wave, vocoder)
    return ExternalClassifier(config, network, front_end, MEL, MelScale("standard", -5.0, 2.5), NoiseConfig())


def found_in(network: nn.Module, takes: Layout = "B1MT") -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in candidates(external(network.eval(), takes))}


def image_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 10, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3)),
    )


class ChannelsLast(nn.Module):
    """As in ConvNeXt: normalised and mixed with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 8, 2, stride=2), nn.Conv2d(8, 8, 2, stride=2)
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, mel: Tensor) -> Tensor:
        mixed = self.mix(self.norm(self.stem(mel).permute(0, 2, 3, 1)))
        return self.head(self.down(torch.tanh(mixed).permute(0, 3, 1, 2)).mean(dim=(2, 3)))


def sequence_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(16, 12, 3, padding=1), nn.ReLU(), nn.Conv1d(12, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


def wave_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(1, 8, 80, stride=16), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.Conv1d(8, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 3)),
    )


class Recurrent(nn.Module):
    """A recurrent network over time; its layer gives a tuple."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool = True) -> None:
        super().__init__()
        self.first = batch_first
        self.rnn = kind(16, 12, num_layers=2, batch_first=batch_first)  # type: ignore[call-arg]
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, mel: Tensor) -> Tensor:
        over_time = self.norm(self.rnn(mel if self.first else mel.transpose(0, 1))[0])
        return self.head(over_time.mean(dim=1 if self.first else 0))


class Attentive(nn.Module):
    """A transformer with places; `convolved` puts a convolution before it whose output has the same shape, transposed."""

    def __init__(self, width: int = 12, layers: int = 4, convolved: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.enter = nn.Conv1d(16, width, 3, padding=1) if convolved else nn.Linear(16, width)
        self.convolved, self.place = convolved, nn.Parameter(torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        final = nn.LayerNorm(width) if norm else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm=final, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, mel: Tensor) -> Tensor:
        entered = self.enter(mel.transpose(1, 2)).transpose(1, 2) if self.convolved else self.enter(mel)
        return self.head(self.encoder(entered + self.place).mean(dim=1))


AXES: dict[str, tuple[Callable[[], nn.Module], Layout, dict[str, tuple[str, tuple[int, ...], tuple[float, float]]]]] = {
    "images": (
        image_net,
        "B1MT",
        {
            **{str(i): ("BCMT", (6, 16, 16), (1.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCMT", (8, 8, 8), (2.0, 2.0)) for i in (2, 3)},
            **{str(i): ("BCMT", (10, 4, 4), (4.0, 4.0)) for i in (4, 5)},
        },
    ),
    "images, time first": (
        image_net,
        "B1TM",
        {
            **{str(i): ("BCTM", (6, 16, 16), (1.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCTM", (8, 8, 8), (2.0, 2.0)) for i in (2, 3)},
            **{str(i): ("BCTM", (10, 4, 4), (4.0, 4.0)) for i in (4, 5)},
        },
    ),
    "channels last": (
        ChannelsLast,
        "B1MT",
        {
            "stem": ("BCMT", (8, 8, 8), (2.0, 2.0)),
            "norm": ("BMTC", (8, 8, 8), (2.0, 2.0)),
            "mix": ("BMTC", (8, 8, 8), (2.0, 2.0)),
            "down": ("BCMT", (8, 4, 4), (4.0, 4.0)),
        },
    ),
    "sequences": (
        sequence_net,
        "BMT",
        {
            **{str(i): ("BCT", (12, 16), (16.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCT", (16, 8), (16.0, 2.0)) for i in (2, 3)},
        },
    ),
    "waves": (
        wave_net,
        WAVE,
        {
            **{str(i): ("BCT", (8, 236), (16.0, 16 / 236)) for i in (0, 1, 2)},
            "3": ("BCT", (8, 59), (16.0, 16 / 59)),
            **{str(i): ("BCT", (24, 57), (16.0, 16 / 57)) for i in (4, 5)},
        },
    ),
    "GRU": (lambda: Recurrent(nn.GRU), "BTM", dict.fromkeys(("rnn", "norm"), ("BTC", (16, 12), (16.0, 1.0)))),
    "LSTM": (lambda: Recurrent(nn.LSTM), "BTM", dict.fromkeys(("rnn", "norm"), ("BTC", (16, 12), (16.0, 1.0)))),
    "LSTM, batch second": (lambda: Recurrent(nn.LSTM, False), "BTM", dict.fromkeys(("rnn", "norm"), ("TBC", (16, 12), (16.0, 1.0)))),
    "attention": (
        Attentive,
        "BTM",
        {
            **dict.fromkeys(("enter", "encoder", *(f"encoder.layers.{i}" for i in range(4))), ("BTC", (16, 12), (16.0, 1.0))),
            **{f"encoder.layers.{i}.linear1": ("BTC", (16, 24), (16.0, 1.0)) for i in range(4)},
            **{f"encoder.layers.{i}.self_attn": ("BTC", (16, 12), (16.0, 1.0)) for i in range(4)},
        },
    ),
    "attention, as wide as long": (
        lambda: Attentive(16, 2, convolved=True),
        "BTM",
        {
            "enter": ("BCT", (16, 16), (16.0, 1.0)),
            **dict.fromkeys(("encoder", "encoder.layers.0", "encoder.layers.1.self_attn"), ("BTC", (16, 16), (16.0, 1.0))),
        },
    ),
}


class Faulty(nn.Module):
    """Every way in which a layer can be no tap."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.good = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.twice = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1)
        self.dead_end, self.blind = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.unused, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.good(self.relu(self.enter(mel)))
        hidden = self.twice(torch.tanh(self.twice(hidden)))
        hidden = hidden + self.dead_end(hidden).detach() + self.blind(mel.detach())
        self.unused(hidden)
        return self.head(hidden.mean(dim=(2, 3)))
