"""What probabilities and features are worth: takes a judge's scores, gives figures to `report`. Pure functions on arrays.

Probabilities are (N, K), rows summing to 1; features are (N, D); labels are (N,) integers. Computed in float64.
The inception scores and AM are defined as they are used for SC09 since DiffWave (Kong et al. 2021, arXiv 2009.09761).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duovox.contracts import DataError, ShapeError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ROWS = 512  # of a table of distances held at a time
_TINY = 1e-38  # the smallest float32: a softmax below it is 0 and would give an infinite divergence


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Floats
    covariance: Floats


def fit_gaussian(features: ArrayLike) -> Gaussian:
    """Mean and unbiased covariance of features (N, D). Raises `DataError` for fewer than two rows."""
    x = _matrix(features)
    if len(x) < 2:
        raise DataError(f"a covariance needs at least 2 clips, got {len(x)}")
    return Gaussian(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    The trace of the root is the sum of the singular values of A^(1/2) B^(1/2), which stays real and finite for singular
    covariances. Raises `ShapeError` where the dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError(f"features of {a.mean.size} and {b.mean.size} dimensions cannot be compared")
    root = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root
    return max(0.0, float(distance))


def mean_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Mean over the rows of KL(p || q) in nats; `q` is (K,) or (N, K)."""
    p64, q64 = np.asarray(p, np.float64), np.asarray(q, np.float64)
    logs = np.log(np.maximum(p64, _TINY)) - np.log(np.maximum(q64, _TINY))
    return float((p64 * logs).sum(axis=-1).mean())


def inception_score(probabilities: ArrayLike, seed: int = 0, repeats: int = 10) -> float:
    """exp E KL(p(y|x) || p(y)), p(y) being the mean of the other half; mean over both halves of `repeats` random halvings.

    1 where all predictions agree, K for K equally frequent certain labels (Salimans et al. 2016, arXiv 1606.03498).
    Raises `DataError` for fewer than two clips.
    """
    p = _several(probabilities)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        one, two = np.array_split(rng.permutation(len(p)), 2)
        values += [mean_divergence(p[one], p[two].mean(axis=0)), mean_divergence(p[two], p[one].mean(axis=0))]
    return float(np.exp(values).mean())


def modified_inception_score(probabilities: ArrayLike, seed: int = 0, pairs: int = 10_000) -> float:
    """exp E KL(p(y|x_i) || p(y|x_j)) over random pairs of different clips (Gurumurthy et al. 2017, arXiv 1706.02071, section 4).

    Raises `DataError` for fewer than two clips.
    """
    p = _several(probabilities)
    rng = np.random.default_rng(seed)
    i = rng.integers(len(p), size=pairs)
    j = (i + rng.integers(1, len(p), size=pairs)) % len(p)
    logs = np.log(np.maximum(p, _TINY))
    return float(np.exp((p[i] * (logs[i] - logs[j])).sum(axis=1).mean()))


def am_score(probabilities: ArrayLike, train_probabilities: ArrayLike) -> float:
    """KL(mean train p || mean generated p) + mean entropy of the generated p (Zhou et al. 2018, arXiv 1703.02000); 0 is best."""
    p, train = _matrix(probabilities), _matrix(train_probabilities)
    entropy = -float((p * np.log(np.maximum(p, _TINY))).sum(axis=1).mean())
    return mean_divergence(train.mean(axis=0), p.mean(axis=0)) + entropy


def label_accuracy(probabilities: ArrayLike, label: ArrayLike) -> float:
    """Share of clips whose most probable label is the wanted one."""
    return float(_hits(probabilities, label).mean())


def confusion(probabilities: ArrayLike, label: ArrayLike) -> Integers:
    """Counts (K, K): row the wanted label, column the judge's."""
    p, wanted = _matrix(probabilities), _labels(label, probabilities)
    table = np.zeros((p.shape[1], p.shape[1]), np.int64)
    np.add.at(table, (wanted, p.argmax(axis=1)), 1)
    return table


def histogram(probabilities: ArrayLike) -> Integers:
    """How many clips have each label as their most probable one, (K,)."""
    p = _matrix(probabilities)
    return np.bincount(p.argmax(axis=1), minlength=p.shape[1]).astype(np.int64)


def mean_confidence(probabilities: ArrayLike) -> float:
    """Mean of the largest probability of each clip."""
    return float(_matrix(probabilities).max(axis=1).mean())


