"""spotters.py: known answers on tones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TONES, tone

from duovox.data import Features, open_features
from duovox.data.noisy import Backgrounds
from duovox.evaluation.cas import CasConfig
from duovox.evaluation.clips import Clips
from duovox.experiments.spotting.spotters import Exam, Lesson, Spotters, false_alarms

QUICK = CasConfig(updates=25, batch=12)
COMMANDS = ("low", "mid")


def clips(each: int, labels: tuple[str | None, ...] = COMMANDS, first: int = 500) -> Clips:
    """Tones by voices from `first` on; those without a label are tones of the third word."""
    said = [label for _ in range(each) for label in labels]
    waves = [np.pad(tone(label or "high", first + place), (0, 12160)) for place, label in enumerate(said)]
    return Clips(np.stack(waves), tuple(said))


@pytest.fixture
def features(tiny_features: Path) -> Features:
    return open_features(tiny_features)


@pytest.fixture
def spotters(features: Features, tmp_path: Path) -> Spotters:
    return Spotters(tmp_path / "spotters", Exam(features, COMMANDS, None, torch.device("cpu")), QUICK)


def test_an_exam_has_the_test_clips_of_the_commands_and_of_other_words(features: Features) -> None:
    exam = Exam(features, ("mid", "low"), None, torch.device("cpu"))
    assert list(exam.mels) == ["clean"] and sorted(exam.label.tolist()) == [0, 0, 1, 1] and exam.other is not None and len(exam.other) == 2
    everything = Exam(features, tuple(TONES), None, torch.device("cpu"))
    assert everything.other is None and everything.digest != exam.digest
    graded = everything.grade(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 3)))
    assert graded.false_alarms is None and graded.known is None


def test_noise_is_at_the_ratios_that_are_said(features: Features) -> None:
    hiss = Backgrounds((np.random.default_rng(0).uniform(-1, 1, 20000).astype(np.float32),), "hiss")
    exam = Exam(features, COMMANDS, hiss, torch.device("cpu"))
    assert list(exam.mels) == ["clean", "10 dB", "0 dB"]
    floors = [float(mel.mean()) for mel in exam.mels.values()]
    assert floors[0] < floors[1] < floors[2], "the louder the noise, the higher the floor below the peak"


def test_what_is_learnt_from_right_clips_is_heard(spotters: Spotters) -> None:
    heard = spotters.graded("right", spotters.lesson([clips(6)]), 0)
    assert heard.accuracy["clean"] == 1.0
    wrong = replace(clips(6), labels=tuple(reversed(COMMANDS)) * 6)
    assert spotters.graded("wrong", spotters.lesson([wrong]), 0).accuracy["clean"] == 0.0


def test_hard_negatives_teach_what_is_no_command(spotters: Spotters) -> None:
    lesson = spotters.lesson([clips(6, (*COMMANDS, None))])
    assert lesson.outputs == 3 and spotters.lesson([clips(6)]).outputs == 2
    heard = spotters.graded("negatives", lesson, 0)
    assert heard.false_alarms == 0.0 and heard.known == 1.0 and heard.accuracy["clean"] == 1.0


def test_a_small_set_is_drawn_from_as_often_as_a_large_one() -> None:
    lesson = Lesson([clips(1), clips(7)], COMMANDS, torch.device("cpu"))
    mel, label = lesson.tensors
    assert len(mel) == len(label) == 28 and torch.equal(mel[:2], mel[12:14]) and label[:14].tolist() == [0, 1] * 7


def test_where_there_is_noise_every_clip_is_learnt_in_it_too() -> None:
    hiss = Backgrounds((np.random.default_rng(0).uniform(-1, 1, 40000).astype(np.float32),), "hiss")
    plain, noisy = (Lesson([clips(1), clips(7)], COMMANDS, torch.device("cpu"), noise) for noise in (None, hiss))
    mel, label = noisy.tensors
    assert len(mel) == len(label) == 56 and label.tolist() == [0, 1] * 28 and plain.digest != noisy.digest
    assert torch.equal(torch.cat([mel[:14], mel[28:42]]), plain.tensors[0]), "the clean ones are there as they were"
    assert bool((mel[14:28].mean((1, 2, 3)) > mel[:14].mean((1, 2, 3))).all()), "noise fills what was silent"


def test_spotters_that_learnt_in_noise_hear_better_in_it(features: Features, tmp_path: Path) -> None:
    hiss = Backgrounds((np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32),), "hiss")
    learnt, asked = hiss.halves(16000)
    exam = Exam(features, COMMANDS, asked, torch.device("cpu"))
    plain, taught = (Spotters(tmp_path / str(bool(noise)), exam, replace(QUICK, updates=60), noise) for noise in (None, learnt))
    noisy = [one.graded("right", one.lesson([clips(6)]), 0).accuracy["0 dB"] for one in (plain, taught)]
    assert noisy[1] >= noisy[0] and noisy[1] == 1.0


def test_false_alarms_are_counted_where_a_tenth_is_missed() -> None:
    known = np.linspace(0, 1, 101)
    assert false_alarms(known, np.array([0.05, 0.0999, 0.1001, 0.9])) == 0.5
    assert false_alarms(known, np.array([0.0])) == 0.0 and false_alarms(known, np.array([1.0])) == 1.0


def test_a_record_counts_for_the_same_clips_exam_and_training_alone(spotters: Spotters) -> None:
    lesson = spotters.lesson([clips(2)])
    assert spotters.known("one", lesson, 0) is None
    made = spotters.graded("one", lesson, 0)
    assert spotters.known("one", lesson, 0) == made
    assert spotters.known("one", lesson, 1) is None
    assert spotters.known("one", spotters.lesson([clips(2, first=7)]), 0) is None
    assert replace(spotters, config=replace(QUICK, updates=26)).known("one", lesson, 0) is None
    (spotters.folder / "one_s0.json").write_text("{")
    assert spotters.known("one", lesson, 0) is None
    assert spotters.graded("one", lesson, 0) == made, "the same again"
