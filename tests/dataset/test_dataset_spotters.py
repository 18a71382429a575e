"""dataset/run.py for keyword spotters: judged clips, what lies between words, windows, augmentation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from dataset_making import here, make, options, rows

from duovox.contracts import LabelError, OutputError
from duovox.dataset.estimate import estimate
from duovox.dataset.options import Augmentation
from duovox.dataset.run import make_dataset, plan_dataset
from duovox.evaluation.judge import CompactJudge, Judge, Scores
from duovox.sound.audio import write_audio


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of the tiny bundle's words, with random weights."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    Judge("compact", ("high", "low", "mid"), CompactJudge(3).state_dict()).save(place)
    return place


def heard(monkeypatch: pytest.MonkeyPatch, answers: list[list[float]]) -> None:
    """Let judges answer with these probabilities of high, low and mid, in turn."""
    turn = itertools.cycle(answers)

    def score(self: Judge, waves: Any, batch: int = 64) -> Scores:
        return Scores(np.array([next(turn) for _ in waves], np.float32), np.zeros((len(waves), 1), np.float32))

    monkeypatch.setattr(Judge, "score", score)


def test_only_clips_that_are_heard_right_are_kept_and_the_others_counted(
    bundle_folder: Path, judge_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard(monkeypatch, [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])  # low, then high
    given = {"judge": judge_file, "judged": True, "words": ("low",), "manifest": "jsonl"}
    outcome = make(bundle_folder, tmp_path / "set", **given)
    assert [(tally.tried, tally.kept) for tally in outcome.tallies] == [(7, 4)]
    table = rows(tmp_path / "set")
    assert [(row["seed"], row["kept"], row["dropped"]) for row in table] == [(n, n % 2 == 0, "judge" * (n % 2)) for n in range(7)]
    assert table[1]["judge"] == {"high": 0.5, "low": 0.3, "mid": 0.2} and table[1]["judged_by"] == Judge.load(judge_file).digest
    heard(monkeypatch, [[0.1, 0.7, 0.2]])
    stricter = make(bundle_folder, tmp_path / "stricter", threshold=0.9, **given)
    assert [(tally.tried, tally.kept) for tally in stricter.tallies] == [(16, 0)], "up to the limit"


def test_between_words_nothing_is_kept_in_which_a_word_asked_for_is_heard(
    bundle_folder: Path, judge_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard(monkeypatch, [[0.1, 0.7, 0.2]])  # low, whatever was meant
    given = {"judge": judge_file, "judged": True, "per_word": 2, "between": 3, "outside": 1, "tries": 2, "manifest": "jsonl"}
    outcome = make(bundle_folder, tmp_path / "set", words=("low",), **given)
    named = {target.name: (tally.tried, tally.kept) for target, tally in zip(outcome.targets, outcome.tallies, strict=True)}
    assert named == {"low": (2, 2), "high+low": (4, 0), "low+mid": (2, 0), "high": (2, 0), "mid": (2, 0)}
    other = make(bundle_folder, tmp_path / "other", words=("mid",), **given)
    named = {target.name: tally.kept for target, tally in zip(other.targets, other.tallies, strict=True)}
    assert named == {"mid": 0, "high+mid": 2, "low+mid": 1, "high": 0, "low": 1}
    table = {(row["label"], row["kind"], row["file"].split("/")[0]) for row in rows(tmp_path / "other") if row["kept"]}
    assert table == {("high+mid", "between", "_unknown_"), ("low+mid", "between", "_unknown_"), ("low", "outside", "_unknown_")}


def test_a_judge_that_is_to_decide_must_know_the_words(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="this judge was not trained on high, low, mid"):
        make(bundle_folder, tmp_path / "set", judged=True)
    assert not (tmp_path / "set").exists()


def test_wake_words_in_windows_of_two_seconds_by_side_and_split(bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    planned = plan_dataset(
        options(bundle_folder, out, words=("low",), per_word=20, between=6, outside=2, layout="openwakeword", manifest="jsonl")
    )
    assert planned.clips == 30 and "30 clips of 1 words, 10 of them negatives" in estimate(planned)
    make_dataset(planned, here())
    table = rows(out)
    sides = {(row["kind"], row["split"] == "train", row["file"].split("/")[0]) for row in table}
    assert sides == {
        ("word", True, "positive_train"),
        ("word", False, "positive_test"),
        *{(kind, split, f"negative_{'train' if split else 'test'}") for kind, split, _ in sides if kind != "word"},
    }
    assert len({row["file"] for row in table}) == 30
    for row in table:
        info = soundfile.info(out / row["file"])
        assert (info.samplerate, info.frames, info.channels, info.subtype) == (16000, 32000, 1, "PCM_16")
        assert 0 <= row["augmentation"]["jitter_ms"] <= 200


def test_augmented_clips_are_the_same_from_any_shards_and_other_noise_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        write_audio(noise / f"{name}.wav", rng.normal(0, 0.1, 32000), 16000, parents=True)
    augmentation = Augmentation(noise=noise, rooms=0.5, gain=3.0, shift=50.0)

    def made(out: Path, **others: Any) -> dict[str, str]:
        planned = plan_dataset(options(bundle_folder, out, manifest="jsonl", **others), None, augmentation)
        make_dataset(planned, here())
        return {row["file"]: row["sha256"] for row in rows(out)}

    assert made(tmp_path / "a") == made(tmp_path / "b", shard=6)
    assert made(tmp_path / "a").keys() == {row["file"] for row in rows(tmp_path / "a")}
    told = [row["augmentation"] for row in rows(tmp_path / "a")]
    always = {"shift_ms", "noise", "gain_db"}
    assert {frozenset(one) for one in told} == {frozenset(always), frozenset(always | {"room"})}
    write_audio(noise / "three.wav", rng.normal(0, 0.1, 32000), 16000)
    with pytest.raises(OutputError, match=r"made with augmentation\.noise = '"):
        made(tmp_path / "a")
