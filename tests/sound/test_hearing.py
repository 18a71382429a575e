"""hearing.py: which second counts, which channel, and what cannot be heard, on sounds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duovox.contracts import AudioError
from duovox.sound.hearing import LOUDEST, SILENCE, SilentError, Sound, Treatment, fit_length, hear, loudest_start, summary, to_wave

RATE = 8000


def tone(samples: int, level: float = 0.5, hz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(samples) / rate)


def sound(*channels: np.ndarray, rate: float = RATE) -> Sound:
    return Sound(np.stack(channels, axis=1), rate)


@given(length=st.integers(1, 50), wanted=st.integers(0, 60))
def test_fit_length_keeps_the_start_and_adds_zeros(length: int, wanted: int) -> None:
    wave = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit_length(wave, wanted)
    assert fitted.shape == (wanted,) and fitted.dtype == np.float32
    np.testing.assert_array_equal(fitted[:length], wave[:wanted])
    assert not fitted[length:].any()


def test_the_loudest_stretch_is_the_known_one() -> None:
    wave = np.zeros(100, np.float32)
    wave[40:43] = [1, -3, 1]
    wave[80] = 3
    assert loudest_start(wave, 3) == 40
    start = loudest_start(wave, 41)
    assert wave[start : start + 41].sum() == 2  # holds both: 40..80
    assert loudest_start(wave, 100) == loudest_start(wave, 200) == loudest_start(np.zeros(10, np.float32), 4) == 0


@pytest.mark.parametrize("place", [0, 4000, 12000])
def test_a_word_is_heard_wherever_it_lies(place: int) -> None:
    wave = np.concatenate([np.zeros(place), tone(RATE), np.zeros(12000 - place)])
    found = hear(sound(wave), RATE, RATE)
    np.testing.assert_allclose(found.wave, tone(RATE), atol=1e-6)
    assert found.wave.dtype == np.float32
    assert found.treatment == Treatment(RATE, RATE, 1, None, 20000, place, RATE)
    start = f"{place / RATE:.3g} s"
    assert found.treatment.notes() == (f"lasts 2.5 s, the loudest 1 s from {start} on counts",)


def test_a_short_sound_is_padded_at_its_end_and_nothing_is_said() -> None:
    found = hear(sound(tone(3000)), RATE, RATE)
    np.testing.assert_allclose(found.wave[:3000], tone(3000), atol=1e-6)
    assert found.wave.shape == (RATE,) and not found.wave[3000:].any()
    assert found.treatment.kept == 3000 and found.treatment.notes() == ()


def test_another_rate_is_resampled_before_the_second_is_chosen() -> None:
    wave = np.concatenate([np.zeros(32000), tone(16000, rate=16000), np.zeros(800)])
    found = hear(sound(wave, rate=16000), RATE, RATE)
    np.testing.assert_allclose(found.wave[500:-500], tone(RATE)[500:-500], atol=1e-3)
    assert (found.treatment.original_rate, found.treatment.length, found.treatment.start) == (16000, 24400, pytest.approx(16000, abs=5))


@pytest.mark.parametrize(
    ("channels", "wanted", "alone"),
    [
        ([0.6, 0.2], 0.4, None),
        ([0.5, 0.0], 0.25, None),
        ([0.5, -0.25], 0.125, None),
        ([0.5, -0.5], 0.5, 1),
        ([-0.4, 0.5], 0.5, 2),
        ([0.5, -0.5, 0.0], 0.5, 1),
        ([0.5, -0.5, 0.0, 0.1, -0.1, 0.0], 0.5, 1),
        ([0.5, -0.5, 0.3], 0.1, None),
    ],
)
def test_channels_are_averaged_unless_they_cancel(channels: list[float], wanted: float, alone: int | None) -> None:
    found = hear(sound(*(level * tone(RATE, 1.0) for level in channels)), RATE, RATE)
    np.testing.assert_allclose(found.wave, wanted * tone(RATE, 1.0), atol=1e-6)
    assert found.treatment.alone == alone and found.treatment.channels == len(channels)
    assert len(found.treatment.notes()) == (alone is not None)


def test_independent_channels_are_averaged() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, RATE))
    assert hear(sound(*noise), RATE, RATE).treatment.alone is None
    np.testing.assert_allclose(to_wave(sound(*noise), RATE), noise.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("offset", [-0.3, 0.0, 0.3])
def test_a_constant_is_neither_sound_nor_hides_that_channels_cancel(offset: float) -> None:
    with pytest.raises(SilentError, match="is silent"):
        hear(sound(np.full(RATE, offset)), RATE, RATE)
    found = hear(sound(tone(RATE) + offset, offset - tone(RATE)), RATE, RATE)
    assert found.treatment.alone in (1, 2)
    np.testing.assert_allclose(np.abs(found.wave - offset), np.abs(tone(RATE)), atol=1e-6)


def test_silence_is_what_stays_below_a_stated_level() -> None:
    with pytest.raises(SilentError):
        hear(sound(tone(RATE, 0.99 * SILENCE)), RATE, RATE)
    assert hear(sound(tone(RATE, 1.05 * SILENCE)), RATE, RATE).wave.any()
    assert not to_wave(sound(np.zeros(9)), RATE).any()


@pytest.mark.parametrize("level", [1.01 * LOUDEST, 13000.0, 2.0**31])
def test_another_scale_is_refused_and_what_to_do_is_said(level: float) -> None:
    for door in (lambda s: hear(s, RATE, RATE), lambda s: to_wave(s, RATE)):
        with pytest.raises(AudioError, match=r"is on another scale \(its samples reach .*\); scale them to \[-1, 1\]"):
            door(sound(tone(RATE, level, hz=2000)))
    assert hear(sound(tone(RATE, level, hz=2000) / level), RATE, RATE).wave.max() == pytest.approx(1)


def test_an_overshoot_is_clipped() -> None:
    wave = hear(sound(tone(RATE, 1.2)), RATE, RATE).wave
    np.testing.assert_allclose(wave, np.clip(tone(RATE, 1.2), -1, 1), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_is_refused_in_any_channel(bad: float) -> None:
    wave = tone(RATE)
    wave[7] = bad
    with pytest.raises(AudioError, match="holds 1 samples that are not finite"):
        hear(sound(tone(RATE), wave), RATE, RATE)


def test_nothing_and_almost_nothing_are_refused() -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        hear(sound(np.zeros(0)), RATE, RATE)
    with pytest.raises(AudioError, match="shorter than one sample at 8000 Hz"):
        hear(sound(np.ones(1), rate=48000), RATE, RATE)


def test_what_was_done_to_many_is_counted() -> None:
    plain = Treatment(16000, 16000, 1, None, 16000, 0, 16000)
    others = [
        Treatment(44100, 16000, 2, None, 9000, 0, 16000),
        Treatment(44100, 16000, 2, 1, 16001, 1, 16000),
        Treatment(8000, 16000, 1, None, 16000, 0, 16000, broken=True),
    ]
    assert summary([plain, plain]) == () == summary([])
    assert summary([plain, *others]) == (
        "1 clips were resampled from 8000 to 16000 Hz",
        "2 clips were resampled from 44100 to 16000 Hz",
        "1 clips of several channels were averaged",
        "1 clips whose channels cancel were heard by their loudest channel alone",
        "1 clips shorter than 16000 samples were padded with silence at their end",
        "1 clips longer than 16000 samples were cut to their loudest part",
        "1 clips are damaged or break off; what comes before that was taken",
    )
