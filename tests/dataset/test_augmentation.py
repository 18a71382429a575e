"""dataset/augmentation.py and rooms.py: drawn from id and seed alone, and each change as large as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duovox.contracts import ConfigError
from duovox.data.noisy import Backgrounds
from duovox.dataset.augmentation import JITTER, augment
from duovox.dataset.options import Augmentation
from duovox.dataset.plan import Item
from duovox.dataset.rooms import Room, draw_room, response
from duovox.sound.placing import speech_bounds

RATE = 16000
ITEMS = [Item(id, 0, 1000 + id) for id in range(40)]
BACKGROUNDS = Backgrounds((np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32),), "digest")


def word(quiet: float = 0.3) -> np.ndarray:
    """A second with a tone from 0.3 s on, for 0.4 s, before silence."""
    wave = np.zeros(RATE, np.float32)
    wave[int(quiet * RATE) :][: int(0.4 * RATE)] = 0.1 * np.sin(2 * np.pi * 440 * np.arange(int(0.4 * RATE)) / RATE)
    return wave


def power(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def test_nothing_asked_for_changes_nothing() -> None:
    wave, done = augment(word(), RATE, ITEMS[0], Augmentation())
    assert np.array_equal(wave, word()) and done == {}


def test_it_is_a_function_of_id_and_seed_and_one_change_does_not_move_another() -> None:
    every = Augmentation(rooms=1.0, gain=6.0, shift=100.0)
    one, story = augment(word(), RATE, ITEMS[3], every, BACKGROUNDS)
    again, told = augment(word(), RATE, ITEMS[3], every, BACKGROUNDS)
    assert np.array_equal(one, again) and story == told and story.keys() == {"shift_ms", "room", "noise", "gain_db"}
    for other in (ITEMS[3]._replace(id=4), ITEMS[3]._replace(seed=4)):
        assert augment(word(), RATE, other, every, BACKGROUNDS)[1]["shift_ms"] != story["shift_ms"]
    assert augment(word(), RATE, ITEMS[3], replace(every, rooms=0.0), BACKGROUNDS)[1] == {k: v for k, v in story.items() if k != "room"}


def test_shift_and_gain_are_what_they_say() -> None:
    for item in ITEMS:
        moved, done = augment(word(), RATE, item, Augmentation(shift=100.0))
        offset = round(done["shift_ms"] * RATE / 1000)
        assert abs(done["shift_ms"]) <= 100 and np.array_equal(np.flatnonzero(moved), np.flatnonzero(word()) + offset)
        louder, done = augment(word(), RATE, item, Augmentation(gain=6.0))
        assert abs(done["gain_db"]) <= 6 and 10 * np.log10(power(louder) / power(word())) == pytest.approx(done["gain_db"], abs=1e-3)
    limited, done = augment(20 * word(), RATE, ITEMS[0], Augmentation())
    assert np.abs(limited).max() == pytest.approx(1) and done == {"limited_db": pytest.approx(-6.02, abs=0.01)}
    for item in ITEMS:
        loud, done = augment(9 * word(), RATE, item, Augmentation(gain=12.0))
        said = done["gain_db"] + done.get("limited_db", 0)
        assert 10 * np.log10(power(loud) / power(9 * word())) == pytest.approx(said, abs=0.02)


@pytest.mark.parametrize("window", [None, 2.0])
def test_noise_has_the_ratio_it_says_to_the_word(window: float | None) -> None:
    ratios = []
    for item in ITEMS:
        clean, _ = augment(word(), RATE, item, Augmentation(), None, window)
        noisy, done = augment(word(), RATE, item, Augmentation(noise=Path("noise"), snr=(0.0, 20.0)), BACKGROUNDS, window)
        said = done["noise"]
        first, last = speech_bounds(word().astype(np.float64))
        speech = float(np.sum(np.square(clean, dtype=np.float64))) / (last - first)
        assert 10 * np.log10(speech / power(noisy - clean)) == pytest.approx(said["snr_db"], abs=0.02)
        start = said["start"]
        stretch = BACKGROUNDS.waves[said["recording"]][start : start + len(noisy)]
        assert np.corrcoef(noisy - clean, stretch)[0, 1] > 0.999
        ratios.append(said["snr_db"])
    assert min(ratios) < 4 and max(ratios) > 16


def test_shares_of_clips_have_a_room_and_a_background() -> None:
    done = [augment(word(), RATE, item, Augmentation(rooms=0.5, noise=Path("noise"), noise_share=0.25), BACKGROUNDS)[1] for item in ITEMS]
    assert 10 <= sum("room" in one for one in done) <= 30 and 3 <= sum("noise" in one for one in done) <= 18


def test_noise_that_is_silence_is_not_on_record() -> None:
    silence = Backgrounds((np.zeros(2 * RATE, np.float32),), "digest")
    wave, done = augment(word(), RATE, ITEMS[0], Augmentation(), silence)
    assert np.array_equal(wave, word()) and done == {}


def test_a_window_ends_behind_the_word_by_the_jitter() -> None:
    jitters = []
    for item in ITEMS:
        window, done = augment(word(quiet=0.1), RATE, item, Augmentation(), None, 2.0)
        last = np.flatnonzero(np.abs(window) > 0.02)[-1]
        assert window.shape == (2 * RATE,) and 0 <= done["jitter_ms"] <= 1000 * JITTER
        assert last / RATE == pytest.approx(2.0 - done["jitter_ms"] / 1000, abs=0.04), "up to a frame of quiet belongs to the word"
        jitters.append(done["jitter_ms"])
    assert min(jitters) < 40 and max(jitters) > 160


def test_a_word_longer_than_the_window_fills_it() -> None:
    window, done = augment(np.tile(word(), 3)[: 3 * RATE], RATE, ITEMS[0], Augmentation(), None, 2.0)
    assert window.shape == (2 * RATE,) and done == {"jitter_ms": 0.0}


def test_a_room_begins_with_the_direct_sound_and_decays_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        room = replace(draw_room(rng), decay=0.3)
        impulse = response(room, RATE)
        assert impulse[0] == pytest.approx(1, abs=0.3) and impulse.max() < 3
        energy = np.cumsum(impulse[::-1] ** 2)[::-1]
        decibels = 10 * np.log10(energy / energy[0])
        early, late = (np.argmax(decibels < level) for level in (-5, -20))
        assert 60 / 15 * (late - early) / RATE == pytest.approx(0.3, rel=0.5), "Schroeder's integral; Sabine's formula is rough"


def test_the_first_reflection_of_a_known_room_comes_when_it_must() -> None:
    """One wall near, all others far: the image lies behind it."""
    room = Room(np.array([50.0, 50.0, 50.0]), np.array([1.0, 25.0, 25.0]), np.array([2.0, 25.0, 25.0]), 0.15)
    impulse = response(room, RATE)
    delays = np.flatnonzero(impulse)
    assert delays[0] == 0 and delays[1] == round(2.0 / 343.0 * RATE), "3 m over the wall, 1 m directly"
    assert impulse[delays[1]] == pytest.approx(room.reflection / 3)


def test_a_room_makes_nothing_louder() -> None:
    for item in ITEMS[:8]:
        heard, done = augment(word(), RATE, item, Augmentation(rooms=1.0))
        assert power(heard) == pytest.approx(power(word()), rel=1e-3) and done["room"]["decay_s"] <= 0.35


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rooms": 1.5}, "--rooms is a share, from 0 to 1, not 1.5"),
        ({"noise_share": -0.1}, "--noise-share is a share"),
        ({"gain": -1.0}, "--gain must lie between 0 and 100 dB, not -1"),
        ({"gain": 1e9}, "--gain must lie between 0 and 100 dB"),
        ({"shift": float("nan")}, "--shift must lie between 0 and 1000 ms, not nan"),
        ({"snr": (10.0, 0.0)}, "--snr must be two levels, the lower first, between -100 and 100 dB, not 10 0"),
        ({"snr": (5000.0, 9000.0)}, "--snr must be two levels"),
        ({"snr": (float("nan"), 0.0)}, "--snr must be two levels"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(noise=Path("noise"), **given)  # type: ignore[arg-type]


def test_what_is_for_noise_is_refused_without_any() -> None:
    for given in ({"snr": (0.0, 10.0)}, {"noise_share": 0.5}):
        with pytest.raises(ConfigError, match="--snr and --noise-share are for noise; give a folder of it with --noise"):
            Augmentation(**given)  # type: ignore[arg-type]
