"""dataset/layouts.py: names as Speech Commands has them, tars as WebDataset reads them, the same bytes always."""

from __future__ import annotations

import io
import json
import tarfile
import time

import pytest

from duovox.data.splits import which_split
from duovox.dataset.layouts import Sound, files_of, folders, place_of, split_of, tar_of
from duovox.dataset.plan import Item, Target
from duovox.dataset.records import Record

TARGET = Target(("a/b",), 3)


def record(id: int, file: str) -> Record:
    return {
        "id": id,
        "target": 0,
        "kind": "word",
        "label": "a/b",
        "seed": id,
        "file": file,
        "split": "train",
        "kept": True,
        "dropped": "",
        "fault": "",
        "sha256": "",
        "classifier": {"a/b": 1.0},
        "judge": None,
        "augmentation": {},
    }


def test_a_clip_lies_in_its_words_folder_under_its_seed() -> None:
    item = Item(7, 0, 255)
    assert place_of("speech_commands", TARGET, item, 3) == "a%2Fb/000000ff_nohash_0.wav"
    assert place_of("webdataset", TARGET, item, 3) == "000003.tar/000000007.wav"
    assert folders("speech_commands", [TARGET]) == ["a%2Fb"] and folders("webdataset", [TARGET]) == []


def test_negatives_lie_apart_and_wake_words_by_side_and_split() -> None:
    between, train = Target(("a", "b"), 1, False), Item(0, 2, 1)
    test = next(item for item in (Item(0, 2, seed) for seed in range(99)) if split_of(item) == "test")
    assert place_of("speech_commands", between, train, 0) == "_unknown_/00000001_nohash_2.wav"
    assert folders("speech_commands", [TARGET, between, Target(("c",), 1, False)]) == ["a%2Fb", "_unknown_"]
    assert place_of("openwakeword", between, train, 0) == "negative_train/00000001_nohash_2.wav"
    assert place_of("openwakeword", TARGET, test, 0).startswith("positive_test/")
    assert folders("openwakeword", [TARGET]) == ["positive_train", "positive_test", "negative_train", "negative_test"]


def test_splits_are_those_of_the_official_rule_so_that_a_seed_is_in_one() -> None:
    splits = [split_of(Item(0, 0, seed)) for seed in range(1000)]
    assert splits == [which_split(f"{seed:08x}_nohash_7.wav") for seed in range(1000)]
    assert 70 < splits.count("test") < 130 and 70 < splits.count("validation") < 130


def test_a_tar_holds_a_wav_and_a_json_of_one_name_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [Sound(bytes([id] * 700), record(id, f"000000.tar/{id:09d}.wav")) for id in (4, 5)]
    made = tar_of(sounds, {"bundle": "x"})
    monkeypatch.setattr(time, "time", lambda: 12345.0)
    assert tar_of(sounds, {"bundle": "x"}) == made
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == ["000000004.json", "000000004.wav", "000000005.json", "000000005.wav"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert tar.extractfile("000000005.wav").read() == bytes([5] * 700)  # type: ignore[union-attr]
        assert json.load(tar.extractfile("000000004.json")) == {**sounds[0].record, "bundle": "x"}  # type: ignore[arg-type]


def test_a_shard_without_sounds_has_no_files() -> None:
    assert files_of("webdataset", 0, [], {}) == {} and files_of("speech_commands", 0, [], {}) == {}
