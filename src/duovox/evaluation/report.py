"""One page of figures for a model's or anyone's clips: takes clips, a judge and the features of the real recordings.

Gives a `Report` to the command line: the row of the system, with "real train" and "real test" of as many clips of the same
labels beside it, as JSON or Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError, ShapeError
from duovox.data import Features, open_features
from duovox.evaluation import metrics
from duovox.evaluation.bins import BINS, FEWEST, different_bins, enough_for_bins
from duovox.evaluation.clips import Clips, read_clips
from duovox.evaluation.judge import CLIP_SAMPLES, Judge, Scores, as_floats
from duovox.evaluation.quality import Quality
from duovox.evaluation.reference import Reference, reference_scores
from duovox.provenance import versions
from duovox.sound.audio import fit_length

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
    would scatter, on the safe side, and says nothing of the bias that n brings.
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


@dataclass(frozen=True)
class Scoring:
    """How clips are scored.

    `limit` takes that many clips at random, `seed` is that of every random choice; with `fid` false FID is left out and two clips are
    enough; `quality` adds a column; `resamples` 0 leaves bootstrap intervals out. `command` is quoted in the report.
    """

    limit: int | None = None
    seed: int = 0
    fid: bool = True
    quality: Quality | None = None
    resamples: int = RESAMPLES
    command: str = ""


@dataclass(frozen=True)
class Report:
    """Rows, and everything that a reader needs to get them again."""

    rows: tuple[Row, ...]
    judge: str
    judge_digest: str
    data_digest: str
    reference_clips: int
    seed: int
    notes: tuple[str, ...]
    versions: dict[str, str]
    command: str = ""
    quality: str = ""
    quality_about: str = ""

    def to_json(self) -> str:
        """All figures, unrounded."""
        return json.dumps(asdict(self), indent=2)

    def to_markdown(self) -> str:
        """The rows as a table, accuracy and histogram by label as a second one, then where they come from."""
        cells = [*_COLUMNS, *[f"{self.quality} (95 %)"] * bool(self.quality)]
        lines = [_cells(cells), "|" + "---|" * len(cells), *(_line(row, bool(self.quality)) for row in self.rows), ""]
        lines += [*_by_label(self.rows), "", " ".join(self._sources())]
        lines += [f"Note: {note}." for note in self.notes]
        lines.append("Versions: " + ", ".join(f"{name} {version}" for name, version in self.versions.items()) + ".")
        if self.command:
            lines.append(f"Command: `{self.command}`")
        return "\n".join(lines) + "\n"

    def _sources(self) -> list[str]:
        """What stands behind the figures, in sentences."""
        judged = f"Judge: {self.judge}, digest `{self.judge_digest[:16]}`. FID, AM, NDB and nearest train against all"
        found = [f"{judged} {self.reference_clips} train clips of data `{self.data_digest[:16]}`."]
        found += ["FID and NDB depend on n: compare rows of equal n only.", _INTERVALS, _BINS]
        return found + [f"{self.quality}: {self.quality_about}."] * bool(self.quality) + [f"Seed {self.seed}."]


_COLUMNS = ["clips", "n", "FID", f"NDB/{BINS}", "IS (95 %)", "mIS (95 %)", "AM (95 %)", "accuracy (95 %)", "confidence"]
_COLUMNS += ["nearest train", "nearest own"]
_INTERVALS = (
    "Intervals: Wilson's for accuracy, bootstraps over clips for the others. ± is FID's standard deviation, from disjoint halves, which "
    "is up to 1.4 times too large where FID is small."
)
_BINS = (
    f"NDB/{BINS}: share of {BINS} bins of real train clips that differ at 5 %, about 0.05 for clips of the same distribution; "
    f"left out for fewer than {FEWEST * BINS} clips."
)


def evaluate_folder(
    folder: str | Path,
    judge_path: str | Path,
    features_folder: str | Path,
    scoring: Scoring | None = None,
    device: str = "cpu",
) -> Report:
    """Judge a folder of clips (see `read_clips`) beside the real ones of a feature folder; the reference is cached there.

    Raises what `Judge.load`, `open_features`, `read_clips` and `evaluate` raise.
    """
    judge = Judge.load(judge_path).to(device)
    features = open_features(features_folder)
    clips = read_clips(folder, judge.labels)
    return evaluate(judge, clips, features, scoring, Path(folder).resolve().name, Path(features_folder) / "reference")


def evaluate(
    judge: Judge,
    clips: Clips,
    features: Features,
    scoring: Scoring | None = None,
    name: str = "system",
    cache: Path | None = None,
) -> Report:
    """Judge clips, and real train and test clips beside them: as many of each label, or of the train split's mix without labels.

    Only as many real clips can be taken as there are; each row has its n. `name` is the row's of the clips, `cache` a folder that
    keeps the judge's scores of the real ones. Raises `LabelError` for a judge that was trained on other labels, and `DataError` for
    fewer clips than the figures need.
    """
    scoring = scoring or Scoring()
    judge.require(features.labels)
    judge.require(label for label in clips.labels if label is not None)
    if len(clips.labels) != len(clips.waves):
        raise ShapeError(f"{len(clips.waves)} clips cannot have {len(clips.labels)} labels")
    rng = np.random.default_rng(scoring.seed)
    chosen = np.sort(rng.permutation(len(clips.waves))[: scoring.limit])
    train, test = (reference_scores(judge, features, split, cache) for split in ("train", "test"))
    require_enough(len(chosen), train.features.shape[1], scoring.fid)
    figures = _Figures(judge.labels, Reference.fit(train, scoring.seed), scoring)
    index = np.array([judge.labels.index(label) for label in features.labels])
    said = {split: index[features.label[features.indices(split)]] for split in ("train", "test")}
    meant = np.array([-1 if clips.labels[i] is None else judge.labels.index(str(clips.labels[i])) for i in chosen])
    wanted = label_mix(meant, said["train"], len(judge.labels))
    rows = [figures.row(name, judge.score(clips.waves[chosen]), clips.waves[chosen], meant)]
    for split, scores in (("train", train), ("test", test)):
        picked = draw(said[split], wanted, rng)
        waves, itself = features.waves[features.indices(split)[picked]], picked if split == "train" else None
        rows.append(figures.row(f"real {split}", _pick(scores, picked), waves, said[split][picked], itself))
    unlabelled = int((meant < 0).sum())
    notes = clips.notes + ((f"{unlabelled} clips have no label, accuracy is that of the others",) if 0 < unlabelled < len(chosen) else ())
    named = (scoring.quality.name, scoring.quality.about) if scoring.quality else ("", "")
    origin = (judge.kind, judge.digest, features.digest, len(train.features))
    return Report(tuple(rows), *origin, scoring.seed, notes, versions(), scoring.command, *named)


def label_mix(meant: NDArray[np.int64], train: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """How many real clips of each label (K,) to put beside clips: as many as were meant, or train's shares where some have no label.

    FID between clips of unequal mixes would mostly measure the mixes, the labels being far apart in the judge's features.
    """
    if (meant >= 0).all():
        return np.bincount(meant, minlength=labels).astype(np.int64)
    exact = np.bincount(train, minlength=labels) / len(train) * len(meant)
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: len(meant) - counts.sum()]] += 1
    return counts


def draw(said: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Random positions in `said` (N,) that hold each label as often as `wanted` (K,) says, or as often as it is there; sorted."""
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(said == label))[:count] for label, count in enumerate(wanted)]))


