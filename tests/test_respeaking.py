"""respeaking.py: what is coarser than sigma stays as it was recorded, what is finer is the voice's; waves, labels and speakers stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import Recipe
from duovox.contracts import ConfigError, DataError, OutputError
from duovox.data import open_features, prepare, read_manifest
from duovox.respeaking import respeak
from duovox.training.vocoder import VocoderTraining
from duovox.voice import Duovox


@pytest.fixture
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def test_the_clips_are_the_same_and_their_mels_the_voices(voice: Duovox, tiny_features: Path, tmp_path: Path) -> None:
    before = open_features(tiny_features)
    respeak(voice, tiny_features, tmp_path / "near", sigma=0.02)
    respeak(voice, tiny_features, tmp_path / "far", sigma=2.0)
    near, far = open_features(tmp_path / "near"), open_features(tmp_path / "far")
    assert np.array_equal(near.waves, before.waves) and near.speakers == before.speakers and near.stems == before.stems
    assert np.array_equal(near.label, before.label) and np.array_equal(near.split, before.split)
    distance = [np.abs(one.log_mels.astype(float) - before.log_mels.astype(float)).mean() for one in (near, far)]
    assert 0 < distance[0] < 0.2 < distance[1]
    assert near.digest != before.digest != far.digest and near.respoken and not before.respoken
    assert "said again by the voice" in read_manifest(tmp_path / "near").notes[-1]


def test_some_of_the_clips(voice: Duovox, tiny_features: Path, tmp_path: Path) -> None:
    manifest = respeak(voice, tiny_features, tmp_path / "some", clips=6)
    some, whole = open_features(tmp_path / "some"), open_features(tiny_features)
    assert [len(some.indices(split)) for split in ("train", "validation", "test")] == [6, 2, 2]
    assert manifest.counts == {
        label: {split: int(((some.split == split) & (some.label == number)).sum()) for split in ("train", "validation", "test")}
        for number, label in enumerate(some.labels)
    }
    for place, stem in enumerate(some.stems):
        same = [i for i, other in enumerate(whole.stems) if other == stem and whole.label[i] == some.label[place]]
        assert np.array_equal(some.waves[place], whole.waves[same[0]])


def test_it_is_left_where_it_is_up_to_date(voice: Duovox, tiny_features: Path, tmp_path: Path) -> None:
    first = respeak(voice, tiny_features, tmp_path / "o", clips=3)
    written = (tmp_path / "o" / "log_mels.npy").stat().st_mtime_ns
    assert respeak(voice, tiny_features, tmp_path / "o", clips=3) == first
    assert (tmp_path / "o" / "log_mels.npy").stat().st_mtime_ns == written
    assert respeak(voice, tiny_features, tmp_path / "o", sigma=0.3, clips=3).digest != first.digest


def test_the_vocoder_is_given_the_voices_mels_as_loud_as_the_wave(
    voice: Duovox, tiny_features: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    respeak(voice, tiny_features, tmp_path / "o", sigma=1.0)
    features = open_features(tmp_path / "o")
    training = VocoderTraining(dataclasses.replace(tiny_recipe), features, torch.device("cpu"), None)
    batch = training.batches.at(0)
    wave = training.pad(batch.wave)
    assert torch.equal(training.mels_of(batch, wave), batch.log_mel)
    louder = training.mels_of(batch, 2 * wave, torch.full((len(wave), 1), 2.0))
    inside = batch.log_mel > -11
    assert torch.allclose(louder[inside], batch.log_mel[inside] + np.log(2.0), atol=1e-5) and louder.min() >= np.log(1e-5) - 1e-4
    plain = VocoderTraining(tiny_recipe, open_features(tiny_features), torch.device("cpu"), None)
    assert torch.equal(plain.mels_of(plain.batches.at(0), wave), plain.log_mel(wave))


def test_what_cannot_be_said_again(voice: Duovox, tiny_features: Path, tiny_words: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    for sigma in (0.0, 0.01, 80.0, -1.0):
        with pytest.raises(ConfigError, match=r"sigma must lie between 0\.01 and 80"):
            respeak(voice, tiny_features, tmp_path / "o", sigma=sigma)
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        respeak(voice, tiny_features, tmp_path / "o", clips=0)
    mel = dataclasses.replace(tiny_recipe.mel, n_mels=24)
    prepare(tiny_words, tmp_path / "other", mel, progress=False)
    with pytest.raises(DataError, match="n_mels 16 wanted, 24 stored"):
        respeak(voice, tmp_path / "other", tmp_path / "o")
    with pytest.raises((DataError, OutputError)):
        respeak(voice, tiny_features, tiny_features)
    assert not (tmp_path / "o").exists()


def test_by_command(bundle_folder: Path, tiny_features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "respeak", str(tiny_features), "--bundle", str(bundle_folder), "--out", str(tmp_path / "o"), "--clips", "6"]
    assert main([*command, "--precision", "fp32"]) == 0
    assert "10 clips, log-mels said again by the voice" in capsys.readouterr().out
