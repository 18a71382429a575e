"""How far an exported voice is from PyTorch: each graph on fresh inputs, and whole clips as the judge and their log-mels tell.

Takes parts, graphs and voices; gives figures, and refuses graphs that compute something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from duovox.config import SampleConfig
from duovox.contracts import ClassifierError
from duovox.evaluation.judge import SAMPLE_RATE, Judge, packaged_judge
from duovox.exporting.parts import SIGMAS, Part
from duovox.lite.sessions import Run
from duovox.lite.voice import Voice
from duovox.sound.mel import LogMel
from duovox.voice import Duovox

TOLERANCE = 1e-2
"""A float32 graph further than this from PyTorch, in the units of its output, does not compute the same thing."""


@dataclass(frozen=True)
class Difference:
    """The largest and the mean absolute difference of two arrays."""

    largest: float
    mean: float


@torch.no_grad()
def compare(part: Part, run: Run) -> Difference:
    """A graph against PyTorch on inputs that the export did not see: batches of one and three, at every noise level."""
    found = []
    for seed, batch in [(seed, 1) for seed in range(100, 100 + len(SIGMAS))] + [(7, 3)]:
        inputs = part.draw(seed, batch)
        found.append(np.abs(run(*(value.numpy() for value in inputs)) - part.plain(*inputs).detach().numpy()).ravel())
    everything = np.concatenate(found)
    return Difference(float(everything.max()), float(everything.mean()))


def require_same(part: Part, difference: Difference) -> None:
    """Raise `ClassifierError` for a float32 graph that is not what PyTorch computes: its network decides by its input what it runs."""
    if not difference.largest <= TOLERANCE:
        raise ClassifierError(
            f"the {part.name} cannot be exported: its graph differs from PyTorch by {difference.largest:.2g} on fresh inputs, "
            "so its network takes ways that depend on the input"
        )


@dataclass(frozen=True)
class ClipsCompared:
    """Clips of the same labels, seeds and settings, made by both: the difference of their log-mels as sampled, and as heard in the waves;
    and of how many the judge (the classifier itself, where no judge knows the words) hears the word."""

    clips: int
    sampled: Difference
    heard: Difference
    by: str
    correct: int
    correct_in_torch: int


def compare_clips(voice: Duovox, lite: Voice, settings: SampleConfig | None = None, seed: int = 0) -> ClipsCompared:
    """One clip of each label, by `settings`, the bundle's own if left out. Clips that ran off raise nothing: they count as not heard."""
    wanted = [(label, seed + number) for number, label in enumerate(voice.labels)]
    theirs = [clip for one in wanted for clip in voice.generate_batch([one], settings)]
    ours = [clip for one in wanted for clip in lite.generate_batch([one], settings)]
    sampled = _difference(np.stack([clip.log_mel for clip in theirs]), np.stack([clip.log_mel for clip in ours]))
    waves = np.stack([clip.wave for clip in theirs]), np.stack([clip.wave for clip in ours])
    log_mel = LogMel(voice.config.recipe.mel)
    heard = _difference(*(log_mel(torch.from_numpy(wave)).numpy() for wave in waves))
    by, answers = _answers(voice, waves)
    correct_in_torch, correct = (sum(answer == label for answer, label in zip(found, voice.labels, strict=True)) for found in answers)
    return ClipsCompared(len(wanted), sampled, heard, by, correct, correct_in_torch)


def _answers(voice: Duovox, waves: tuple[NDArray[np.float32], NDArray[np.float32]]) -> tuple[str, list[list[str]]]:
    """Who listens, and what it hears in the waves of either."""
    judge = Judge.load(packaged_judge(voice.labels))
    if set(voice.labels) <= set(judge.labels) and voice.config.recipe.mel.sample_rate == SAMPLE_RATE:
        return "the judge", [[judge.labels[best] for best in judge.score(wave).probabilities.argmax(axis=1)] for wave in waves]
    return "the classifier", [[_best(voice.classify(one)) for one in wave] for wave in waves]


def _best(probabilities: dict[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> Difference:
    gap = np.abs(a - b)
    return Difference(float(gap.max()), float(gap.mean()))
