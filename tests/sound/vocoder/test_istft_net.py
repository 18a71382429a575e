"""The neural vocoder and its voice source: shapes, independence, gradients, refusal of foreign mels, pitch with known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duovox.config import MelConfig, VocoderConfig
from duovox.contracts import BundleError, ShapeError
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.istft_net import ISTFTNet, interpolation
from duovox.sound.vocoder.source import PITCHES, PitchHead, measure_pitch, pitch_grid, pitch_loss, pulses

MEL = MelConfig(clip_samples=7000, frames=32)
TINY = VocoderConfig(width=16, hidden=32, blocks=2, pitch_width=8, refinements=2)


def hum(hertz: float, samples: int = MEL.clip_samples) -> Tensor:
    """Ten harmonics of one pitch, (1, samples)."""
    time = torch.arange(samples, dtype=torch.float64) / MEL.sample_rate
    return (0.05 * sum(torch.cos(2 * math.pi * k * hertz * time + k) for k in range(1, 11))).float()[None]


@pytest.fixture(scope="module")
def vocoder() -> ISTFTNet:
    torch.manual_seed(0)
    return ISTFTNet(TINY, MEL).eval()


@pytest.fixture(scope="module")
def log_mel() -> Tensor:
    noise = 0.03 * torch.randn(1, MEL.clip_samples, generator=torch.Generator().manual_seed(0))
    return LogMel(MEL)(torch.cat([hum(130), hum(210), noise]))


def test_shape_range_and_determinism(vocoder: ISTFTNet, log_mel: Tensor) -> None:
    wave = vocoder(log_mel)
    assert wave.shape == (3, MEL.clip_samples)
    assert wave.abs().max() <= 1
    assert torch.equal(wave, vocoder(log_mel))


def test_the_default_makes_one_second_of_64_frames() -> None:
    mel = MelConfig()
    vocoder = ISTFTNet(VocoderConfig(), mel)
    assert vocoder(torch.full((1, 1, 80, 64), -6.0)).shape == (1, 16000)
    assert vocoder.synthesise(torch.full((1, 1, 80, 64), -6.0))[0].shape == (1, 63 * 256)
    assert 1e6 < sum(p.numel() for p in vocoder.parameters()) < 4e6


def test_a_clip_does_not_depend_on_its_neighbours(vocoder: ISTFTNet, log_mel: Tensor) -> None:
    alone = torch.cat([vocoder(one) for one in log_mel.split(1)])
    torch.testing.assert_close(vocoder(log_mel), alone, atol=2e-6, rtol=0)


def test_a_hair_in_the_mel_is_no_more_than_a_hair_in_the_sound(vocoder: ISTFTNet, log_mel: Tensor) -> None:
    nudged = log_mel + 1e-6 * torch.randn(log_mel.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vocoder(nudged), vocoder(log_mel), atol=5e-4, rtol=0)


def test_gradients_pass_to_the_mel(vocoder: ISTFTNet, log_mel: Tensor) -> None:
    given = log_mel.clone().requires_grad_()
    vocoder(given).square().sum().backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert (given.grad.flatten(1).norm(dim=1) > 0).all()


def test_even_untrained_it_is_near_its_mel(vocoder: ISTFTNet, log_mel: Tensor) -> None:
    assert (LogMel(MEL)(vocoder(log_mel)) - log_mel)[..., 2:-6].abs().mean() < 0.4


def test_silence_stays_silent(vocoder: ISTFTNet) -> None:
    assert vocoder(torch.full((1, 1, MEL.n_mels, MEL.frames), math.log(MEL.floor))).abs().max() < 1e-4


@pytest.mark.parametrize(("field", "value"), [("hop_length", 200), ("fmax", 7600.0), ("floor", 1e-4), ("n_mels", 64)])
def test_a_foreign_mel_is_refused_with_both_values(vocoder: ISTFTNet, field: str, value: float) -> None:
    vocoder.check(MEL)
    with pytest.raises(BundleError, match=rf"mel\.{field} = {getattr(MEL, field)}.*{value}"):
        vocoder.check(replace(MEL, **{field: value, "frames": 64}) if field == "hop_length" else replace(MEL, **{field: value}))


def test_another_shape_is_refused(vocoder: ISTFTNet) -> None:
    with pytest.raises(ShapeError, match="80, 32"):
        vocoder(torch.zeros(1, 1, 80, 30))


def test_interpolation_keeps_a_flat_mel_flat(vocoder: ISTFTNet) -> None:
    weights = interpolation(vocoder.bank)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(513))
    assert (weights >= 0).all()


def test_pulses_are_the_sum_of_all_harmonics() -> None:
    hertz = 250.0
    made = pulses(torch.full((1, 5), hertz), torch.zeros(1, 1), 256, 16000)[0]
    angle = 2 * math.pi * hertz / 16000 * torch.arange(1, 1025, dtype=torch.float64)
    wanted = sum(torch.cos(k * angle) for k in range(1, int(8000 / hertz)))
    torch.testing.assert_close(made.double(), wanted, atol=1e-3, rtol=0)


def test_the_highest_harmonic_fades_in() -> None:
    low, high = (pulses(torch.full((1, 3), 8000 / 20 + shift), torch.zeros(1, 1), 256, 16000) for shift in (-1e-6, 1e-6))
    torch.testing.assert_close(low, high, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hertz", [82.0, 147.0, 260.0, 410.0])
def test_pitch_is_measured_to_half_a_percent(hertz: float) -> None:
    measured, voiced = measure_pitch(hum(hertz), MEL)
    assert voiced[0, 3:-3].all()
    assert ((measured / hertz - 1).abs()[0, 3:-3] < 0.005).all()


def test_noise_has_no_pitch() -> None:
    _, voiced = measure_pitch(torch.randn(1, MEL.clip_samples, generator=torch.Generator().manual_seed(0)), MEL)
    assert not voiced.any()


@pytest.mark.parametrize("hertz", [95.0, 150.0, 240.0])
def test_an_untrained_head_already_hears_a_hum(hertz: float) -> None:
    head = PitchHead(MEL, 8)
    heard = head.hertz(head(LogMel(MEL)(hum(hertz, 7936))[:, 0]))[0, 4:-4]
    assert ((heard / hertz - 1).abs() < 0.03).all()


def test_pitch_loss_is_least_at_the_right_pitch() -> None:
    grid, voiced = pitch_grid(), torch.ones(1, 1, dtype=torch.bool)
    logits = -0.5 * (torch.arange(PITCHES) - 40.0).square()[None, :, None]
    losses = [pitch_loss(logits, grid[i].reshape(1, 1), voiced).item() for i in (38, 40, 42)]
    assert losses[1] < min(losses[0], losses[2])
    assert pitch_loss(logits, grid[:1, None], ~voiced).item() == 0
