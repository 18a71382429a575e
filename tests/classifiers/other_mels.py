"""Mels of other settings than ours, and sounds to make them of, for the tests of `front_end` and `bridge`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from duovox.config import MelConfig, MelInput

SOURCE = MelConfig()

HTK = MelInput(
    n_fft=512,
    win_length=400,
    hop_length=160,
    n_mels=64,
    fmin=20,
    fmax=7600,
    frames=101,
    filters="htk",
    filter_norm="none",
    power=2,
    floor=1e-6,
    layout="BMT",
)

WHISPER = MelInput(
    n_fft=400, win_length=400, hop_length=160, frames=100, power=2, log="log10", floor=1e-10, normalise="whisper", layout="BMT"
)

FINE = MelInput(n_fft=2048, win_length=800, hop_length=200, n_mels=64, frames=81, layout="BMT")

TELEPHONE = MelInput(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=40, fmax=3400, frames=101, power=2, layout="BMT")

STUDIO = MelInput(sample_rate=24000, n_fft=1024, win_length=1024, hop_length=256, n_mels=80, fmax=7500, frames=94, layout="BMT")

TARGETS = {"htk": HTK, "whisper": replace(WHISPER, normalise="none", log="ln"), "fine": FINE, "telephone": TELEPHONE, "studio": STUDIO}


def noise(clips: int, samples: int = 16000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


def sine(hertz: float, rate: int, samples: int) -> Tensor:
    """Amplitude 1, (1, samples)."""
    return torch.sin(2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / rate).float()[None]


def voice(samples: int = 16000) -> Tensor:
    """Gliding harmonics with a formant, loud in the middle, over faint noise, (2, samples)."""
    time = torch.arange(samples) / SOURCE.sample_rate
    waves = []
    for pitch in (110.0, 210.0):
        phase = 2 * math.pi * torch.cumsum(pitch * (1 + 0.2 * time), 0) / SOURCE.sample_rate
        waves.append(sum(torch.sin(k * phase) / (1 + ((k * pitch - 700) / 300) ** 2) for k in range(1, 20)) * 0.2)
    return torch.stack(waves) * torch.sin(math.pi * time / time[-1]) ** 2 + 0.01 * noise(2, samples)
