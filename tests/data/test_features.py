"""data/features.py: feature folders opened, and refused where they are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from making import make_words

from duovox.contracts import DataError
from duovox.data import open_features, prepare, read_manifest


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="module")
def folder(words: Path) -> Path:
    prepare(words, words.parent / "features", progress=False)
    return words.parent / "features"


def test_indices_part_the_clips(folder: Path) -> None:
    features = open_features(folder)
    parts = [features.indices(split) for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(range(18))
    with pytest.raises(DataError, match="no split named 'testing'; there are train, validation, test"):
        features.indices("testing")


def test_damaged_feature_folders(folder: Path, words: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no feature folder"):
        open_features(tmp_path)
    broken = tmp_path / "features"
    shutil.copytree(folder, broken)
    (broken / "waves.npy").write_bytes((folder / "waves.npy").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"waves\.npy is missing or damaged"):
        open_features(broken)
    np.save(broken / "waves.npy", np.zeros((3, 4), np.int16))
    with pytest.raises(DataError, match=r"int16 \(3, 4\), its manifest says int16 \(18, 16000\)"):
        open_features(broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    for damage, message in [('{"format": 1', "cannot be read"), (json.dumps(manifest | {"format": 9}), "format 9"), ("[]", "format None")]:
        (broken / "manifest.json").write_text(damage)
        with pytest.raises(DataError, match=message):
            open_features(broken)
    assert prepare(words, broken, progress=False).digest == read_manifest(folder).digest
