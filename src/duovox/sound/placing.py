"""Where a word trimmed to its length stands in a clip of fixed length, and what fills the rest. numpy only.

Takes the heard part of a recording from `hearing`; gives a clip as long as any other to `data`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

QUIETEST = 0.1
"""Share of a clip's frames, the quietest, that show its floor."""

LOWEST_DB, HIGHEST_DB = -75.0, -60.0
"""Bounds of the level of the filling, dBFS RMS: digital silence has no floor of its own, and a word that fills its clip shows none."""

SPEECH_DB = 40.0
"""The word is what lies within so many dB of the loudest frame."""

FRAME, HOP, FADE = 512, 128, 160
"""Samples at 16 kHz."""


def place(clip: NDArray[np.floating], samples: int, name: str) -> NDArray[np.float32]:
    """A word `clip` (n,) in [-1, 1] put into `samples` samples, the rest filled with noise like the clip's own floor.

    The place is drawn evenly from all at which the word is whole, as in Speech Commands (there the middle of the word has quartiles
    0.41 and 0.65 s, standard deviation 0.15 s); quiet ends of the clip that then stick out are cut. Place and noise are seeded by
    `name`: the same name, the same sound.
    """
    exact = clip.astype(np.float64)
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode(errors="surrogateescape")).digest(), np.uint32))
    start = draw_start(*speech_bounds(exact), samples, rng)
    noise = floor_noise(exact, samples, rng)
    inside = np.arange(samples) - start  # which sample of the clip stands there
    present = np.clip(np.minimum(inside + 1, len(exact) - inside) / (FADE + 1), 0, 1)  # 1 in the clip, 0 outside, a fade between
    shown = np.where((inside >= 0) & (inside < len(exact)), exact[np.clip(inside, 0, len(exact) - 1)], 0.0)
    placed = np.sqrt(present) * shown + np.sqrt(1 - present) * noise  # fades of equal power: clip and noise are independent
    return np.clip(placed, -1, 1).astype(np.float32)


def draw_start(first: int, last: int, samples: int, rng: np.random.Generator) -> int:
    """Where among `samples` a clip begins whose word is first..last (exclusive); negative where its head is cut. A word longer than
    `samples` is centred."""
    slack = samples - (last - first)
    return (int(rng.integers(slack + 1)) if slack > 0 else slack // 2) - first


def speech_bounds(clip: NDArray[np.float64], decibels: float = SPEECH_DB) -> tuple[int, int]:
    """First and last (exclusive) sample of the frames whose level lies within so many dB of the loudest."""
    power = np.mean(_frames(clip) ** 2, axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-decibels / 10))
    return int(loud[0]) * HOP, min(len(clip), int(loud[-1]) * HOP + FRAME)


def floor_noise(clip: NDArray[np.float64], samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise (samples,) with the mean spectrum of the clip's quietest frames, its level held between `LOWEST_DB` and
    `HIGHEST_DB`."""
    frames = _frames(clip)
    quietest = np.argsort(np.mean(frames**2, axis=1), kind="stable")[: max(1, round(QUIETEST * len(frames)))]
    window = np.hanning(FRAME)
    density = np.mean(np.abs(np.fft.rfft(frames[quietest] * window)) ** 2, axis=0) / np.sum(window**2) + 1e-12
    shape = np.interp(np.linspace(0, 1, samples // 2 + 1), np.linspace(0, 1, FRAME // 2 + 1), np.sqrt(density))
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * shape, samples)
    level = 10 * np.log10(np.mean(noise**2))
    return noise * 10 ** ((np.clip(level, LOWEST_DB, HIGHEST_DB) - level) / 20)


def _frames(clip: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlapping frames (k, FRAME); a clip shorter than one frame is padded with zeros."""
    padded = np.pad(clip, (0, max(0, FRAME - len(clip))))
    return np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
