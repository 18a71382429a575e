"""Recordings that stand in two splits though they are one: takes log-mels and waves of all clips, gives pairs to `decoding`.

Copies that were coded again, made louder or quieter, or shifted in time are found; two takes of a word are none. Of each clip held
out the likeliest clips of another split are looked up by a fingerprint, and then compared as waves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.text import named

BANDS, RATES = 16, 16
"""Bands of the mel, and rates of change in each: a fingerprint is the size of the change of each band at each rate, whenever it happens."""

DEPTH = 4.0
"""Of a log-mel what lies less than this (35 dB) below its loudest value counts: noise and codecs change the rest."""

LIKELY = 0.95
"""Fingerprints of a smaller cosine are of different recordings. Of 60 clips coded again, shifted or with noise none was below 0.968, and
none was less like its original than like another clip."""

SAME = 0.9
"""Waves whose cross-correlation reaches this, at some shift, are one recording. Two takes by one speaker reached 0.84."""

_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
_CHUNK = 1024


@dataclass(frozen=True)
class Pair:
    """Two clips, by their numbers, that are one recording; `held` is the one in test, or in validation."""

    held: int
    other: int


def near_duplicates(log_mels: NDArray[Any], waves: NDArray[np.int16], splits: Sequence[str]) -> tuple[Pair, ...]:
    """The pairs among clips with log-mels (N, M, T) and waves (N, S) that stand in different splits; at most one for each clip that is
    held out, and pair of splits."""
    prints, split = fingerprints(log_mels), np.array(splits)
    pairs: list[Pair] = []
    for held, other in _PAIRS:
        queries, known = np.flatnonzero(split == held), np.flatnonzero(split == other)
        for start in range(0, len(queries) if len(known) else 0, _CHUNK):
            chunk = queries[start : start + _CHUNK]
            likeness = prints[chunk] @ prints[known].T
            best = likeness.argmax(axis=1)
            likely = np.flatnonzero(likeness.max(axis=1) >= LIKELY)
            candidates = [Pair(int(chunk[row]), int(known[best[row]])) for row in likely]
            pairs += [pair for pair in candidates if correlation(waves[pair.held], waves[pair.other]) >= SAME]
    return tuple(sorted(pairs, key=lambda pair: (pair.held, pair.other)))


def fingerprints(log_mels: NDArray[Any]) -> NDArray[np.float32]:
    """Of each log-mel (N, M, T) a vector of length 1 (N, BANDS * RATES), the same at any loudness and, but for its ends, any shift."""
    chunks = [_fingerprints(log_mels[start : start + _CHUNK]) for start in range(0, len(log_mels), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, BANDS * RATES), np.float32)


def _fingerprints(log_mels: NDArray[Any]) -> NDArray[np.float32]:
    loud = np.maximum(log_mels, log_mels.max(axis=(1, 2), keepdims=True) - DEPTH).astype(np.float32)
    bands = np.stack([band.mean(axis=1) for band in np.array_split(loud, min(BANDS, loud.shape[1]), axis=1)], axis=1)
    changes = np.abs(np.fft.rfft(bands - bands.mean(axis=2, keepdims=True), axis=2))[:, :, 1 : RATES + 1]
    flat = changes.reshape(len(changes), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(lengths, 1e-9), dtype=np.float32)


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest normalised cross-correlation of two waves (S,) over all shifts, of either sign; 0 for silence."""
    size = 2 * max(len(one), len(other))
    spectra = [np.fft.rfft(wave - np.mean(wave, dtype=np.float64), size) for wave in (one, other)]
    powers = [float(np.sum(np.square(wave - np.mean(wave, dtype=np.float64)))) for wave in (one, other)]
    if not all(powers):
        return 0.0
    return float(np.abs(np.fft.irfft(spectra[0] * np.conj(spectra[1]), size)).max() / (powers[0] * powers[1]) ** 0.5)


def duplicate_note(pairs: Sequence[Pair], names: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    """How many clips held out are also in another split, and the first few; nothing where there are none."""
    if not pairs:
        return ()
    first = [f"{names[pair.held]} in {splits[pair.held]} is {names[pair.other]} in {splits[pair.other]}" for pair in pairs]
    return (f"{len(pairs)} clips held out are nearly the same as one of another split: {named(first)}",)
