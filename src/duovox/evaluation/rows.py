"""The figures of one set of clips: takes a judge's scores and the reference, gives a `Row` to `report`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError
from duovox.evaluation import metrics
from duovox.evaluation.bins import different_bins, enough_for_bins
from duovox.evaluation.cas import AccuracyScore, CasConfig
from duovox.evaluation.judge import CLIP_SAMPLES, Scores, as_floats
from duovox.evaluation.quality import Quality
from duovox.evaluation.reference import Reference
from duovox.sound.hearing import fit_length

RESAMPLES = 200
"""Resamples of a bootstrap interval."""

FEWEST_TO_RESAMPLE = 50
"""Clips below which IS, mIS and AM, which compare clips with each other, have no interval: a resample's twins would distort them."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """The figures of one set of n clips; None where a figure cannot be had.

    `nearest_train` and `nearest_own` are medians of the distance, in the judge's features, to the nearest clip of the train
    split and to the nearest other clip of the same label in this set: both small where a model repeats what it knows. Intervals are
    95 %: Wilson's for accuracy, else percentiles of a bootstrap over clips (those of AM lie somewhat high, as AM itself does for few
    clips). FID has none, since a resample's FID is too high; `fid_deviation` (from disjoint halves) is how far another sample of n
    would scatter, on the safe side, and says nothing of the bias that n brings. `cas` is the mean over its training seeds.
    """

    system: str
    n: int
    fid: float | None
    inception: float
    modified_inception: float
    am: float
    accuracy: float | None
    accuracy_interval: Interval | None
    accuracy_by_label: dict[str, float]
    confidence: float
    nearest_train: float
    nearest_own: float | None
    histogram: dict[str, int]
    confusion: dict[str, dict[str, int]]
    fid_deviation: float | None = None
    ndb: float | None = None
    inception_interval: Interval | None = None
    modified_inception_interval: Interval | None = None
    am_interval: Interval | None = None
    quality: float | None = None
    quality_interval: Interval | None = None
    cas: float | None = None
    cas_by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scoring:
    """How clips are scored.

    `limit` takes that many clips at random, `seed` is that of every random choice; with `fid` false FID is left out and two clips are
    enough; `quality` adds a column, `cas` another; `resamples` 0 leaves bootstrap intervals out. `command` is quoted in the report.
    """

    limit: int | None = None
    seed: int = 0
    fid: bool = True
    quality: Quality | None = None
    resamples: int = RESAMPLES
    cas: CasConfig | None = None
    command: str = ""


@dataclass(frozen=True, eq=False)
class Measures:
    """How the rows of one report are computed: for these labels, against this reference."""

    labels: Sequence[str]
    reference: Reference
    scoring: Scoring
    cas: AccuracyScore | None = None

    def row(
        self,
        system: str,
        scores: Scores,
        waves: NDArray[np.generic],
        meant: NDArray[np.int64],
        itself: NDArray[np.int64] | None = None,
    ) -> Row:
        """All figures of one set. `meant` (N,) is -1 for no label; `itself` says where the clips stand in the train split, if they do."""
        p, x, train = scores.probabilities, scores.features, self.reference.scores
        heard, known = p.argmax(axis=1), np.flatnonzero(meant >= 0)
        right = heard[known] == meant[known]
        table = metrics.confusion(p[known], meant[known]) if len(known) else np.zeros((0, 0), np.int64)
        own = metrics.nearest_within_label(x, np.where(meant >= 0, meant, heard))
        bare = Row(
            system=system,
            n=len(p),
            fid=self._fid(x) if self._enough(len(p), x) else None,
            inception=metrics.inception_score(p, self.scoring.seed),
            modified_inception=metrics.modified_inception_score(p, self.scoring.seed),
            am=metrics.am_score(p, train.probabilities),
            accuracy=metrics.label_accuracy(p[known], meant[known]) if len(known) else None,
            accuracy_interval=metrics.wilson_interval(int(right.sum()), len(known)) if len(known) else None,
            accuracy_by_label={self.labels[i]: float(right[meant[known] == i].mean()) for i in np.unique(meant[known])},
            confidence=metrics.mean_confidence(p),
            nearest_train=float(np.median(metrics.nearest_distances(x, train.features, itself))),
            nearest_own=float(np.median(own)) if len(own) else None,
            histogram=_named(self.labels, metrics.histogram(p)),
            confusion={label: _named(self.labels, row) for label, row in zip(self.labels, table, strict=False) if row.any()},
        )
        return self._with_quality(self._with_scatter(bare, scores), waves)

    def with_cas(self, row: Row, waves: NDArray[np.generic], meant: NDArray[np.int64]) -> Row:
        """The row with its classification accuracy score, if that is wanted."""
        if self.cas is None:
            return row
        by_seed = self.cas(waves, meant)
        return replace(row, cas=float(np.mean(by_seed)), cas_by_seed=by_seed)

    def _with_scatter(self, row: Row, scores: Scores) -> Row:
        """NDB, and how far the figures would scatter in another sample of as many clips."""
        p, x, bins, seed = scores.probabilities, scores.features, self.reference.bins, self.scoring.seed
        mean_train = np.asarray(self.reference.scores.probabilities, np.float64).mean(axis=0, keepdims=True)
        return replace(
            row,
            fid_deviation=metrics.halves_deviation(x, self._fid, seed) if self._enough(len(p) // 2, x) else None,
            ndb=different_bins(bins, x) if bins and enough_for_bins(len(p)) else None,
            inception_interval=self._interval(p, partial(metrics.inception_score, seed=seed), FEWEST_TO_RESAMPLE),
            modified_inception_interval=self._interval(p, partial(metrics.modified_inception_score, seed=seed), FEWEST_TO_RESAMPLE),
            am_interval=self._interval(p, partial(metrics.am_score, train_probabilities=mean_train), FEWEST_TO_RESAMPLE),
        )

    def _with_quality(self, row: Row, waves: NDArray[np.generic]) -> Row:
        if self.scoring.quality is None:
            return row
        values = self.scoring.quality.score(np.stack([fit_length(wave, CLIP_SAMPLES) for wave in as_floats(waves).numpy()]))
        return replace(row, quality=float(values.mean()), quality_interval=self._interval(values, metrics.mean))

    def _fid(self, features: NDArray[np.floating[Any]]) -> float:
        return metrics.frechet_distance(metrics.fit_gaussian(features), self.reference.gaussian)

    def _enough(self, clips: int, features: NDArray[np.floating[Any]]) -> bool:
        """Whether FID is wanted and can be had from so many clips."""
        return self.scoring.fid and clips > features.shape[1]

    def _interval(self, values: NDArray[Any], statistic: Callable[[NDArray[Any]], float], fewest: int = 1) -> Interval | None:
        if self.scoring.resamples < 1 or len(values) < fewest:
            return None
        return metrics.bootstrap_interval(values, statistic, repeats=self.scoring.resamples, seed=self.scoring.seed)


def _named(labels: Sequence[str], counts: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(labels, counts.tolist(), strict=True))


def require_enough(count: int, dimensions: int, fid: bool) -> None:
    """Raise `DataError` for too few clips: FID's covariance has full rank only with more clips than features."""
    if fid and count <= dimensions:
        raise DataError(f"FID with this judge needs at least {dimensions + 1} clips, got {count}; give more, or leave FID out (--no-fid)")
    if count < 2:
        raise DataError(f"at least 2 clips are needed, got {count}")


def require_labels(scoring: Scoring, unlabelled: int, count: int) -> None:
    """Raise `DataError` where a classifier is to be trained on clips of which some have no label."""
    if scoring.cas is not None and unlabelled:
        raise DataError(f"CAS needs clips that all have a label, {unlabelled} of {count} have none; label them, or leave CAS out")
