"""Whether clips fill the space as real ones do: takes a judge's features, gives the share of statistically-different bins to `report`.

NDB of Richardson and Weiss (2018, arXiv 1805.12462, section 3): k-means bins of real features, and for each bin a test whether
clips fall into it as often as real ones. It finds missing modes, which FID may not see. Pure functions on arrays (N, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duovox.contracts import DataError
from duovox.evaluation.metrics import Floats, Integers

BINS = 50
LEVEL = 0.05
FEWEST = 5
"""Clips a bin, on average, below which the test's normal approximation is not to be trusted."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Centres (K, D) and how many of the clips they were fitted to lie nearest to each, (K,)."""

    centres: Floats
    counts: Integers


def enough_for_bins(clips: int, bins: int = BINS) -> bool:
    """Whether so many clips are enough for so many bins."""
    return clips >= FEWEST * bins


def fit_bins(features: ArrayLike, bins: int = BINS, seed: int = 0, iterations: int = 100) -> Bins:
    """K-means (Lloyd 1982) from k-means++ seeds, until no clip changes its bin. Raises `DataError` for fewer clips than bins."""
    x = np.asarray(features, np.float64)
    if len(x) < bins:
        raise DataError(f"{bins} bins need as many clips, got {len(x)}")
    centres = _spread_seeds(x, bins, np.random.default_rng(seed))
    nearest = nearest_bin(x, centres)
    for _ in range(iterations):
        centres = _means(x, nearest, centres)
        before, nearest = nearest, nearest_bin(x, centres)
        if np.array_equal(before, nearest):
            break
    return Bins(centres, np.bincount(nearest, minlength=bins).astype(np.int64))


def nearest_bin(features: ArrayLike, centres: Floats) -> Integers:
    """The bin (N,) whose centre is nearest to each clip."""
    distances = np.square(centres).sum(axis=1) - 2 * np.asarray(features, np.float64) @ centres.T
    return distances.argmin(axis=1).astype(np.int64)


def different_bins(bins: Bins, features: ArrayLike, level: float = LEVEL) -> float:
    """NDB / K: the share of bins that clips (N, D) fall into more or less often than the real ones did, at this level.

    About `level` for independent clips of the same distribution, 1 where every bin differs. It grows with n: compare equal n only.
    """
    counts = np.bincount(nearest_bin(features, bins.centres), minlength=len(bins.counts))
    return float((np.abs(two_proportions(bins.counts, counts)) > NormalDist().inv_cdf(1 - level / 2)).mean())


def two_proportions(one: ArrayLike, other: ArrayLike) -> Floats:
    """z of each bin for counts (K,) of two independent samples, the variance pooled; 0 where a bin holds nothing or everything."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    pooled = (a + b) / (a.sum() + b.sum())
    error = np.sqrt(pooled * (1 - pooled) * (1 / a.sum() + 1 / b.sum()))
    return np.asarray(np.divide(a / a.sum() - b / b.sum(), error, out=np.zeros_like(error), where=error > 0))


def _spread_seeds(x: Floats, bins: int, rng: np.random.Generator) -> Floats:
    """k-means++: each next centre is a clip drawn by its squared distance to the nearest centre so far (Arthur, Vassilvitskii 2007)."""
    chosen = [int(rng.integers(len(x)))]
    squared = np.square(x - x[chosen[0]]).sum(axis=1)
    while len(chosen) < bins:
        total = squared.sum()
        chosen.append(int(rng.choice(len(x), p=squared / total if total > 0 else None)))
        squared = np.minimum(squared, np.square(x - x[chosen[-1]]).sum(axis=1))
    return x[chosen]


def _means(x: Floats, nearest: NDArray[np.int64], centres: Floats) -> Floats:
    """The mean of each bin's clips; the centre stays where a bin is empty."""
    moved = centres.copy()
    for index in np.unique(nearest):
        moved[index] = x[nearest == index].mean(axis=0)
    return moved
