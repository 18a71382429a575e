"""The real clips that all others are held against: takes features and a judge, gives their scores to `report`.

The scores are kept in a file named by both digests, so they are computed once and never stale.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as write_tensors

from duovox.contracts import DataError, OutputError
from duovox.data import Features
from duovox.evaluation.bins import Bins, enough_for_bins, fit_bins
from duovox.evaluation.judge import SAMPLE_RATE, Judge, Scores
from duovox.evaluation.metrics import Gaussian, fit_gaussian
from duovox.files import write_whole

REFERENCE_FORMAT = "duovox-reference-1"


@dataclass(frozen=True, eq=False)
class Reference:
    """The train split as a judge sees it; no bins where it is too small for them."""

    scores: Scores
    gaussian: Gaussian
    bins: Bins | None

    @classmethod
    def fit(cls, train: Scores, seed: int = 0) -> Reference:
        """`seed` is that of the bins."""
        bins = fit_bins(train.features, seed=seed) if enough_for_bins(len(train.features)) else None
        return cls(train, fit_gaussian(train.features), bins)


def reference_scores(judge: Judge, features: Features, split: str, cache: Path | None = None) -> Scores:
    """The judge's scores of a whole split, in the order of `features.indices(split)`, from the folder `cache` if they are there.

    Raises `DataError` as `require_comparable` does. A cache that takes no file is done without.
    """
    require_comparable(features, split)
    indices = features.indices(split)
    key = json.dumps([REFERENCE_FORMAT, features.digest, judge.digest, split])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors" if cache else None
    scores = _read_scores(path, key, len(indices)) if path else None
    if scores is None:
        scores = _score_indices(judge, features, indices)
        if path:
            _write_scores(path, key, scores)
    return scores


def require_comparable(features: Features, split: str) -> None:
    """Raise `DataError` for a split of fewer than two clips, and for features of another sample rate than the judge's."""
    if features.mel.sample_rate != SAMPLE_RATE:
        raise DataError(f"the judge hears {SAMPLE_RATE} Hz, these features are of {features.mel.sample_rate} Hz")
    count = len(features.indices(split))
    if count < 2:
        raise DataError(f"the {split} split of these features has {count} clips; prepare a data set with more to compare with")


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
