"""How robust a frozen classifier is: takes a bench of the shift experiment, gives a row for each kind of test clips.

Noise at several ratios, and words that are none of its labels, with the judge's accuracy beside the classifier's. Whether a clip is a
known word at all is told by the largest probability, and by logsumexp(logits), the energy of the classifier read as a joint energy
model (Grathwohl et al. 2020, arXiv 1912.03263).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from duovox.config import from_dict
from duovox.contracts import ConfigError
from duovox.data.features import FULL_SCALE, features_of
from duovox.data.noisy import Backgrounds, noisy_waves, read_backgrounds
from duovox.evaluation.metrics import auroc, wilson_interval
from duovox.experiments.runner import Bench
from duovox.files import write_whole
from duovox.networks.base import TappedClassifier
from duovox.provenance import digest_of
from duovox.runs import load_classifier, scale_of_data
from duovox.sound.mel import LogMel, scale_mel

SNRS = (20.0, 10.0, 5.0, 0.0)
"""Ratios of speech to noise, dB."""

FILE = "hearing.json"
"""The rows in the folder of an experiment; its first name, so that old folders go on."""

_CHUNK = 256


@dataclass(frozen=True)
class Robustness:
    """One kind of test clips. Accuracies are None for words that are no labels; `known_by_confidence` and `known_by_energy` are the
    areas under the ROC curve of telling the clean known words from these (None for the clean ones themselves)."""

    clips: str
    n: int
    accuracy: float | None
    interval: tuple[float, float] | None
    judge_accuracy: float | None
    confidence: float
    energy: float
    known_by_confidence: float | None
    known_by_energy: float | None


@dataclass(frozen=True, eq=False)
class _Answers:
    """What classifier and judge say of n clips: the largest probability, the energy, and the label of each (n,)."""

    confidence: NDArray[np.float64]
    energy: NDArray[np.float64]
    label: NDArray[np.int64]
    judge_label: NDArray[np.int64]


def measure_robustness(bench: Bench, noise: Path, measure: bool = True) -> list[Robustness] | None:
    """The rows of clean, noisy and unknown test clips, from the file <out>/hearing.json if they are there; None while there is no
    trained classifier, and where they are not there and `measure` is off. `noise` is a folder of noise recordings."""
    if not (bench.classifier_folder(bench.plan.systems[0]) / "weights.safetensors").is_file():
        return None
    mel = bench.features.mel
    backgrounds = read_backgrounds(noise, mel.sample_rate, mel.clip_samples)
    path, key = bench.out / FILE, _key(bench, backgrounds)
    known = _read(path, key)
    if known is None and measure:
        known = _measure(bench, backgrounds)
        write_whole(path, json.dumps({"key": key, "rows": [asdict(row) for row in known]}, indent=1).encode(), force=True)
    return known


def _measure(bench: Bench, backgrounds: Backgrounds) -> list[Robustness]:
    features, words = bench.features, bench.other_features["words"]
    test, other = features.indices("test"), words.indices("test")
    listener = _Listener(bench)
    judge_label = np.array([bench.judge.labels.index(label) for label in features.labels])[features.label[test]]
    clean = listener.read(_chunks(features.waves, test))
    rows = [_row("clean", clean, features.label[test], judge_label, None)]
    for snr in SNRS:
        noisy = listener.read(noisy_waves(features, backgrounds, snr, indices=test))
        rows.append(_row(f"noise at {snr:g} dB", noisy, features.label[test], judge_label, clean))
    return [*rows, _row(f"other words ({', '.join(words.labels)})", listener.read(_chunks(words.waves, other)), None, None, clean)]


def _row(
    name: str, answers: _Answers, label: NDArray[np.int64] | None, judge_label: NDArray[np.int64] | None, clean: _Answers | None
) -> Robustness:
    """`label` and `judge_label` are the right answers in the classifier's and in the judge's numbers."""
    n, right = len(answers.label), None if label is None else int((answers.label == label).sum())
    return Robustness(
        name,
        n,
        None if right is None else right / n,
        None if right is None else wilson_interval(right, n),
        None if judge_label is None else float((answers.judge_label == judge_label).mean()),
        float(answers.confidence.mean()),
        float(answers.energy.mean()),
        None if clean is None else auroc(clean.confidence, answers.confidence),
        None if clean is None else auroc(clean.energy, answers.energy),
    )


class _Listener:
    """The bench's own classifier, at the clean end of its noise range, and its judge."""

    def __init__(self, bench: Bench) -> None:
        recipe = bench.plan.systems[0].recipe
        folder = bench.classifier_folder(bench.plan.systems[0])
        self.judge, self.sigma = bench.judge, recipe.noise.sigma_min
        self.scale, self.log_mel = scale_of_data(recipe, bench.features), LogMel(recipe.mel)
        self.classifier: TappedClassifier = load_classifier(folder, recipe, bench.features).eval()

    @torch.no_grad()
    def read(self, chunks: Iterator[NDArray[np.int16]]) -> _Answers:
        """int16 waves (n, S) in chunks."""
        logits, judged = [], []
        for chunk in chunks:
            mel = scale_mel(torch.from_numpy(features_of(chunk, self.log_mel).astype(np.float32))[:, None], self.scale)
            logits.append(self.classifier(mel, torch.full((len(chunk),), self.sigma)).double())
            judged.append(self.judge.score(chunk.astype(np.float32) / FULL_SCALE).probabilities.argmax(axis=1))
        found = torch.cat(logits)
        best, label = found.softmax(dim=1).max(dim=1)
        return _Answers(best.numpy(), found.logsumexp(dim=1).numpy(), label.numpy(), np.concatenate(judged))


def _chunks(waves: NDArray[np.int16], indices: NDArray[np.int64]) -> Iterator[NDArray[np.int16]]:
    for start in range(0, len(indices), _CHUNK):
        yield waves[indices[start : start + _CHUNK]]


def _key(bench: Bench, backgrounds: Backgrounds) -> str:
    weights = bench.classifier_folder(bench.plan.systems[0]) / "weights.safetensors"
    parts = [digest_of(weights), bench.judge.digest, bench.features.digest]
    parts += [bench.other_features["words"].digest, backgrounds.digest, list(SNRS)]  # type: ignore[list-item]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(path: Path, key: str) -> list[Robustness] | None:
    """Rows found before; None where there are none, or others."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return [from_dict(Robustness, row) for row in stored["rows"]] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
