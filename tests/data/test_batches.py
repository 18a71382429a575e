"""data/batches.py: batches are a pure function of seed and step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making import MEL, make_words

from duovox.contracts import DataError
from duovox.data import Batches, in_order, open_features, prepare
from duovox.data.batches import balanced


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepare(make_words(root / "words"), root / "features", progress=False)
    return root / "features"


def test_batches_are_a_pure_function_of_seed_and_step(folder: Path) -> None:
    features = open_features(folder)
    batches = Batches(features, "train", 4, seed=1)
    later = batches.at(7)
    batches.at(0)
    again = Batches(open_features(folder), "train", 4, seed=1).at(7)
    assert later.log_mel.shape == (4, 1, MEL.n_mels, MEL.frames) and later.log_mel.dtype == torch.float32
    assert later.wave.shape == (4, MEL.clip_samples) and later.wave.dtype == torch.float32 and later.label.dtype == torch.int64
    for name in ("log_mel", "wave", "label"):
        assert torch.equal(getattr(later, name), getattr(again, name))
    assert not np.array_equal(Batches(features, "train", 10, seed=2).indices_at(0), Batches(features, "train", 10, seed=1).indices_at(0))


@pytest.mark.parametrize("batch", [1, 3, 10, 25])
def test_every_epoch_shows_every_clip_once(folder: Path, batch: int) -> None:
    """Batches run on from one epoch into the next, also where one is larger than the split."""
    batches = Batches(open_features(folder), "train", batch, seed=0)
    stream = np.concatenate([batches.indices_at(step) for step in range(-(-30 // batch))])
    wanted = sorted(open_features(folder).indices("train"))
    for epoch in range(3):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == wanted
    assert list(stream[:10]) != list(stream[10:20])


def test_in_order_is_one_pass(folder: Path) -> None:
    features = open_features(folder)
    batches = list(in_order(features, "train", 4))
    assert [len(b.label) for b in batches] == [4, 4, 2]
    assert torch.cat([b.label for b in batches]).tolist() == features.label[features.indices("train")].tolist()
    np.testing.assert_array_equal(batches[0].wave[0] * 2**15, features.waves[features.indices("train")[0]])


def test_batches_refuse_an_empty_split_or_batch(tmp_path: Path, folder: Path) -> None:
    prepare(make_words(tmp_path / "words", train=3, held=0), tmp_path / "features", progress=False)
    features = open_features(tmp_path / "features")
    with pytest.raises(DataError, match="the validation split has no clips"):
        Batches(features, "validation", 4, seed=0)
    with pytest.raises(DataError, match="the test split has no clips"):
        list(in_order(features, "test", 4))
    with pytest.raises(DataError, match="batch size"):
        Batches(open_features(folder), "train", 0, seed=0)


def test_balance_repeats_the_clips_of_rare_labels() -> None:
    """8 clips of label 0, 2 of label 1, 4 of label 2: repeats 1, 4, 2 at full balance, their square roots at one half."""
    labels = np.array([0] * 8 + [1] * 2 + [2] * 4)
    indices = np.arange(14)
    for balance, counts in ((0.0, [8, 2, 4]), (0.5, [8, 4, 4]), (1.0, [8, 8, 8])):
        assert np.bincount(labels[balanced(indices, labels, balance)]).tolist() == counts
    assert set(balanced(indices, labels, 1.0).tolist()) == set(range(14))
    assert np.array_equal(balanced(indices[8:], labels, 1.0), [8, 8, 9, 9, 10, 11, 12, 13]), "only among the clips that are asked for"
    assert np.bincount(balanced(indices, labels - 1, 1.0)).tolist() == [1] * 8 + [4] * 2 + [2] * 4, "no label counts as one"
