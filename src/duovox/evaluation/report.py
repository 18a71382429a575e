"""One page of figures for a model's or anyone's clips: takes clips, a judge and the features of the real recordings.

Gives a `Report` to the command line: the row of the system, with "real train" and "real test" of as many clips of the same
labels beside it, as JSON or Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError, ShapeError
from duovox.data import Features, open_features
from duovox.evaluation.bins import BINS, FEWEST
from duovox.evaluation.cas import AccuracyScore
from duovox.evaluation.clips import Clips, read_clips
from duovox.evaluation.judge import Judge, Scores
from duovox.evaluation.reference import Reference, reference_scores
from duovox.evaluation.rows import Interval, Measures, Row, Scoring, require_enough, require_labels
from duovox.provenance import versions


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
    cas_about: str = ""

    def to_json(self) -> str:
        """All figures, unrounded."""
        return json.dumps(asdict(self), indent=2)

    def to_markdown(self) -> str:
        """The rows as a table, accuracy and histogram by label as a second one, then where they come from."""
        quality, cas = bool(self.quality), bool(self.cas_about)
        cells = [*_COLUMNS, *[f"{self.quality} (95 %)"] * quality, *["CAS (range)"] * cas]
        lines = [_cells(cells), "|" + "---|" * len(cells), *(_line(row, quality, cas) for row in self.rows), ""]
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
        found += [f"{self.quality}: {self.quality_about}."] * bool(self.quality)
        return found + [f"CAS: {self.cas_about}."] * bool(self.cas_about) + [f"Seed {self.seed}."]


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
    meant = np.array([-1 if clips.labels[i] is None else judge.labels.index(str(clips.labels[i])) for i in chosen])
    unlabelled = int((meant < 0).sum())
    _require_common(name, sorted({judge.labels[place] for place in meant if place >= 0}), features)
    require_labels(scoring, unlabelled, len(chosen))
    train, test = (reference_scores(judge, features, split, cache) for split in ("train", "test"))
    require_enough(len(chosen), train.features.shape[1], scoring.fid)
    index = np.array([judge.labels.index(label) for label in features.labels])
    said = {split: index[features.label[features.indices(split)]] for split in ("train", "test")}
    score = _accuracy_score(features, said["test"], len(judge.labels), scoring)
    measures = Measures(judge.labels, Reference.fit(train, scoring.seed), scoring, score)
    wanted = label_mix(meant, said["train"], len(judge.labels))
    row = measures.row(name, judge.score(clips.waves[chosen]), clips.waves[chosen], meant)
    rows = [measures.with_cas(row, clips.waves[chosen], meant)]
    for split, scores in (("train", train), ("test", test)):
        picked = draw(said[split], wanted, rng)
        waves, itself = features.waves[features.indices(split)[picked]], picked if split == "train" else None
        row = measures.row(f"real {split}", _pick(scores, picked), waves, said[split][picked], itself)
        rows.append(measures.with_cas(row, waves, said[split][picked]) if split == "train" else row)
    notes = clips.notes + ((f"{unlabelled} clips have no label, accuracy is that of the others",) if 0 < unlabelled < len(chosen) else ())
    notes += (f"real recordings: {features.speaker_note}",) if features.speaker_note else ()
    named = (scoring.quality.name, scoring.quality.about) if scoring.quality else ("", "")
    origin = (judge.kind, judge.digest, features.digest, len(train.features))
    about = score.about if score else ""
    return Report(tuple(rows), *origin, scoring.seed, notes, versions(), scoring.command, *named, about)


def _require_common(name: str, spoken: Sequence[str], features: Features) -> None:
    """Raise `DataError` where a split that clips are held against has none of their words."""
    for split in ("train", "test"):
        known = [features.labels[place] for place in np.unique(features.label[features.indices(split)])]
        if spoken and not set(spoken) & set(known):
            there = ", ".join(known) or "nothing"
            raise DataError(f"{name} has clips of {', '.join(spoken)}, the {split} split of {there}; give data with these words")


def _accuracy_score(features: Features, label: NDArray[np.int64], labels: int, scoring: Scoring) -> AccuracyScore | None:
    """CAS against all test clips, if it is wanted; `label` are theirs in the judge's numbers."""
    return AccuracyScore(features.waves[features.indices("test")], label, labels, scoring.cas) if scoring.cas else None


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


def _pick(scores: Scores, indices: NDArray[np.int64]) -> Scores:
    return Scores(scores.probabilities[indices], scores.features[indices])


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _within(value: float | None, interval: Interval | None, digits: int) -> str:
    """A figure and its interval, where there is one."""
    return _figure(value, digits) + (f" ({interval[0]:.{digits}f} - {interval[1]:.{digits}f})" if interval else "")


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(row: Row, quality: bool, cas: bool) -> str:
    """One row of the main table."""
    cells = [row.system, str(row.n), _figure(row.fid, 3) + (f" ± {row.fid_deviation:.3f}" if row.fid_deviation is not None else "")]
    cells += [_figure(row.ndb, 2), _within(row.inception, row.inception_interval, 2)]
    cells += [_within(row.modified_inception, row.modified_inception_interval, 1), _within(row.am, row.am_interval, 3)]
    cells += [_within(row.accuracy, row.accuracy_interval, 3), _figure(row.confidence, 3)]
    cells += [_figure(row.nearest_train, 2), _figure(row.nearest_own, 2)]
    cells += [_within(row.quality, row.quality_interval, 2)] * quality
    range_of_seeds = (min(row.cas_by_seed), max(row.cas_by_seed)) if row.cas_by_seed else None
    return _cells(cells + [_within(row.cas, range_of_seeds, 3)] * cas)


def _by_label(rows: Sequence[Row]) -> list[str]:
    """Accuracy by label meant, and how often the judge heard each label."""
    labels = list(rows[0].histogram)
    lines = [f"| accuracy, times heard | {' | '.join(labels)} |", "|" + "---|" * (len(labels) + 1)]
    for row in rows:
        cells = [f"{_figure(row.accuracy_by_label.get(label), 3)}, {row.histogram[label]}" for label in labels]
        lines.append(f"| {row.system} | {' | '.join(cells)} |")
    return lines
