"""choosing.py: some clips of a feature folder as one of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duovox.contracts import DataError
from duovox.data import Batches, open_features, read_manifest
from duovox.data.choosing import first_train_clips, write_chosen


def test_fewer_clips_are_the_first_of_more_and_all_of_them_are_trained_on(tiny_features: Path) -> None:
    features = open_features(tiny_features)
    few, more = (first_train_clips(features, ["low", "high"], count).reshape(2, count) for count in (2, 5))
    assert (more[:, :2] == few).all() and len(np.unique(more)) == 10
    assert (features.split[more] == "train").all()
    assert [[features.labels[features.label[place]] for place in row] for row in few] == [["low", "low"], ["high", "high"]]
    assert len(first_train_clips(features, ["low"], 1000)) == 6, "as many as there are"


def test_labels_without_clips_are_refused(tiny_features: Path) -> None:
    features = open_features(tiny_features)
    with pytest.raises(DataError, match="the data has no label 'eleven'; it has high, low, mid"):
        first_train_clips(features, ["low", "eleven"], 2)
    features.split[features.label == 1] = "test"
    with pytest.raises(DataError, match="the data has no train clips of 'low'; add clips"):
        first_train_clips(features, ["low"], 2)


def test_a_folder_of_chosen_clips_is_one_to_train_on(tiny_features: Path, tmp_path: Path) -> None:
    whole = open_features(tiny_features)
    chosen = first_train_clips(whole, ["mid", "high"], 3)
    manifest = write_chosen(tiny_features, tmp_path / "few", ["mid", "high"], chosen)
    few = open_features(tmp_path / "few", whole.mel)
    assert few.labels == ("mid", "high") and few.label.tolist() == [0, 0, 0, 1, 1, 1] and few.digest != whole.digest
    assert (few.waves == whole.waves[chosen]).all() and (few.log_mels == whole.log_mels[chosen]).all()
    assert [few.stems[place] for place in range(6)] == [whole.stems[place] for place in chosen]
    assert manifest.counts == {label: {"train": 3, "validation": 0, "test": 0} for label in ("mid", "high")}
    assert few.statistics.mean == pytest.approx(float(whole.log_mels[chosen].astype(np.float64).mean()), abs=1e-3)
    assert set(Batches(few, "train", 6, seed=0).indices_at(0)) == set(range(6))


def test_the_same_clips_are_not_written_again_and_others_take_their_place(tiny_features: Path, tmp_path: Path) -> None:
    features = open_features(tiny_features)
    for count, written in ((2, True), (2, False), (3, True)):
        before = (tmp_path / "few" / "waves.npy").stat().st_ino if (tmp_path / "few").is_dir() else None
        write_chosen(tiny_features, tmp_path / "few", ["low"], first_train_clips(features, ["low"], count))
        assert ((tmp_path / "few" / "waves.npy").stat().st_ino != before) == written
    assert len(read_manifest(tmp_path / "few").stems) == 3
