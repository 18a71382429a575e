"""Guides by measured quantities, pitch and loudness: takes a voice's mel and vocoder, gives classifiers whose labels are values.

Neither is trained to guide. The pitch is what the vocoder hears in a log-mel, which is the pitch of the pulses it makes of it; the
loudness is computed. `steering` joins them to the voice; a value between two labels is wanted of both, in shares.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, MelScale
from duovox.sound.mel import mel_filterbank, unscale_mel
from duovox.sound.vocoder.source import PitchHead

PITCHES = tuple(f"{110 * 2 ** (semitone / 12):.0f}Hz" for semitone in range(-7, 25))
"""Semitones from 73 to 440 Hz, where people speak."""

LEVELS = tuple(f"{level}dB" for level in range(-50, -7, 2))
"""Root mean squares of a clip, relative to full scale."""

SEMITONE_WIDTH = 0.5
"""How far from a semitone, as a standard deviation in semitones, a pitch still counts as it."""

LEVEL_WIDTH = 1.0
"""The same for loudness, in dB."""

RAYLEIGH = 4 / math.pi
"""The mean square of a magnitude, over its squared mean, where real and imaginary part are normal."""

VOICED_HZ = 1200.0
"""Frames count for the pitch as much as they have below this: harmonics are there, hisses above."""


class PitchClassifier(nn.Module):
    """mels (B, 1, M, T), as if they were clean -> logits (B, `PITCHES`): the mean over the frames, weighed by their loudness, of the
    logarithm of how probable each semitone is to a vocoder's `head`."""

    window: Tensor

    def __init__(self, head: PitchHead, mel: MelConfig, scale: MelScale) -> None:
        super().__init__()
        self.head, self.scale = head, scale
        wanted = torch.tensor([value_of(label) for label in PITCHES]).log2()
        away = 12 * (wanted[:, None] - head.grid.log2()[None])
        self.register_buffer("window", -0.5 * (away / SEMITONE_WIDTH).square(), persistent=False)
        bank = mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax)
        peaks = bank.argmax(dim=1) * mel.sample_rate / mel.n_fft
        self.low = max(1, int((peaks < VOICED_HZ).sum()))

    def forward(self, mels: Tensor, sigma: Tensor) -> Tensor:
        log_mel = unscale_mel(mels, self.scale)[:, 0]
        probable = self.head(log_mel).log_softmax(dim=1)[:, None] + self.window[:, :, None]
        loud = log_mel[:, : self.low].detach().exp().sum(dim=1)
        weights = loud / loud.sum(dim=1, keepdim=True)
        return (probable.logsumexp(dim=2) * weights[:, None]).sum(dim=2).float()


class LoudnessClassifier(nn.Module):
    """mels (B, 1, M, T), as if they were clean -> logits (B, `LEVELS`): a normal density around the level of each clip."""

    bank: Tensor
    levels: Tensor

    def __init__(self, mel: MelConfig, scale: MelScale) -> None:
        super().__init__()
        self.mel, self.scale = mel, scale
        self.register_buffer("bank", mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax), persistent=False)
        self.register_buffer("levels", torch.tensor([value_of(label) for label in LEVELS]), persistent=False)

    def forward(self, mels: Tensor, sigma: Tensor) -> Tensor:
        away = (self.level(unscale_mel(mels, self.scale))[:, None] - self.levels) / LEVEL_WIDTH
        return -0.5 * away.square()

    def level(self, log_mel: Tensor) -> Tensor:
        """The level (B,) in dB of full scale of the sounds that have these log-mels (B, 1, M, T): by Parseval, of the mean magnitude in
        each filter, whose bins are as many as it is wide."""
        mean = log_mel[:, 0].float().exp() / self.bank.sum(dim=1)[:, None]
        bins = (self.bank.sum(dim=1) / self.bank.amax(dim=1))[:, None]
        power = (mean.square() * bins).sum(dim=1)
        window = torch.hann_window(self.mel.win_length).square().sum().item()
        squares = RAYLEIGH * 2 * power.mean(dim=1) / (self.mel.n_fft * window)
        return 10 / math.log(10) * squares.clamp(min=1e-12).log()


def value_of(label: str) -> float:
    """The number that a label such as 196Hz or -20dB names."""
    return float(label.rstrip("HzdB"))
