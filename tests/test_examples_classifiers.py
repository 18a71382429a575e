"""examples/classifiers: the three classifiers, what they hear, and a training of two updates."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from duovox.config import MelConfig
from duovox.data import prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "classifiers"))

import features as heard
import m5
import train

LABELS = ("high", "low", "mid")


@pytest.fixture(scope="module")
def seconds(tiny_words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature folder of `tiny_words` with clips of one second."""
    out = tmp_path_factory.mktemp("seconds") / "features"
    prepare(tiny_words, out, MelConfig(), progress=False)
    return out


def sine(hertz: float) -> torch.Tensor:
    """One second of it, (1, 16000)."""
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000).unsqueeze(0)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_sine_peaks_in_its_band(hertz: float) -> None:
    picture = heard.log_mel(sine(hertz))
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (20.0, 7600.0))
    band = (2595 * np.log10(1 + hertz / 700) - low) / (high - low) * 65 - 1
    assert picture.shape == (1, 1, 64, 101)
    assert abs(int(picture[0, 0, :, 50].argmax()) - band) <= 1


def test_silence_is_the_floor() -> None:
    assert torch.allclose(heard.log_mel(torch.zeros(1, 16000)), torch.tensor(1e-6).log())
    assert torch.allclose(heard.whisper_mel(torch.zeros(1, 16000)), torch.tensor(-1.5))


def test_neighbouring_htk_filters_add_up_to_one() -> None:
    filters = heard.mel_filters(64, 512, 20.0, 7600.0)
    inner = slice(2, 233)  # bins from 62.5 to 7250 Hz: between the middles of the first filter and the last
    torch.testing.assert_close(filters.sum(dim=0)[inner], torch.ones(231))


def test_whisper_mel_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    wave = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) + sine(440.0)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    want = extractor(list(wave.numpy()), sampling_rate=16000, return_tensors="pt").input_features
    got = heard.whisper_mel(wave)
    assert got.shape == (2, 80, 100)
    assert (got - want).abs().max() < 1e-4


def test_half_rate_keeps_what_8_khz_can_hold() -> None:
    kept, gone = heard.half_rate(sine(1000.0)), heard.half_rate(sine(6000.0))
    assert kept.shape == (1, 1, 8000)
    assert torch.allclose(kept[..., 100:-100], sine(1000.0)[:, None, ::2][..., 100:-100], atol=2e-3)
    assert gone[..., 100:-100].abs().max() < 1e-2


def test_masks_hide_strips_behind_the_mean() -> None:
    picture = torch.randn(8, 1, 64, 101, generator=torch.Generator().manual_seed(0))
    changed = train.masked(picture, torch.Generator().manual_seed(1)) != picture
    assert 0 < changed.float().mean() < 12 / 64 + 20 / 101
    whole_bands, whole_frames = changed.all(dim=-1, keepdim=True), changed.all(dim=-2, keepdim=True)
    assert torch.equal(changed, whole_bands | whole_frames)


def test_disturbing_moves_and_scales() -> None:
    wave = torch.zeros(64, 16000)
    wave[:, 8000] = 0.1
    moved = train.disturb(wave, torch.Generator().manual_seed(0))
    assert ((moved.argmax(dim=1) - 8000).abs() <= 1600).all()
    assert ((moved.amax(dim=1) >= 0.05) & (moved.amax(dim=1) <= 0.2)).all()
    assert moved.argmax(dim=1).unique().numel() > 32


def test_m5_takes_a_wave_and_gives_logits() -> None:
    assert m5.build(5)(torch.randn(2, 1, 8000)).shape == (2, 5)


def test_resnet18_takes_a_picture_and_gives_an_output_object() -> None:
    pytest.importorskip("transformers")
    import resnet18

    assert resnet18.build(5)(torch.randn(2, 1, 64, 101)).logits.shape == (2, 5)


def test_whisper_tiny_takes_features_and_knows_the_words() -> None:
    pytest.importorskip("transformers")
    import whisper_tiny

    model = whisper_tiny.build(3, LABELS)
    assert model(torch.randn(2, 80, 100)).logits.shape == (2, 3)
    assert tuple(model.config.id2label.values()) == LABELS


def check_facts(out: Path, kind: str, shape: list[int]) -> None:
    facts = json.loads((out / "facts.json").read_text())
    assert (facts["kind"], facts["labels"], facts["input"], facts["updates"]) == (kind, list(LABELS), shape, 2)
    assert 0 <= facts["test_accuracy"] <= 1


def test_m5_trains_and_exports(seconds: Path, tmp_path: Path) -> None:
    train.main("m5", seconds, tmp_path / "m5", updates=2, export=True)
    check_facts(tmp_path / "m5", "m5", [1, 1, 8000])
    model = m5.build(len(LABELS)).eval()
    model.load_state_dict(load_file(tmp_path / "m5" / "weights.safetensors"))
    wave = torch.randn(3, 1, 8000, generator=torch.Generator().manual_seed(0))
    exported = torch.export.load(tmp_path / "m5" / "m5.pt2").module()
    traced = torch.jit.load(tmp_path / "m5" / "m5.ts.pt")
    torch.testing.assert_close(exported(wave), model(wave))
    torch.testing.assert_close(traced(wave), model(wave))


def test_resnet18_trains_on_normalised_pictures(seconds: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    train.main("resnet18", seconds, tmp_path, updates=2)
    check_facts(tmp_path, "resnet18", [1, 1, 64, 101])
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["std"] > 0 and facts["mean"] < 0


def test_whisper_tiny_trains_into_a_hugging_face_folder(seconds: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    train.main("whisper_tiny", seconds, tmp_path, updates=2)
    check_facts(tmp_path, "whisper_tiny", [1, 80, 100])
    model = transformers.WhisperForAudioClassification.from_pretrained(tmp_path)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert transformers.WhisperFeatureExtractor.from_pretrained(tmp_path).chunk_length == 1


def test_other_features_are_refused(tiny_features: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="one second"):
        train.main("m5", tiny_features, tmp_path, updates=2)
