"""sound/placing.py: a word is put whole somewhere in its clip, and what fills the rest is like its own floor."""

from __future__ import annotations

import numpy as np
import pytest

from duovox.sound.placing import FADE, HIGHEST_DB, LOWEST_DB, draw_start, floor_noise, place, speech_bounds

SAMPLES = 16000


def word(first: int, last: int, length: int, floor: float = 0.0) -> np.ndarray:
    """A clip (length,) with a tone in first..last and white noise of RMS `floor` all over."""
    clip = np.random.default_rng(0).normal(0, 1, length) * floor
    clip[first:last] += 0.5 * np.sin(2 * np.pi * 440 * np.arange(last - first) / SAMPLES)
    return clip


def decibels(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64))))


def test_the_bounds_of_a_word_are_those_of_its_loud_frames() -> None:
    first, last = speech_bounds(word(2560, 7680, 10240))
    assert 2560 - 512 < first <= 2560 and 7680 <= last < 7680 + 512


def test_the_place_is_drawn_evenly_from_those_where_the_word_is_whole() -> None:
    rng = np.random.default_rng(1)
    starts = np.array([draw_start(1000, 5000, SAMPLES, rng) for _ in range(4000)])
    assert starts.min() >= -1000 and starts.max() <= SAMPLES - 5000
    assert np.mean(starts + 1000) == pytest.approx(6000, abs=200) and np.std(starts) == pytest.approx(12000 / 12**0.5, rel=0.03)


@pytest.mark.parametrize(("first", "last"), [(0, SAMPLES), (1000, SAMPLES + 1000), (0, SAMPLES + 400)])
def test_a_word_without_slack_is_centred(first: int, last: int) -> None:
    start = draw_start(first, last, SAMPLES, np.random.default_rng(0))
    assert start + first == (SAMPLES - (last - first)) // 2


def test_the_word_itself_is_unchanged_wherever_it_stands() -> None:
    clip = word(FADE, 8000 - FADE, 8000)
    starts = set()
    for name in ("no/a", "no/b", "no/c"):
        placed = place(clip, SAMPLES, name)
        lag = int(np.argmax(np.correlate(placed.astype(np.float64), clip, "valid")))
        np.testing.assert_allclose(placed[lag + FADE : lag + 8000 - FADE], clip[FADE:-FADE], atol=1e-6)
        starts.add(lag)
    assert len(starts) == 3


def test_the_same_name_gives_the_same_sound_and_another_another() -> None:
    clip = word(0, 8000, 8000)
    assert np.array_equal(place(clip, SAMPLES, "no/a"), place(clip, SAMPLES, "no/a"))
    assert not np.array_equal(place(clip, SAMPLES, "no/a"), place(clip, SAMPLES, "yes/a"))
    assert place(clip, SAMPLES, "no/a").dtype == np.float32 and place(clip, SAMPLES, "no/\udcff").shape == (SAMPLES,)


@pytest.mark.parametrize(("floor", "level"), [(0.0, LOWEST_DB), (10 ** (-68 / 20), -68), (0.1, HIGHEST_DB)])
def test_the_filling_has_the_level_of_the_clips_floor_within_bounds(floor: float, level: float) -> None:
    noise = floor_noise(word(2000, 6000, 10000, floor), SAMPLES, np.random.default_rng(2))
    assert decibels(noise) == pytest.approx(level, abs=1.0 if LOWEST_DB < level < HIGHEST_DB else 1e-6)


def test_the_filling_has_the_spectrum_of_the_clips_floor() -> None:
    """A floor below 2 kHz: hardly anything of the filling lies above."""
    rng = np.random.default_rng(3)
    spectrum = np.fft.rfft(rng.normal(0, 1e-3, 12000))
    spectrum[len(spectrum) // 4 :] = 0
    clip = np.fft.irfft(spectrum, 12000)
    clip[4000:8000] += word(0, 4000, 4000)
    power = np.abs(np.fft.rfft(floor_noise(clip, SAMPLES, rng))) ** 2
    assert power[len(power) * 3 // 10 :].sum() < 0.01 * power.sum()


def test_a_clip_shorter_than_a_frame_is_placed() -> None:
    placed = place(0.5 * np.ones(100), SAMPLES, "no/click")
    assert placed.shape == (SAMPLES,) and np.abs(placed).max() == pytest.approx(0.5 * (50 / (FADE + 1)) ** 0.5, rel=0.02)
