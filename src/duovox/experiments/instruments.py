"""Instruments that never guide: takes waves, gives their pitch by Praat or pyin, and how like a speaker they are by the verifier."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import ConfigError, DataError
from duovox.data import Features
from duovox.data.features import FULL_SCALE
from duovox.evaluation.verifier import Verifier, clips_by_speaker, equal_error, rank_of

LOWEST, HIGHEST = 75.0, 500.0
"""Hz, between which pitch is looked for."""

ENROLLED = 8
"""Clips that a speaker is known by, at most, beside the reference."""

LEAST_CLIPS = 3
"""Clips that a speaker must have to be wanted or ranked: one to refer to, two to be known by."""


@dataclass(frozen=True)
class PitchMeter:
    """A pitch tracker: its name, and wave (S,) at a rate -> the pitch (Hz) of each voiced frame."""

    name: str
    track: Callable[[NDArray[np.float32], int], NDArray[np.float64]]

    def __call__(self, wave: NDArray[np.float32], rate: int) -> float | None:
        """The median pitch, Hz; None where nothing is voiced."""
        voiced = self.track(wave, rate)
        return float(np.median(voiced)) if len(voiced) else None


def load_pitch_meter() -> PitchMeter:
    """Praat where the package parselmouth is installed, else librosa's pyin. Raises `ConfigError` where neither is."""
    try:
        return PitchMeter("Praat's autocorrelation (parselmouth)", _praat(importlib.import_module("parselmouth")))
    except ImportError:
        pass
    try:
        return PitchMeter("pyin (librosa)", _pyin(importlib.import_module("librosa")))
    except ImportError:
        raise ConfigError("pitch is measured by Praat or pyin: pip install praat-parselmouth, or 'duovox[quality]' for librosa") from None


def _praat(parselmouth: Any) -> Callable[[NDArray[np.float32], int], NDArray[np.float64]]:
    def track(wave: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
        found = parselmouth.Sound(wave.astype(np.float64), rate).to_pitch(0.01, LOWEST, HIGHEST).selected_array["frequency"]
        return np.asarray(found[found > 0], np.float64)

    return track


def _pyin(librosa: Any) -> Callable[[NDArray[np.float32], int], NDArray[np.float64]]:
    def track(wave: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
        found, voiced, _ = librosa.pyin(wave.astype(np.float64), fmin=LOWEST, fmax=HIGHEST, sr=rate)
        return np.asarray(found[voiced], np.float64)

    return track


def semitones(hertz: float, wanted: float) -> float:
    """How far a pitch lies above the one wanted."""
    return 12 * math.log2(hertz / wanted)


@dataclass(frozen=True, eq=False)
class Panel:
    """Speakers of a split, none of whom any network was trained on: the first `wanted` of them have a reference wave each; all have a
    voiceprint of other clips, (K, D). `error` is the verifier's equal error rate on real pairs of them, at the similarity `threshold`;
    `real_rank` the mean rank that a real clip gives its own speaker."""

    names: tuple[str, ...]
    references: tuple[NDArray[np.float32], ...]
    prints: NDArray[np.float32]
    error: float
    threshold: float
    real_rank: float

    @property
    def wanted(self) -> int:
        return len(self.references)

    def rank(self, embedding: NDArray[np.float32], speaker: int) -> int:
        """The place of a speaker among all, by similarity to an embedding (D,)."""
        return rank_of(self.prints @ embedding, speaker)


def gather_panel(features: Features, verifier: Verifier, wanted: int, ranked: int, split: str = "test") -> Panel:
    """The panel of a feature folder: those with the most clips of the split first, by name where they have as many. Raises `DataError`
    for fewer than two speakers of `LEAST_CLIPS` clips."""
    clips = {name: found for name, found in clips_by_speaker(features, split).items() if len(found) >= LEAST_CLIPS}
    names = sorted(clips, key=lambda name: (-min(len(clips[name]), ENROLLED + 1), name))[:ranked]
    if len(names) < 2:
        raise DataError(
            f"speakers are told apart among two at least with {LEAST_CLIPS} clips each in the {split} split; this data has {len(names)}"
        )
    wanted = min(wanted, max(1, len(names) // 2))
    embedded = [verifier.embed(features.waves[clips[name][: ENROLLED + 1]]) for name in names]
    prints = np.stack([unit(each[1:].mean(axis=0)) for each in embedded])
    error, threshold = equal_error(*pairs(embedded))
    ranks = [rank_of(prints @ each[0], number) for number, each in enumerate(embedded)]
    references = tuple(features.waves[clips[name][0]].astype(np.float32) / FULL_SCALE for name in names[:wanted])
    return Panel(tuple(names), references, prints, error, threshold, float(np.mean(ranks)))


def pairs(embedded: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarities of all pairs of clips of one speaker, and of the first clips of two; `embedded` are (n, D) for each speaker."""
    same = [float(each[a] @ each[b]) for each in embedded for a in range(len(each)) for b in range(a)]
    different = [float(one[0] @ other[0]) for number, one in enumerate(embedded) for other in embedded[:number]]
    return np.array(same), np.array(different)


def least_similarity(embeddings: NDArray[np.float32]) -> float:
    """The smallest similarity of any two of embeddings (n > 1, D): all are by one speaker where it is high enough."""
    return float((embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)].min())


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.linalg.norm(vector)
