"""The log-mel in numpy against that of torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from duovox.config import MelConfig
from duovox.lite.mel import filterbank, log_mel
from duovox.sound.audio import read_excerpt
from duovox.sound.mel import LogMel, mel_filterbank

MELS = [
    MelConfig(),
    MelConfig(n_mels=16, frames=16, clip_samples=3840),
    MelConfig(sample_rate=8000, n_fft=400, win_length=320, hop_length=80, n_mels=40, fmin=20, fmax=3800, clip_samples=4000, frames=64),
]


@pytest.mark.parametrize("mel", MELS)
def test_the_filters(mel: MelConfig) -> None:
    expected = mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax).numpy()
    np.testing.assert_allclose(filterbank(mel), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("mel", MELS)
@pytest.mark.parametrize("loudness", [0.3, 1e-3, 0.0])
def test_of_noise_and_tones(mel: MelConfig, loudness: float) -> None:
    """Down to silence, whose mel is the floor."""
    time = np.arange(mel.clip_samples) / mel.sample_rate
    noise = np.random.default_rng(0).standard_normal((2, mel.clip_samples))
    waves = (loudness * (np.sin(2 * np.pi * 440 * time) + 0.1 * noise)).astype(np.float32)
    np.testing.assert_allclose(log_mel(waves, mel), LogMel(mel)(torch.from_numpy(waves)).numpy(), rtol=0, atol=1e-4)


def test_of_real_speech(recordings: Path) -> None:
    files = sorted((recordings / "speech_commands").rglob("*.ogg"))[::500]
    assert files
    mel = MelConfig()
    waves = np.stack([read_excerpt(file, mel.sample_rate, mel.clip_samples).wave for file in files])
    apart = np.abs(log_mel(waves, mel) - LogMel(mel)(torch.from_numpy(waves)).numpy())
    assert apart.max() < 1e-3 and np.mean(apart > 1e-4) < 1e-3, "float32 rounds where a loud clip has bins near the floor"
