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
    """Torch transforms in float32, so that bands far quieter than the loudest of their frame are rounded: there it is off by more, and
    the same transform in float64 is not."""
    files = sorted((recordings / "speech_commands" / "three").iterdir())[:20]
    mel = MelConfig()
    waves = np.stack([read_excerpt(file, mel.sample_rate, mel.clip_samples).wave for file in files])
    ours, theirs = log_mel(waves, mel), LogMel(mel)(torch.from_numpy(waves)).numpy()
    far = np.abs(ours - theirs) > 1e-4
    assert far.mean() < 0.002 and np.abs(ours - theirs).max() < 3e-3 and theirs[far].max() < -8
    padded = torch.nn.functional.pad(torch.from_numpy(waves).double(), (0, mel.padded_samples - mel.clip_samples))
    window = torch.hann_window(mel.win_length, dtype=torch.float64)
    size = torch.sqrt(torch.stft(padded, mel.n_fft, mel.hop_length, window=window, return_complex=True).abs().square() + 1e-12)
    exact = torch.log((LogMel(mel).filterbank.double() @ size).clamp(min=mel.floor)).numpy()
    np.testing.assert_allclose(ours[:, 0], exact, rtol=0, atol=1e-5)