@dataclass(frozen=True, eq=False)
class _Figures:
    """How the rows of one report are computed."""

    labels: Sequence[str]
    reference: Reference
    scoring: Scoring

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


def _pick(scores: Scores, indices: NDArray[np.int64]) -> Scores:
    return Scores(scores.probabilities[indices], scores.features[indices])


def require_enough(count: int, dimensions: int, fid: bool) -> None:
    """Raise `DataError` for too few clips: FID's covariance has full rank only with more clips than features."""
    if fid and count <= dimensions:
        raise DataError(f"FID with this judge needs at least {dimensions + 1} clips, got {count}; give more, or leave FID out")
    if count < 2:
        raise DataError(f"at least 2 clips are needed, got {count}")


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _within(value: float | None, interval: Interval | None, digits: int) -> str:
    """A figure and its interval, where there is one."""
    return _figure(value, digits) + (f" ({interval[0]:.{digits}f} - {interval[1]:.{digits}f})" if interval else "")


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(row: Row, quality: bool) -> str:
    """One row of the main table."""
    cells = [row.system, str(row.n), _figure(row.fid, 3) + (f" ± {row.fid_deviation:.3f}" if row.fid_deviation is not None else "")]
    cells += [_figure(row.ndb, 2), _within(row.inception, row.inception_interval, 2)]
    cells += [_within(row.modified_inception, row.modified_inception_interval, 1), _within(row.am, row.am_interval, 3)]
    cells += [_within(row.accuracy, row.accuracy_interval, 3), _figure(row.confidence, 3)]
    cells += [_figure(row.nearest_train, 2), _figure(row.nearest_own, 2)]
    return _cells(cells + [_within(row.quality, row.quality_interval, 2)] * quality)


def _by_label(rows: Sequence[Row]) -> list[str]:
    """Accuracy by label meant, and how often the judge heard each label."""
    labels = list(rows[0].histogram)
    lines = [f"| accuracy, times heard | {' | '.join(labels)} |", "|" + "---|" * (len(labels) + 1)]
    for row in rows:
        cells = [f"{_figure(row.accuracy_by_label.get(label), 3)}, {row.histogram[label]}" for label in labels]
        lines.append(f"| {row.system} | {' | '.join(cells)} |")
    return lines
