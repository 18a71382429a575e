"""Griffin-Lim: shapes, determinism, batch independence, and that its magnitudes are those of the sound the mel came from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from duovox.config import MelConfig
from duovox.contracts import ConfigError, ShapeError
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.griffin_lim import GriffinLim

MEL = MelConfig(clip_samples=7000, frames=32)


@pytest.fixture(scope="module")
def vowels() -> Tensor:
    """Two gliding harmonic tones with a formant and an envelope, and one burst of noise: (3, 7000)."""
    time = torch.arange(MEL.clip_samples) / MEL.sample_rate
    envelope = torch.sin(math.pi * time / time[-1])
    waves = [torch.randn(MEL.clip_samples, generator=torch.Generator().manual_seed(1)) * 0.05]
    for pitch in (110.0, 220.0):
        phase = 2 * math.pi * torch.cumsum(pitch * (1 + 0.2 * time), 0) / MEL.sample_rate
        waves.append(sum(torch.sin(k * phase) / (1 + ((k * pitch - 700) / 300) ** 2) for k in range(1, 20)) * 0.2)
    return torch.stack(waves) * envelope


def spectral_convergence(wave: Tensor, target: Tensor) -> float:
    """||STFT magnitudes' difference|| / ||target's||, without phase."""
    window = torch.hann_window(1024)
    sizes = [torch.stft(w, 1024, 256, window=window, return_complex=True).abs() for w in (wave, target)]
    return ((sizes[0] - sizes[1]).norm() / sizes[1].norm()).item()


def test_shape_range_and_determinism(vowels: Tensor) -> None:
    log_mel = LogMel(MEL)(vowels)
    wave = GriffinLim(MEL, iterations=4)(log_mel)
    assert wave.shape == vowels.shape
    assert wave.abs().max() <= 1
    assert torch.equal(wave, GriffinLim(MEL, iterations=4)(log_mel))


def test_a_clip_does_not_depend_on_its_neighbours(vowels: Tensor) -> None:
    vocoder, log_mel = GriffinLim(MEL, iterations=8), LogMel(MEL)(vowels)
    alone = torch.cat([vocoder(one) for one in log_mel.split(1)])
    torch.testing.assert_close(vocoder(log_mel), alone, atol=1e-6, rtol=0)


def test_more_iterations_come_closer_to_the_mel(vowels: Tensor) -> None:
    log_mel = LogMel(MEL)(vowels)
    errors = [(LogMel(MEL)(GriffinLim(MEL, n)(log_mel)).exp() - log_mel.exp()).norm().item() for n in (1, 4, 48)]
    assert errors[0] > errors[1] > errors[2]


def test_spectral_convergence(vowels: Tensor) -> None:
    wave = GriffinLim(MEL, iterations=48)(LogMel(MEL)(vowels))
    assert all(spectral_convergence(w, v) < 0.35 for w, v in zip(wave[1:], vowels[1:], strict=True))


def test_magnitudes_have_the_given_mel(vowels: Tensor) -> None:
    vocoder, mel = GriffinLim(MEL), LogMel(MEL)(vowels)[:, 0].double().exp()
    magnitude = vocoder.magnitudes(mel)
    assert (magnitude >= 0).all()
    assert (vocoder.filterbank @ magnitude - mel).norm() < 0.02 * mel.norm()


def test_silence_stays_silent() -> None:
    silence = torch.full((1, 1, MEL.n_mels, MEL.frames), math.log(MEL.floor))
    assert GriffinLim(MEL, iterations=2)(silence).abs().max() < 1e-4


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 iteration"):
        GriffinLim(MEL, iterations=0)
    with pytest.raises(ShapeError, match="80, 32"):
        GriffinLim(MEL, iterations=1)(torch.zeros(1, 1, 80, 31))
