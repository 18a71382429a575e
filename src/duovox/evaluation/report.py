"""One page of figures for a model's or anyone's clips: takes clips, a judge and the features of the real recordings.

Gives a `Report` to the command line: the row of the system, with "real train" and "real test" of as many clips of the same
labels beside it, as JSON or Markdown. The judge's scores of the real clips are kept in a file named by both digests, so they are
computed once and never stale.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as write_tensors

import duovox
from duovox.audio import write_whole
from duovox.contracts import DataError, OutputError, ShapeError
from duovox.data import Features, open_features
from duovox.evaluation import metrics
from duovox.evaluation.clips import Clips, read_clips
from duovox.evaluation.judge import SAMPLE_RATE, Judge, Scores

REFERENCE_FORMAT = "duovox-reference-1"


@dataclass(frozen=True)
class Row:
    """The figures of one set of n clips; None where a figure cannot be had.

    `nearest_train` and `nearest_own` are medians of the distance, in the judge's features, to the nearest clip of the train
    split and to the nearest other clip of the same label in this set: both small where a model repeats what it knows.
    """

    system: str
    n: int
    fid: float | None
    inception: float
    modified_inception: float
    am: float
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_by_label: dict[str, float]
    confidence: float
    nearest_train: float
    nearest_own: float | None
    histogram: dict[str, int]
    confusion: dict[str, dict[str, int]]


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

    def to_json(self) -> str:
        """All figures, unrounded."""
        return json.dumps(asdict(self), indent=2)

    def to_markdown(self) -> str:
        """The rows as a table, accuracy and histogram by label as a second one, then where they come from."""
        lines = [_HEADER, "|" + "---|" * 10, *map(_line, self.rows), "", *_by_label(self.rows), ""]
        lines.append(
            f"Judge: {self.judge}, digest `{self.judge_digest[:16]}`. FID, AM and nearest train against all {self.reference_clips} train "
            f"clips of data `{self.data_digest[:16]}`. FID depends on n: compare rows of equal n only. Seed {self.seed}."
        )
        lines += [f"Note: {note}." for note in self.notes]
        lines.append("Versions: " + ", ".join(f"{name} {version}" for name, version in self.versions.items()) + ".")
        if self.command:
            lines.append(f"Command: `{self.command}`")
        return "\n".join(lines) + "\n"


_HEADER = "| clips | n | FID | IS | mIS | AM | accuracy (95 %) | confidence | nearest train | nearest own |"


def evaluate_folder(
    folder: str | Path,
    judge_path: str | Path,
    features_folder: str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    fid: bool = True,
    device: str = "cpu",
    command: str = "",
) -> Report:
    """Judge a folder of clips (see `read_clips`) beside the real ones of a feature folder; the reference is cached there.

    Raises what `Judge.load`, `open_features`, `read_clips` and `evaluate` raise.
    """
    judge = Judge.load(judge_path).to(device)
    features = open_features(features_folder)
    clips = read_clips(folder, judge.labels)
    name, cache = Path(folder).resolve().name, Path(features_folder) / "reference"
    return evaluate(judge, clips, features, name=name, limit=limit, seed=seed, fid=fid, cache=cache, command=command)


def evaluate(
    judge: Judge,
    clips: Clips,
    features: Features,
    *,
    name: str = "system",
    limit: int | None = None,
    seed: int = 0,
    fid: bool = True,
    cache: Path | None = None,
    command: str = "",
) -> Report:
    """Judge clips, and real train and test clips beside them: as many of each label, or of the train split's mix without labels.

    Only as many real clips can be taken as there are; each row has its n. `limit` takes that many clips at random. `cache` is
    a folder that keeps the judge's scores of the real clips. Raises `LabelError` for a judge that was trained on other labels,
    and `DataError` for fewer clips than the figures need; with `fid` false FID is left out and two clips are enough.
    """
    judge.require(features.labels)
    judge.require(label for label in clips.labels if label is not None)
    if len(clips.labels) != len(clips.waves):
        raise ShapeError(f"{len(clips.waves)} clips cannot have {len(clips.labels)} labels")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(clips.waves))[:limit])
    train, test = (reference_scores(judge, features, split, cache) for split in ("train", "test"))
    _require_enough(len(chosen), train.features.shape[1], fid)
    index = np.array([judge.labels.index(label) for label in features.labels])
    said = {split: index[features.label[features.indices(split)]] for split in ("train", "test")}
    meant = np.array([-1 if clips.labels[i] is None else judge.labels.index(str(clips.labels[i])) for i in chosen])
    wanted = label_mix(meant, said["train"], len(judge.labels))
    rows = [_row(name, judge.score(clips.waves[chosen]), meant, judge.labels, train, seed, fid)]
    for split, scores in (("train", train), ("test", test)):
        picked = draw(said[split], wanted, rng)
        enough, itself = fid and len(picked) > scores.features.shape[1], picked if split == "train" else None
        rows.append(_row(f"real {split}", _pick(scores, picked), said[split][picked], judge.labels, train, seed, enough, itself))
    unlabelled = int((meant < 0).sum())
    notes = clips.notes + ((f"{unlabelled} clips have no label, accuracy is that of the others",) if 0 < unlabelled < len(chosen) else ())
    return Report(tuple(rows), judge.kind, judge.digest, features.digest, len(train.features), seed, notes, _versions(), command)


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


def reference_scores(judge: Judge, features: Features, split: str, cache: Path | None = None) -> Scores:
    """The judge's scores of a whole split, in the order of `features.indices(split)`, from the folder `cache` if they are there.

    Raises `DataError` for a split without clips or features of another sample rate. A cache that takes no file is done without.
    """
    indices = features.indices(split)
    if features.mel.sample_rate != SAMPLE_RATE:
        raise DataError(f"the judge hears {SAMPLE_RATE} Hz, these features are of {features.mel.sample_rate} Hz")
    if len(indices) < 2:
        raise DataError(f"the {split} split of these features has {len(indices)} clips; prepare a data set with more to compare with")
    key = json.dumps([REFERENCE_FORMAT, features.digest, judge.digest, split])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors" if cache else None
    scores = _read_scores(path, key, len(indices)) if path else None
    if scores is None:
        scores = _score_indices(judge, features, indices)
        if path:
            _write_scores(path, key, scores)
    return scores


def _score_indices(judge: Judge, features: Features, indices: NDArray[np.int64], chunk: int = 1024) -> Scores:
    parts = [judge.score(features.waves[indices[start : start + chunk]]) for start in range(0, len(indices), chunk)]
    return Scores(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.features for p in parts]))


def _read_scores(path: Path, key: str, count: int) -> Scores | None:
    """Cached scores; None where there are none, or others, or damaged ones."""
    try:
        with safe_open(path, "numpy") as file:
            same = (file.metadata() or {}).get("duovox") == key
            scores = Scores(file.get_tensor("probabilities"), file.get_tensor("features"))
    except (OSError, SafetensorError):
        return None
    return scores if same and len(scores.features) == len(scores.probabilities) == count else None


def _write_scores(path: Path, key: str, scores: Scores) -> None:
    tensors = {"probabilities": torch.from_numpy(scores.probabilities), "features": torch.from_numpy(scores.features)}
    try:
        write_whole(path, write_tensors(tensors, {"duovox": key}), force=True, parents=True)
    except OutputError:
        return


def _row(
    system: str,
    scores: Scores,
    meant: NDArray[np.int64],
    labels: Sequence[str],
    train: Scores,
    seed: int,
    fid: bool,
    itself: NDArray[np.int64] | None = None,
) -> Row:
    """All figures of one set. `meant` (N,) is -1 for no label; `itself` says where the clips stand in the train split, if they do."""
    p, heard = scores.probabilities, scores.probabilities.argmax(axis=1)
    known = np.flatnonzero(meant >= 0)
    right = heard[known] == meant[known]
    table = metrics.confusion(p[known], meant[known]) if len(known) else np.zeros((0, 0), np.int64)
    own = metrics.nearest_within_label(scores.features, np.where(meant >= 0, meant, heard))
    return Row(
        system=system,
        n=len(p),
        fid=metrics.frechet_distance(metrics.fit_gaussian(scores.features), metrics.fit_gaussian(train.features)) if fid else None,
        inception=metrics.inception_score(p, seed),
        modified_inception=metrics.modified_inception_score(p, seed),
        am=metrics.am_score(p, train.probabilities),
        accuracy=metrics.label_accuracy(p[known], meant[known]) if len(known) else None,
        accuracy_interval=metrics.bootstrap_interval(right, seed=seed) if len(known) else None,
        accuracy_by_label={labels[i]: float(right[meant[known] == i].mean()) for i in np.unique(meant[known])},
        confidence=metrics.mean_confidence(p),
        nearest_train=float(np.median(metrics.nearest_distances(scores.features, train.features, itself))),
        nearest_own=float(np.median(own)) if len(own) else None,
        histogram=_named(labels, metrics.histogram(p)),
        confusion={label: _named(labels, row) for label, row in zip(labels, table, strict=False) if row.any()},
    )


def _named(labels: Sequence[str], counts: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(labels, counts.tolist(), strict=True))


def _pick(scores: Scores, indices: NDArray[np.int64]) -> Scores:
    return Scores(scores.probabilities[indices], scores.features[indices])


def _require_enough(count: int, dimensions: int, fid: bool) -> None:
    """FID's covariance has full rank only with more clips than features."""
    if fid and count <= dimensions:
        raise DataError(f"FID with this judge needs at least {dimensions + 1} clips, got {count}; give more, or leave FID out")
    if count < 2:
        raise DataError(f"at least 2 clips are needed, got {count}")


def _versions() -> dict[str, str]:
    return {"duovox": duovox.__version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _line(row: Row) -> str:
    """One row of the main table."""
    interval = f" ({row.accuracy_interval[0]:.3f} - {row.accuracy_interval[1]:.3f})" if row.accuracy_interval else ""
    cells = [row.system, str(row.n), _figure(row.fid, 3), _figure(row.inception, 2), _figure(row.modified_inception, 1), _figure(row.am, 3)]
    cells += [_figure(row.accuracy, 3) + interval, _figure(row.confidence, 3), _figure(row.nearest_train, 2), _figure(row.nearest_own, 2)]
    return f"| {' | '.join(cells)} |"


def _by_label(rows: Sequence[Row]) -> list[str]:
    """Accuracy by label meant, and how often the judge heard each label."""
    labels = list(rows[0].histogram)
    lines = [f"| accuracy, times heard | {' | '.join(labels)} |", "|" + "---|" * (len(labels) + 1)]
    for row in rows:
        cells = [f"{_figure(row.accuracy_by_label.get(label), 3)}, {row.histogram[label]}" for label in labels]
        lines.append(f"| {row.system} | {' | '.join(cells)} |")
    return lines
