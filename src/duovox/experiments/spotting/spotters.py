"""Keyword spotters: takes sets of clips, trains the small classifier of `evaluation.cas` on them, says how it hears real test clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.config import from_dict
from duovox.contracts import ConfigError
from duovox.data import Features
from duovox.data.noisy import Backgrounds, noisy_waves
from duovox.evaluation.cas import CasConfig, judge_mels, train
from duovox.evaluation.clips import Clips
from duovox.evaluation.judge import as_floats
from duovox.evaluation.metrics import auroc
from duovox.files import write_whole

SNRS = (10.0, 0.0)
"""Ratios of speech to noise of the noisy test clips, dB."""

LEARNT_SNRS = (0.0, 20.0)
"""The ratios that spotters learn at lie evenly between these, dB."""

CLEAN = "clean"

MISSES = 0.1
"""Share of the commands that is missed where false alarms are counted."""

_CHUNK = 256


@dataclass(frozen=True)
class Heard:
    """How a spotter hears: the accuracy on each kind of test clips; of other words, the share that it takes for a command where it misses
    `MISSES` of the commands, and the area under the ROC curve of telling the two apart (None without other words)."""

    accuracy: dict[str, float]
    false_alarms: float | None
    known: float | None


class Exam:
    """The real test clips of the commands, clean and noisy, and those of all other words."""

    def __init__(self, features: Features, commands: Sequence[str], backgrounds: Backgrounds | None, device: torch.device) -> None:
        names = np.array(features.labels)[features.label]
        test = features.split == "test"
        known, other = np.flatnonzero(test & np.isin(names, commands)), np.flatnonzero(test & ~np.isin(names, commands))
        self.commands, self.device = tuple(commands), device
        self.label = torch.tensor([self.commands.index(names[place]) for place in known], device=device)
        self.mels = {CLEAN: judge_mels(features.waves[known], device)}
        for snr in SNRS if backgrounds else ():
            assert backgrounds is not None
            noisy = np.concatenate(list(noisy_waves(features, backgrounds, snr, indices=known)))
            self.mels[f"{snr:g} dB"] = judge_mels(noisy, device)
        self.other = judge_mels(features.waves[other], device) if len(other) else None
        self.digest = _digest([features.digest, self.commands, backgrounds.digest if backgrounds else "", SNRS, MISSES])

    def grade(self, network: nn.Module) -> Heard:
        """Of a network whose first outputs are the commands."""
        chances = {name: self._chances(network, mel) for name, mel in self.mels.items()}
        right = {name: float((found.argmax(1) == self.label).double().mean()) for name, found in chances.items()}
        if self.other is None:
            return Heard(right, None, None)
        known = chances[CLEAN].amax(1).double().cpu().numpy()
        other = self._chances(network, self.other).amax(1).double().cpu().numpy()
        return Heard(right, false_alarms(known, other), auroc(known, other))

    @torch.no_grad()
    def _chances(self, network: nn.Module, mel: Tensor) -> Tensor:
        """The probability of each command (N, K)."""
        return torch.cat([network(part).softmax(1)[:, : len(self.commands)] for part in mel.split(_CHUNK)])


def false_alarms(known: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The share of other words (N,) whose score is at least that which all but `MISSES` of the commands (M,) reach."""
    return float((other >= np.quantile(known, MISSES)).mean())


class Lesson:
    """Sets of clips to learn from, each drawn from about as often as another. Clips without a label are none of the commands. Where there
    are `backgrounds`, every clip is there twice, once in noise."""

    def __init__(
        self, sets: Sequence[Clips], commands: Sequence[str], device: torch.device, backgrounds: Backgrounds | None = None
    ) -> None:
        self.sets, self.commands, self.device, self.backgrounds = tuple(sets), tuple(commands), device, backgrounds
        self.label = [torch.tensor([self._number(name) for name in clips.labels], device=device) for clips in sets]

    @property
    def outputs(self) -> int:
        """One for each command, and one more where there are clips of none."""
        return len(self.commands) + any(bool((part == len(self.commands)).any()) for part in self.label)

    @cached_property
    def digest(self) -> str:
        clips = [[hashlib.sha256(clips.waves.tobytes()).hexdigest(), clips.labels] for clips in self.sets]
        return _digest([clips, [self.backgrounds.digest, LEARNT_SNRS] if self.backgrounds else []])

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Scaled judge mels (N, 1, 32, 32) and label (N,), the clips of smaller sets repeated."""
        most = max(len(part) for part in self.label)
        mels, labels = list[Tensor](), list[Tensor]()
        for clips, label in zip(self.sets, self.label, strict=True):
            repeats = max(1, round(most / len(label)))
            for waves in (clips.waves, *([_in_noise(clips.waves, self.backgrounds)] if self.backgrounds else [])):
                mels.append(judge_mels(waves, self.device).repeat(repeats, 1, 1, 1))
                labels.append(label.repeat(repeats))
        return torch.cat(mels), torch.cat(labels)

    def _number(self, label: str | None) -> int:
        return len(self.commands) if label is None else self.commands.index(label)


def _in_noise(waves: NDArray[np.generic], backgrounds: Backgrounds) -> NDArray[np.float32]:
    """Each of waves (N, S) in a stretch of noise and at a ratio that its place draws."""
    snrs = np.random.default_rng(0).uniform(*LEARNT_SNRS, len(waves))
    return np.stack(
        [backgrounds.add_to(wave, snr, (place,)) for place, (wave, snr) in enumerate(zip(as_floats(waves).numpy(), snrs, strict=True))]
    )


@dataclass(frozen=True, eq=False)
class Spotters:
    """Spotters that were graded, in the files <folder>/<mixture>_s<seed>.json. A record counts for the same clips, exam and training. Where
    there are `backgrounds`, they learn in noise too."""

    folder: Path
    exam: Exam
    config: CasConfig
    backgrounds: Backgrounds | None = None

    def lesson(self, sets: Sequence[Clips]) -> Lesson:
        """Sets of clips as this exam's spotters learn from them."""
        return Lesson(sets, self.exam.commands, self.exam.device, self.backgrounds)

    def known(self, name: str, lesson: Lesson, seed: int) -> Heard | None:
        """A record found before; None where there is none, or one of something else."""
        try:
            stored: dict[str, Any] = json.loads(self._file(name, seed).read_text(encoding="utf-8"))
            return from_dict(Heard, stored["heard"]) if stored["key"] == self._key(lesson, seed) else None
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            return None

    def graded(self, name: str, lesson: Lesson, seed: int) -> Heard:
        """How the spotter of a mixture and a seed hears, trained if it was not. Raises `OutputError`."""
        found = self.known(name, lesson, seed)
        if found is None:
            found = self.exam.grade(train(*lesson.tensors, lesson.outputs, self.config, seed))
            sizes = [len(clips.labels) for clips in lesson.sets]
            record = {"key": self._key(lesson, seed), "clips": sizes, "heard": asdict(found)}
            write_whole(self._file(name, seed), json.dumps(record, indent=1).encode(), force=True, parents=True)
        return found

    def _file(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}_s{seed}.json"

    def _key(self, lesson: Lesson, seed: int) -> str:
        return _digest([lesson.digest, self.exam.digest, str(self.config), seed])


def _digest(values: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
