"""instruments.py: the pitch of known tones, speakers told apart by known voiceprints."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from duovox.contracts import ConfigError, DataError
from duovox.data import open_features
from duovox.evaluation.verifier import Verifier
from duovox.experiments.instruments import gather_panel, least_similarity, load_pitch_meter, pairs, semitones

RATE = 16000


def voiced(hertz: float) -> np.ndarray:
    time = np.arange(RATE) / RATE
    return sum(0.1 * np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 9)).astype(np.float32)  # type: ignore[union-attr]


@pytest.mark.parametrize("without", [(), ("parselmouth",)])
def test_the_pitch_of_a_tone(without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in without or ("parselmouth",):
        pytest.importorskip("librosa" if without else name)
    for name in without:
        monkeypatch.setitem(sys.modules, name, None)
    meter = load_pitch_meter()
    assert ("Praat" in meter.name) == (not without)
    for hertz in (110.0, 233.0):
        found = meter(voiced(hertz), RATE)
        assert found is not None and abs(semitones(found, hertz)) < 0.2
    assert meter(np.zeros(RATE, np.float32), RATE) is None


def test_without_a_pitch_tracker_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parselmouth", "librosa"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="pip install praat-parselmouth"):
        load_pitch_meter()


def test_semitones() -> None:
    assert semitones(220.0, 110.0) == 12.0 and semitones(110.0, 220.0) == -12.0 and semitones(98.0, 98.0) == 0.0


class KnownVerifier:
    """Clip number i has the embedding `rows[i]`: what a clip is, it says in its first sample."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def embed(self, waves: np.ndarray) -> np.ndarray:
        return self.rows[waves[:, 0].astype(int)]


def features(speakers: int, clips: int) -> Any:
    count = speakers * clips
    waves = np.zeros((count, 10), np.int16)
    waves[:, 0] = np.arange(count)
    names = tuple(f"s{number // clips}" for number in range(count))
    return SimpleNamespace(waves=waves, speakers=names, indices=lambda split: np.arange(count) if split == "test" else np.arange(0))


def test_a_panel_of_speakers_who_are_directions() -> None:
    rows = np.repeat(np.eye(4, 6, dtype=np.float32), 5, axis=0)
    panel = gather_panel(features(4, 5), cast(Verifier, KnownVerifier(rows)), wanted=3, ranked=4)
    assert (panel.wanted, len(panel.names), panel.error, panel.real_rank) == (2, 4, 0.0, 1.0)  # half of them at most are wanted
    assert panel.rank(np.array([0, 0.5, 0.9, 0.1, 0, 0], np.float32), 1) == 2
    assert panel.rank(np.array([0.3, 0.2, 0.1, 0.4, 0, 0], np.float32), 2) == 4
    assert [reference[0] * 2**15 for reference in panel.references] == [0, 5], "the first clip of each wanted speaker"


def test_pairs_and_the_least_similarity() -> None:
    a, b = np.array([[1, 0], [0.6, 0.8]], np.float32), np.array([[0, 1], [0, 1]], np.float32)
    same, different = pairs([a, b])
    assert same.tolist() == pytest.approx([0.6, 1.0]) and different.tolist() == [0.0]
    assert least_similarity(np.concatenate([a, b])) == 0.0 and least_similarity(a) == pytest.approx(0.6)


def test_too_few_speakers_are_refused(tiny_features: Path) -> None:
    with pytest.raises(DataError, match="among two at least with 3 clips each in the test split; this data has 0"):
        gather_panel(features(4, 2), cast(Verifier, KnownVerifier(np.eye(8, dtype=np.float32))), 2, 4)
    assert len(open_features(tiny_features).indices("test")) == 6
