"""Random changes to the mels that networks are trained on: place in time, level, colour, length of the vocal tract. Mels in, mels out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.config import TrainConfig

NEPERS_PER_DB = math.log(10) / 20

COLOUR_POINTS = 6
"""Between so many places, evenly apart on the mel axis, a random colour is interpolated."""


def altered(log_mel: Tensor, train: TrainConfig, generator: torch.Generator) -> Tensor:
    """Log-mels (B, 1, M, T) of another level, length of the vocal tract and colour, as far as a training wants each."""
    if train.gain_db:
        log_mel = random_gain(log_mel, train.gain_db, generator)
    if train.stretch_mel:
        log_mel = stretch_mel(log_mel, train.stretch_mel, generator)
    if train.colour_db:
        log_mel = random_colour(log_mel, train.colour_db, generator)
    return log_mel


def random_gain(log_mel: Tensor, most_db: float, generator: torch.Generator) -> Tensor:
    """Make each item of log_mel (B, 1, M, T) louder by its own -most_db..most_db decibels."""
    share = 2 * torch.rand((log_mel.shape[0], 1, 1, 1), generator=generator, device=log_mel.device) - 1
    return log_mel + share * most_db * NEPERS_PER_DB


def random_colour(log_mel: Tensor, most_db: float, generator: torch.Generator) -> Tensor:
    """Colour each item of log_mel (B, 1, M, T) as a microphone and a room do: by its own curve over the mel axis, the same at all times, of
    -most_db..most_db decibels at `COLOUR_POINTS` places."""
    points = 2 * torch.rand((log_mel.shape[0], 1, COLOUR_POINTS), generator=generator, device=log_mel.device) - 1
    curve = nn.functional.interpolate(points, log_mel.shape[2], mode="linear", align_corners=True)
    return log_mel + curve[..., None] * most_db * NEPERS_PER_DB


def stretch_mel(log_mel: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Stretch the mel axis of each item of log_mel (B, 1, M, T) by its own factor: row m becomes what stood at m * (1 - most..1 + most).

    Between rows it is interpolated linearly; beyond the last row stands the last. That is vocal tract length perturbation (N. Jaitly
    and G. Hinton, 2013) on the mel axis.
    """
    items, _, rows, _ = log_mel.shape
    factor = 1 + most * (2 * torch.rand((items, 1), generator=generator, device=log_mel.device) - 1)
    place = (torch.arange(rows, device=log_mel.device) * factor).clamp(max=rows - 1)[:, None, :, None]
    below = place.floor().long().expand_as(log_mel)
    above = (below + 1).clamp(max=rows - 1)
    return torch.lerp(log_mel.gather(2, below), log_mel.gather(2, above), (place - place.floor()).expand_as(log_mel))


def shift_frames(mel: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each item of mel (B, 1, M, T) by its own -most..most frames; the edge frame fills the gap."""
    offsets = torch.randint(-most, most + 1, (mel.shape[0], 1), generator=generator, device=mel.device)
    index = (torch.arange(mel.shape[3], device=mel.device)[None] + offsets).clamp(0, mel.shape[3] - 1)
    return mel.gather(3, index[:, None, None, :].expand_as(mel))
