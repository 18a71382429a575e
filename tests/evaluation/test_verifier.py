"""evaluation/verifier.py: the speaker verifier learns who speaks; its rates and ranks are known for known similarities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox.contracts import BundleError, DataError
from duovox.data import Features, open_features
from duovox.evaluation.verifier import (
    Verifier,
    VerifierConfig,
    VerifierMel,
    VerifierNetwork,
    clips_by_speaker,
    equal_error,
    margin_loss,
    rank_of,
    train_verifier,
)

QUICK = VerifierConfig(updates=2, batch=4)
RATE = 16000


def buzz(hertz: float, seed: int, samples: int = 3840) -> np.ndarray:
    """A voice of its own: a buzz of one pitch, in noise; int16 (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * k * time + rng.uniform(0, 6)) / k for k in range(1, 9)) * rng.uniform(0.05, 0.2)
    return ((wave + rng.normal(0, 0.01, samples)).clip(-1, 1) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def voices(tiny_features: Path) -> Features:
    """Four speakers, told apart by their pitch, with twelve train clips and four test clips each."""
    speakers = [(name, hertz) for name, hertz in zip("abcd", (200, 330, 520, 800), strict=True) for _ in range(16)]
    waves = np.stack([buzz(hertz, number) for number, (_, hertz) in enumerate(speakers)])
    split = np.array((["train"] * 12 + ["test"] * 4) * 4)
    names = tuple(name for name, _ in speakers)
    return replace(open_features(tiny_features), waves=waves, speakers=names, split=split, label=np.zeros(64, np.int64))


def test_it_learns_who_speaks_and_is_the_same_every_time(voices: Features) -> None:
    config = VerifierConfig(updates=80, batch=4, margin=0.0)
    verifier = train_verifier(voices, config)
    clips = clips_by_speaker(voices, "test")
    embedded = np.stack([verifier.embed(voices.waves[found]) for found in clips.values()])
    prints = embedded[:, 1:].mean(axis=1)
    assert [rank_of(prints @ embedded[number, 0], number) for number in range(4)] == [1, 1, 1, 1]
    assert train_verifier(voices, replace(config, updates=2)).digest == train_verifier(voices, replace(config, updates=2)).digest


def test_embeddings_have_length_one_and_depend_on_no_other_clip_nor_loudness(voices: Features) -> None:
    verifier = train_verifier(voices, QUICK)
    waves = voices.waves[:3].astype(np.float32) / 32768
    together = verifier.embed(waves)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(verifier.embed(waves[1:2])[0], together[1], atol=1e-5)
    np.testing.assert_allclose(verifier.embed(waves / 4), together, atol=1e-3)
    np.testing.assert_allclose(verifier.embed(voices.waves[:3]), together, atol=1e-5)


def test_the_front_end_takes_the_mean_of_each_band_off() -> None:
    mel = VerifierMel()(torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)))
    assert mel.shape == (2, 40, 101)
    torch.testing.assert_close(mel.mean(dim=2), torch.zeros(2, 40), atol=1e-4, rtol=0)


def test_a_file_is_read_back_and_anything_else_is_refused(voices: Features, tmp_path: Path) -> None:
    verifier = train_verifier(voices, QUICK)
    verifier.save(tmp_path / "verifier.safetensors")
    again = Verifier.load(tmp_path / "verifier.safetensors")
    assert again.digest == verifier.digest
    np.testing.assert_array_equal(again.embed(voices.waves[:2]), verifier.embed(voices.waves[:2]))
    (tmp_path / "other").write_bytes(b"no tensors")
    for path in (tmp_path / "other", tmp_path / "absent"):
        with pytest.raises(BundleError, match="is no speaker verifier") as caught:
            Verifier.load(path)
        assert "\n" not in str(caught.value)


def test_data_without_speakers_is_refused(voices: Features) -> None:
    alone = replace(voices, speakers=tuple(str(number) for number in range(64)))
    with pytest.raises(DataError, match="needs two speakers of 3 train clips each"):
        train_verifier(alone, QUICK)
    with pytest.raises(DataError, match="hears 16000 Hz, these features are of 8000 Hz"):
        train_verifier(replace(voices, mel=replace(voices.mel, sample_rate=8000, fmax=4000.0)), QUICK)


def test_the_right_one_has_to_win_by_the_margin() -> None:
    cosines, speaker = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
    even = margin_loss(cosines, speaker, VerifierConfig(scale=20.0, margin=0.1))
    assert even.item() == pytest.approx(np.log(2), rel=1e-5)
    assert margin_loss(cosines, speaker, VerifierConfig(scale=20.0, margin=0.0)).item() < 0.2


def test_the_equal_error_of_known_similarities() -> None:
    same, different = np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.3, 0.1, 0.75])
    rate, threshold = equal_error(same, different)
    assert rate == pytest.approx(0.25) and 0.3 < threshold <= 0.7
    assert equal_error(np.array([0.8, 0.9]), np.array([0.1, 0.2]))[0] == 0.0
    assert equal_error(np.array([0.1, 0.2]), np.array([0.8, 0.9]))[0] == pytest.approx(1.0)


def test_ranks() -> None:
    similarities = np.array([0.1, 0.9, 0.5, 0.5])
    assert [rank_of(similarities, wanted) for wanted in range(4)] == [4, 1, 3, 3]


def test_the_network_gives_directions_for_any_length() -> None:
    network = VerifierNetwork().eval()
    for frames in (10, 101):
        torch.testing.assert_close(network(torch.randn(2, 40, frames)).norm(dim=1), torch.ones(2))