def nearest_distances(queries: ArrayLike, references: ArrayLike, leave_out: ArrayLike | None = None) -> Floats:
    """Euclidean distance (N,) of each query (N, D) to the nearest reference (M, D).

    `leave_out` (N,) names one reference per query that does not count: the query itself where it is among the references.
    """
    q, r = _matrix(queries), _matrix(references)
    if leave_out is not None and len(r) < 2:
        raise DataError("a nearest neighbour needs at least two clips")
    nearest = np.empty(len(q), np.int64)
    for start in range(0, len(q), _ROWS):
        rows = slice(start, start + _ROWS)
        squared = np.square(r).sum(axis=1) - 2 * q[rows] @ r.T
        if leave_out is not None:
            squared[np.arange(len(squared)), np.asarray(leave_out)[rows]] = np.inf
        nearest[rows] = squared.argmin(axis=1)
    distances: Floats = np.sqrt(np.square(q - r[nearest]).sum(axis=1))
    return distances


def nearest_within_label(features: ArrayLike, label: ArrayLike) -> Floats:
    """Distance of each clip to the nearest other clip of its label: small where a model repeats itself.

    Clips that are alone in their label have none and are left out, so fewer than N values may come back.
    """
    x, groups = _matrix(features), np.asarray(label)
    parts = [x[groups == group] for group in np.unique(groups)]
    distances = [nearest_distances(part, part, np.arange(len(part))) for part in parts if len(part) > 1]
    return np.concatenate(distances) if distances else np.zeros(0)


def mean(values: NDArray[Any]) -> float:
    """Their mean, as a plain float."""
    return float(values.mean())


def bootstrap_interval(
    values: ArrayLike, statistic: Callable[[NDArray[Any]], float] = mean, level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic` over the first axis of `values` (Efron 1979), drawn with replacement."""
    x = np.asarray(values)
    if not 0 < level < 1 or len(x) == 0:
        raise DataError(f"a bootstrap needs values and a level between 0 and 1, got {len(x)} and {level}")
    rng = np.random.default_rng(seed)
    drawn = [statistic(x[rng.integers(len(x), size=len(x))]) for _ in range(repeats)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927), which keeps its width where all or none hit: a bootstrap would have none there."""
    if not 0 < level < 1 or not 0 <= hits <= trials or trials < 1:
        raise DataError(f"a proportion needs hits among trials and a level between 0 and 1, got {hits} of {trials} and {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = float(np.sqrt(share * (1 - share) * spread + spread * spread / 4)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a positive (P,) is larger than a negative (N,), a tie counting half."""
    above, below = np.asarray(positives, np.float64), np.sort(np.asarray(negatives, np.float64))
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / (2 * len(below)))


def halves_deviation(values: NDArray[Any], statistic: Callable[[NDArray[Any]], float], seed: int = 0, repeats: int = 5) -> float:
    """Standard deviation of `statistic` over samples of n values, from its differences between the disjoint halves of a sample.

    Root mean square of half the difference over `repeats` random halvings. For a statistic that depends on n (FID), where a bootstrap
    would centre on the wrong value, both halves are off by the same; the deviation says nothing of how far. It takes the scatter to
    fall with the root of n; FID's falls faster where it is small, so there this is up to the root of 2 too large.
    """
    rng = np.random.default_rng(seed)
    half = len(values) // 2
    differences = []
    for _ in range(repeats):
        order = rng.permutation(len(values))
        differences.append(statistic(values[order[:half]]) - statistic(values[order[half : 2 * half]]))
    return float(np.sqrt(np.square(differences).mean()) / 2)


def _root(covariance: Floats) -> Floats:
    """The symmetric square root of a covariance; rounding may make eigenvalues slightly negative, which count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _matrix(values: ArrayLike) -> Floats:
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or x.size == 0:
        raise ShapeError(f"expected an array of shape (N > 0, columns > 0), got {x.shape}")
    return x


def _several(probabilities: ArrayLike) -> Floats:
    p = _matrix(probabilities)
    if len(p) < 2:
        raise DataError(f"inception scores compare clips with each other and need at least 2, got {len(p)}")
    return p


def _labels(label: ArrayLike, probabilities: ArrayLike) -> Integers:
    p, wanted = _matrix(probabilities), np.asarray(label, np.int64)
    if wanted.shape != (len(p),) or wanted.min() < 0 or wanted.max() >= p.shape[1]:
        raise ShapeError(f"expected {len(p)} labels between 0 and {p.shape[1] - 1}, got shape {wanted.shape}")
    return wanted


def _hits(probabilities: ArrayLike, label: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(_matrix(probabilities).argmax(axis=1) == _labels(label, probabilities))
