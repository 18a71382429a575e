"""bridge.py: spectra, filters and frame times of other mels, from ours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from other_mels import HTK, SOURCE, TARGETS, noise, sine, voice
from torch import nn

from duovox.classifiers.bridge import (
    SpectrumBridge,
    hann_autocorrelation,
    noise_bias,
    target_filterbank,
    window_change,
)
from duovox.classifiers.front_end import MelFrontEnd
from duovox.config import MelInput
from duovox.sound.mel import LogMel


def test_the_spread_spectrum_has_our_mel() -> None:
    bridge, log_mel = SpectrumBridge(SOURCE, HTK), LogMel(SOURCE)(voice())[:, 0]
    size = bridge.magnitudes(log_mel)
    assert (size > 0).all()
    assert (torch.log(bridge.bank @ size) - log_mel).abs().mean() < 0.1


def test_window_change_of_equal_transforms_is_the_identity() -> None:
    torch.testing.assert_close(window_change(SOURCE, MelInput()), torch.eye(513))


@pytest.mark.parametrize("name", TARGETS)
def test_window_change_keeps_a_white_spectrum_white(name: str) -> None:
    target = TARGETS[name]
    change = window_change(SOURCE, target)
    energy = (target.win_length * target.sample_rate) / (SOURCE.win_length * SOURCE.sample_rate)  # sum of squares of a Hann window: 3/8 N
    heard = torch.arange(change.shape[0]) * target.sample_rate / target.n_fft <= SOURCE.sample_rate / 2
    torch.testing.assert_close(change.sum(1)[heard], torch.full((int(heard.sum()),), energy), rtol=1e-4, atol=0)
    assert (change >= 0).all()
    assert not change[~heard][1:].any()


@pytest.mark.parametrize("n_fft", [1024, 400])
def test_window_change_widens_a_tone_as_the_shorter_window_does(n_fft: int) -> None:
    tone = sine(1000, 16000, 16384)
    ours, theirs = (
        torch.stft(tone, n, 256, size, torch.hann_window(size), return_complex=True).abs().square()[0, :, 10:-10].mean(1)
        for n, size in ((1024, 1024), (n_fft, 400))
    )
    peak = n_fft // 16
    near = slice(peak - n_fft // 400, peak + n_fft // 400 + 1)
    changed = window_change(SOURCE, replace(HTK, n_fft=n_fft)) @ ours
    torch.testing.assert_close(changed[near], theirs[near], rtol=0.05, atol=0)


def test_hann_autocorrelation() -> None:
    window = np.hanning(1001)
    expected = np.correlate(window, window, "full")[1000:] / np.sum(window**2)
    lags = torch.arange(1001, dtype=torch.float64)
    np.testing.assert_allclose(hann_autocorrelation(lags / 1000).numpy(), expected, atol=1e-3)
    assert hann_autocorrelation(torch.tensor([1.5])) == pytest.approx(0, abs=1e-6)


def test_noise_bias_of_a_single_bin_is_that_of_the_exponential_distribution() -> None:
    bank = torch.zeros(1, 201)
    bank[0, 50] = 2.0
    assert noise_bias(bank, 400, 400, 2).item() == pytest.approx(-0.577216, abs=1e-4)  # E[ln X], X exponential of mean 1
    broad = torch.ones(1, 201)
    assert noise_bias(broad, 400, 400, 1).item() == pytest.approx(math.log(math.pi / 4) / 2, abs=5e-3)


def test_frames_are_interpolated_where_they_lie_in_time() -> None:
    target = MelInput(hop_length=160, frames=101)
    ramp = (torch.arange(64.0) * 256 / 16000 - 5).expand(1, 1, 80, 64)
    expected = torch.arange(101.0) * 160 / 16000 - 5
    torch.testing.assert_close(MelFrontEnd(SOURCE, target)(ramp), expected.expand(1, 1, 80, 101), atol=1e-5, rtol=0)


def test_after_the_end_the_last_frame_is_held_and_then_there_is_silence() -> None:
    front = MelFrontEnd(SOURCE, MelInput(frames=80))
    out = front(torch.full((1, 1, 80, 64), -2.0))[0, 0, 0]
    assert (out[:65] == -2).all()
    assert out[65:].numpy() == pytest.approx(math.log(1e-5))
    wave = nn.functional.pad(noise(1, 16128), (0, 6000))
    assert (front.from_wave(wave)[0, 0, :, 65:] < -10).all()
    assert (front.from_wave(wave)[0, 0, :, 64] > -10).any()


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_filters_equal_librosas(scale: str, norm: str) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa (extra test) is absent")
    target = replace(HTK, filters=scale, filter_norm=norm, n_mels=40)
    expected = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=40, fmin=20, fmax=7600, htk=scale == "htk", norm=None if norm == "none" else norm
    )
    np.testing.assert_allclose(target_filterbank(target).numpy(), expected, atol=2e-6)
