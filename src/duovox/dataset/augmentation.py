"""Clips as microphones hear them: takes a wave, an item of the plan and settings, gives a wave and what was done. Pure, numpy only.

Everything is drawn from the clip's id and seed, each change from a generator of its own, so that one more changes nothing of the others.
In the order of the air: place in time, room, background, gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.data.noisy import Backgrounds, mix
from duovox.dataset.options import Augmentation
from duovox.dataset.plan import Item
from duovox.dataset.rooms import draw_room, response
from duovox.sound.placing import speech_bounds

Wave = NDArray[np.float32]

SHIFT, ROOM, NOISE, GAIN = range(4)
"""What the generators are for."""

JITTER = 0.2
"""Seconds between the end of a word and that of its window, at most (openWakeWord)."""

FADE = 80
"""Samples over which a word that is cut out rises and falls."""


@dataclass(frozen=True)
class Placed:
    """A wave, the number of its samples that the word takes, and what was done."""

    wave: Wave
    extent: int
    done: dict[str, Any]


def generator(item: Item, stage: int) -> np.random.Generator:
    return np.random.default_rng([item.id, item.seed, stage])


def augment(
    wave: Wave, rate: int, item: Item, settings: Augmentation, backgrounds: Backgrounds | None = None, window: float | None = None
) -> tuple[Wave, dict[str, Any]]:
    """wave (S,) in [-1, 1] at `rate` Hz, changed; at the end of a window of so many seconds, where there is one. What would leave [-1, 1]
    is made softer, by `limited_db`."""
    rng = generator(item, SHIFT)
    placed = end_aligned(wave, round(window * rate), rate, rng) if window else shifted(wave, rate, settings.shift, rng)
    wave, done = placed.wave, dict(placed.done)
    rng = generator(item, ROOM)
    if rng.random() < settings.rooms:
        wave, done["room"] = in_room(wave, rate, rng)
    rng = generator(item, NOISE)
    if backgrounds is not None and rng.random() < settings.noise_share:
        wave, said = before_noise(wave, placed.extent, settings.snr, backgrounds, rng)
        done |= {"noise": said} if said else {}
    if settings.gain:
        decibels = round(float(generator(item, GAIN).uniform(-settings.gain, settings.gain)), 2)
        wave, done["gain_db"] = wave * np.float32(10 ** (decibels / 20)), decibels
    peak = float(np.abs(wave).max())
    if peak > 1:
        wave, done["limited_db"] = wave / np.float32(peak), round(-20 * math.log10(peak), 2)
    return wave.astype(np.float32), done


def shifted(wave: Wave, rate: int, most: float, rng: np.random.Generator) -> Placed:
    """The wave later or earlier by up to `most` milliseconds, silence where nothing is; what leaves the clip is cut."""
    first, last = speech_bounds(wave.astype(np.float64))
    if not most:
        return Placed(wave, last - first, {})
    offset = int(rng.integers(-round(most * rate / 1000), round(most * rate / 1000) + 1))
    moved = np.zeros_like(wave)
    length = max(0, len(wave) - abs(offset))
    moved[max(0, offset) :][:length] = wave[max(0, -offset) :][:length]
    return Placed(moved, last - first, {"shift_ms": round(1000 * offset / rate, 3)})


def end_aligned(wave: Wave, samples: int, rate: int, rng: np.random.Generator) -> Placed:
    """The word cut out of the wave, its end up to `JITTER` seconds before that of a window of silence (samples,)."""
    first, last = speech_bounds(wave.astype(np.float64))
    word = wave[max(first, last - samples) : last].copy()
    ramp = np.linspace(0, 1, min(FADE, len(word)), dtype=np.float32)
    word[: len(ramp)] *= ramp
    word[len(word) - len(ramp) :] *= ramp[::-1]
    end = samples - min(int(rng.integers(round(JITTER * rate) + 1)), samples - len(word))
    window = np.zeros(samples, np.float32)
    window[end - len(word) : end] = word
    return Placed(window, len(word), {"jitter_ms": round(1000 * (samples - end) / rate, 3)})


def in_room(wave: Wave, rate: int, rng: np.random.Generator) -> tuple[Wave, dict[str, Any]]:
    """The wave as a room sounds, as strong as before; the room's tail is cut where the clip ends."""
    room = draw_room(rng)
    impulse = response(room, rate)
    size = len(wave) + len(impulse) - 1
    heard = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(impulse, size), size)[: len(wave)]
    power = float(np.mean(np.square(heard)))
    level = np.sqrt(float(np.mean(np.square(wave, dtype=np.float64))) / power) if power else 1.0
    said = {"edges_m": [round(float(edge), 3) for edge in room.edges], "decay_s": round(room.decay, 3)}
    return (level * heard).astype(np.float32), said


def before_noise(
    wave: Wave, extent: int, snr: tuple[float, float], backgrounds: Backgrounds, rng: np.random.Generator
) -> tuple[Wave, dict[str, Any]]:
    """The wave with a stretch of a recording; the ratio is that of the mean powers over the word's `extent` samples. Nothing is said where
    either is silent: then nothing was done."""
    ratio = round(float(rng.uniform(*snr)), 2)
    which, start = backgrounds.draw(len(wave), rng)
    stretch = backgrounds.waves[which][start : start + len(wave)]
    if not (wave.any() and stretch.any()):
        return wave, {}
    mixed = mix(wave, stretch, ratio - 10 * math.log10(len(wave) / extent))
    return mixed, {"recording": which, "start": start, "snr_db": ratio}
