"""data/duplicates.py: one recording in two splits is found however it was changed; two takes are two."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
from making import MEL, RATE

from duovox.data.duplicates import Pair, correlation, duplicate_note, fingerprints, near_duplicates
from duovox.sound.mel import LogMel


def take(seed: int, word: int = 0) -> np.ndarray:
    """A gliding, shaped sound (S,) with noise: takes of one word have the same course, but no wave in common."""
    rng = np.random.default_rng([word, seed])
    course = np.random.default_rng(word).uniform(300, 2500, 6)
    pitch = np.interp(np.arange(8000), np.linspace(0, 8000, 6), course * rng.uniform(0.9, 1.1, 6))
    wave = 0.3 * np.hanning(8000) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE + rng.uniform(0, 6))
    return np.pad(wave, (3000, 5000)) + rng.normal(0, 0.002, RATE)


CHANGES = {
    "itself": lambda wave: wave,
    "quieter": lambda wave: 0.2 * wave,
    "turned over": lambda wave: -wave,
    "shifted": lambda wave: np.roll(wave, 2500),
    "at 8 kHz and back": lambda wave: soxr.resample(soxr.resample(wave, 16000, 8000), 8000, 16000),
    "in noise": lambda wave: wave + np.random.default_rng(9).normal(0, 0.005, RATE),
    "at 8 bits": lambda wave: np.round(wave * 127) / 127,
}


def as_data(*waves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stacked = np.round(np.stack(waves) * 2**15).astype(np.int16)
    return LogMel(MEL)(torch.from_numpy(stacked.astype(np.float32) / 2**15))[:, 0].half().numpy(), stacked


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_in_another_split_is_found(change: str) -> None:
    waves = [take(seed, word) for word in range(3) for seed in range(4)]
    data = as_data(*waves, CHANGES[change](waves[5]))
    assert near_duplicates(*data, ["train"] * 12 + ["test"]) == (Pair(12, 5),)
    assert near_duplicates(*data, ["validation"] * 12 + ["test"]) == (Pair(12, 5),)
    assert near_duplicates(*data, ["train"] * 13) == (), "in one split it may stand twice"


def test_takes_of_one_word_are_different_recordings() -> None:
    data = as_data(*[take(seed) for seed in range(20)])
    assert near_duplicates(*data, ["train", "test"] * 10) == ()


def test_fingerprints_have_length_one_and_do_not_know_loudness() -> None:
    loud, quiet = fingerprints(as_data(take(0), 0.5 * take(0))[0])
    assert np.linalg.norm(loud) == pytest.approx(1, abs=1e-5) and loud @ quiet > 0.99


def test_correlation_of_known_waves() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (2, 4000))
    assert correlation(noise[0], -3 * noise[0]) == pytest.approx(1) and correlation(noise[0], noise[1]) < 0.1
    assert correlation(noise[0], noise[0] + noise[1]) == pytest.approx(0.5**0.5, abs=0.03)
    assert correlation(np.zeros(9), noise[0][:9]) == 0


def test_the_note_counts_them_and_names_the_first() -> None:
    assert duplicate_note((), [], []) == ()
    (note,) = duplicate_note((Pair(1, 0),), ["no/a.wav", "no/b.wav"], ["train", "test"])
    assert note == "1 clips held out are nearly the same as one of another split: no/b.wav in test is no/a.wav in train"
