"""resampling.py: equal to soxr's, and differentiable."""

from __future__ import annotations

import math

import pytest
import torch
from other_mels import noise, sine

from duovox.classifiers.resampling import Resampler, resample
from duovox.contracts import ConfigError


@pytest.mark.parametrize("new", [8000, 22050, 24000, 44100, 48000])
def test_resampling_equals_soxrs(new: int) -> None:
    import soxr

    low = noise(1, 2000)  # white below 2 kHz
    wave = torch.from_numpy(soxr.resample(low[0].double().numpy(), 4000, 16000, "VHQ"))[None].float() * 0.5
    expected = torch.from_numpy(soxr.resample(wave[0].double().numpy(), 16000, new, "VHQ")).float()
    got = resample(wave, 16000, new)[0]
    assert got.shape[0] == math.ceil(wave.shape[1] * new / 16000)
    middle = slice(new // 20, -new // 20)
    error = got[: len(expected)][middle] - expected[: len(got)][middle]
    assert 10 * torch.log10(expected[middle].square().mean() / error.square().mean()) > 50


@pytest.mark.parametrize(("old", "new"), [(16000, 22050), (16000, 8000), (44100, 16000), (8000, 16000)])
def test_a_resampled_sine_is_the_sine_of_the_new_rate(old: int, new: int) -> None:
    got = resample(sine(1000, old, old // 2), old, new)
    middle = slice(new // 20, -new // 20)
    torch.testing.assert_close(got[:, middle], sine(1000, new, got.shape[1])[:, middle], atol=1e-3, rtol=0)


def test_what_the_new_rate_cannot_hold_is_removed() -> None:
    assert resample(sine(5000, 16000, 8000), 16000, 8000)[:, 200:-200].abs().max() < 1e-3


def test_equal_rates_change_nothing_and_wild_ones_are_refused() -> None:
    wave = noise(2, 100)
    assert torch.equal(resample(wave, 22050, 22050), wave)
    with pytest.raises(ConfigError, match="choose a sample rate"):
        Resampler(16000, 15999)
