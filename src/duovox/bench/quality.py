"""How good clips are, beside how fast they were made: takes clips, gives the few figures that a row of a benchmark must not lack.

A figure that cannot be had is None, and `missing` says why: no data to compare with, a judge of other words, a package not installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from duovox.contracts import DuovoxError
from duovox.data import open_features
from duovox.evaluation import metrics
from duovox.evaluation.clips import Clips
from duovox.evaluation.judge import Judge, Scores, packaged_judge
from duovox.evaluation.recogniser import Recogniser
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.rows import Interval
from duovox.voice import Duovox


@dataclass(frozen=True)
class Standing:
    """What listeners say of `n` clips: the share that the judge and the general recogniser hear as the word they should be (with Wilson's
    95 % intervals), FID against all train clips (with its deviation, see `Row.fid_deviation`), the median distance to the nearest other
    clip of the same word. `missing` says of each figure that is None why."""

    n: int
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    understood: float | None = None
    understood_interval: Interval | None = None
    fid: float | None = None
    fid_deviation: float | None = None
    nearest_own: float | None = None
    missing: dict[str, str] = field(default_factory=dict)


class Listeners:
    """A judge, the reference for FID and a general recogniser, as far as they can be had for a voice's words."""

    def __init__(self, voice: Duovox, data: Path | None = None, judge: Path | None = None) -> None:
        self.missing: dict[str, str] = {}
        self.judge: Judge | None = None
        self.recogniser: Recogniser | None = None
        self.gaussian: metrics.Gaussian | None = None
        try:
            found = Judge.load(judge or packaged_judge(voice.labels))
            found.require(voice.labels)
            found.refuse_guide(voice.bundle.model.classifier)
            self.judge = found
        except DuovoxError as error:
            if judge is not None:
                raise
            self.missing["accuracy"] = self.missing["fid"] = str(error)
        if self.judge is not None:
            self._read_reference(self.judge, data)
        try:
            self.recogniser = Recogniser(voice.labels)
        except DuovoxError as error:
            self.missing["understood"] = str(error)

    def _read_reference(self, judge: Judge, data: Path | None) -> None:
        if data is None:
            self.missing["fid"] = "it needs real recordings: give --data FEATURES"
            return
        features = open_features(data)
        judge.require(features.labels)
        self.gaussian = metrics.fit_gaussian(reference_scores(judge, features, "train", data / "reference").features)

    def hear(self, clips: Clips) -> Standing:
        """The figures of clips that all have a label."""
        count, missing = len(clips.waves), dict(self.missing)
        values: dict[str, object] = {}
        if self.judge is not None:
            values |= self._judged(self.judge.score(clips.waves), clips, self.judge, missing)
        if self.recogniser is not None:
            right = self.recogniser.understood(clips.waves, clips.labels)
            values |= {"understood": right / count, "understood_interval": metrics.wilson_interval(right, count)}
        return Standing(count, missing=missing, **values)  # type: ignore[arg-type]

    def _judged(self, scores: Scores, clips: Clips, judge: Judge, missing: dict[str, str]) -> dict[str, object]:
        x, heard = scores.features, [judge.labels[i] for i in scores.probabilities.argmax(axis=1)]
        right = sum(word == label for word, label in zip(heard, clips.labels, strict=True))
        own = metrics.nearest_within_label(x, [judge.labels.index(str(label)) for label in clips.labels])
        found: dict[str, object] = {"accuracy": right / len(x), "accuracy_interval": metrics.wilson_interval(right, len(x))}
        found["nearest_own"] = float(np.median(own)) if len(own) else None
        if self.gaussian is not None and len(x) <= x.shape[1]:
            missing["fid"] = f"it needs more than {x.shape[1]} clips, there are {len(x)}: raise --n"
        elif self.gaussian is not None:
            found |= {"fid": self._fid(x), "fid_deviation": metrics.halves_deviation(x, self._fid) if len(x) // 2 > x.shape[1] else None}
        return found

    def _fid(self, features: object) -> float:
        assert self.gaussian is not None
        return metrics.frechet_distance(metrics.fit_gaussian(features), self.gaussian)  # type: ignore[arg-type]
