"""mel.py: equal to librosa, the same for a clip alone and in company, differentiable, and well framed."""

from __future__ import annotations

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from duovox.config import MelConfig, MelScale
from duovox.contracts import ShapeError
from duovox.sound.audio import read_audio
from duovox.sound.mel import LogMel, fit_scale, hz_to_mel, mel_filterbank, mel_to_hz, scale_mel, unscale_mel

CONFIG = MelConfig()
SILENCE = math.log(CONFIG.floor)


@pytest.fixture(scope="module")
def log_mel() -> LogMel:
    return LogMel(CONFIG)


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def tone(hz: float, samples: int = 16000, level: float = 0.5) -> Tensor:
    return level * torch.sin(2 * math.pi * hz * torch.arange(samples) / CONFIG.sample_rate)


def assert_equals_librosa(result: Tensor, wave: Tensor) -> None:
    """To 1e-4 in the log-mel of (S,), but for what float32 cannot tell from zero beside a loud row of the same frame.

    A Fourier transform rounds once in each of its log2(n_fft) stages, by up to 2^-24 of the spectrum's root mean square, and spreads that
    over all bins; a row adds its bins up, times the area of its filter. Window, roots and sums round as well: four times that is allowed,
    2e-6 beside a full-scale tone. Which processor computes decides how much of it is used (AVX2 0.36, AVX-512 0.24).
    """
    padded = np.pad(wave.double().numpy(), (0, CONFIG.padded_samples - len(wave)))
    magnitude = np.abs(librosa.stft(padded, n_fft=1024, hop_length=256, win_length=1024, window="hann", center=True, pad_mode="reflect"))
    bank = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80, fmin=0, fmax=8000, norm="slaney", htk=False, dtype=np.float64)
    mel = (bank @ magnitude).clip(1e-5)
    rounding = 4 * math.log2(1024) * 2.0**-24 * bank.sum(axis=1, keepdims=True) * np.sqrt((magnitude**2).mean(axis=0))
    assert result.shape == (1, 1, 80, 64)
    error, allowed = np.abs(result[0, 0].double().exp().numpy() - mel), 1e-4 * mel + rounding + 1e-8
    assert (error <= allowed).all(), f"{(error > allowed).sum()} of {error.size} values are off, the worst by {(error / allowed).max():.3g}"


@pytest.mark.parametrize(
    "wave",
    [noise(16000), tone(440.0), tone(3000.0, level=1.0), tone(7777.0, level=1.0), noise(9000), torch.zeros(16000), torch.eye(1, 16000)[0]],
    ids=["noise", "tone", "loud tone", "loud high tone", "short noise", "silence", "click"],
)
def test_equals_librosa(log_mel: LogMel, wave: Tensor) -> None:
    assert_equals_librosa(log_mel(wave[None]), wave)


def test_equals_librosa_on_a_real_clip(log_mel: LogMel, recordings: Path) -> None:
    clip = sorted((recordings / "speech_commands" / "three").iterdir())[0]
    wave = torch.from_numpy(read_audio(clip, 16000))[:16000]
    assert_equals_librosa(log_mel(wave[None]), wave)


@pytest.mark.parametrize(("n_fft", "n_mels", "fmin", "fmax"), [(1024, 80, 0.0, 8000.0), (2048, 32, 0.0, 8000.0), (512, 40, 60.0, 7600.0)])
def test_the_filterbank_is_slaneys(n_fft: int, n_mels: int, fmin: float, fmax: float) -> None:
    expected = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    np.testing.assert_allclose(mel_filterbank(16000, n_fft, n_mels, fmin, fmax).numpy(), expected, atol=1e-7)


def test_the_mel_scale_and_its_inverse() -> None:
    hz = torch.linspace(0, 8000, 400, dtype=torch.float64)
    np.testing.assert_allclose(hz_to_mel(hz).numpy(), librosa.hz_to_mel(hz.numpy()), rtol=1e-12)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12, atol=1e-9)


def test_a_clip_is_the_same_alone_and_in_company(log_mel: LogMel) -> None:
    """The loudest clip must not lift the floor of the quietest."""
    waves = torch.stack([noise(16000), tone(440.0, level=1.0), 1e-4 * noise(16000, 1), torch.zeros(16000)])
    together = log_mel(waves)
    for wave, features in zip(waves, together, strict=True):
        torch.testing.assert_close(log_mel(wave[None])[0], features, rtol=0, atol=1e-6)


def test_a_tone_lights_the_band_it_lies_in(log_mel: LogMel) -> None:
    """1 kHz is 15 mel; 80 bands span 0 to hz_to_mel(8000) with centres at i + 1 of 81 steps; row 0 is the lowest."""
    step = hz_to_mel(torch.tensor(8000.0, dtype=torch.float64)).item() / 81
    assert log_mel(tone(1000.0)[None])[0, 0, :, 30].argmax().item() == round(15 / step) - 1


def test_frames_are_centred_on_multiples_of_the_hop(log_mel: LogMel) -> None:
    """A click at sample 256 k is symmetric about frame k, at the window's peak there; 16128 = 63 * 256 samples fit."""
    for frame in (2, 31, 60):
        wave = torch.zeros(1, 63 * 256)
        wave[0, 256 * frame] = 1
        energy = log_mel(wave)[0, 0, 40]
        assert energy.shape == (64,)
        assert energy.argmax().item() == frame
        torch.testing.assert_close(energy[frame - 1], energy[frame + 1], rtol=0, atol=1e-4)
        assert energy[frame + 2].item() == pytest.approx(SILENCE)


def test_shorter_clips_are_padded_at_their_end(log_mel: LogMel) -> None:
    wave = noise(9000)
    torch.testing.assert_close(log_mel(wave[None]), log_mel(torch.nn.functional.pad(wave, (0, 63 * 256 - 9000))[None]))


def test_silence_lies_at_the_floor(log_mel: LogMel) -> None:
    torch.testing.assert_close(log_mel(torch.zeros(2, 16000)), torch.full((2, 1, 80, 64), SILENCE))


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In float64 along one direction; 1e-12 under the root bends only what lies below the floor."""
    log_mel = LogMel(MelConfig(n_mels=16, frames=16, clip_samples=3840))
    wave = noise(3840)[None].requires_grad_()
    weights = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((log_mel(wave) * weights).sum(), wave)
    direction = noise(3840, 2)[None]
    with torch.no_grad():
        ahead, behind = ((log_mel(wave + step * direction) * weights).double().sum().item() for step in (1e-3, -1e-3))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind) / 2e-3, rel=1e-2)


@pytest.mark.parametrize("level", [1.0, 1e-3, 0.0])
def test_the_gradient_is_finite_for_every_loudness(log_mel: LogMel, level: float) -> None:
    """The root of an exactly zero spectrum has an infinite slope: padded clips and silence must not give NaN.

    Below the floor the features are constant, so silence has gradient zero; half a second of sound has not.
    """
    wave = (level * noise(8000))[None].requires_grad_()
    log_mel(wave).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert bool(wave.grad.any()) == (level > 0)


@pytest.mark.parametrize("shape", [(16000,), (1, 1, 16000), (1, 63 * 256 + 1)])
def test_another_shape_is_refused(log_mel: LogMel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(B, S <= 16128\)") as error:
        log_mel(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_the_longest_clip_fits(log_mel: LogMel) -> None:
    assert log_mel(torch.zeros(1, 63 * 256)).shape == (1, 1, 80, 64)


def test_nothing_of_it_is_learned_or_stored(log_mel: LogMel) -> None:
    assert not list(log_mel.parameters())
    assert not log_mel.state_dict()


def test_scaling_and_its_inverse() -> None:
    log_mels, scale = 3 * noise(1000) - 5, MelScale("standard", -4.0, 2.5)
    torch.testing.assert_close(unscale_mel(scale_mel(log_mels, scale), scale), log_mels)
    assert scale_mel(torch.tensor(-4.0 + 2.5), scale).item() == pytest.approx(1)


def test_fitted_scales_do_what_their_names_say() -> None:
    log_mels = 3 * torch.randn(5000, generator=torch.Generator().manual_seed(0)) - 5
    low, high, mean, std = (x.item() for x in (log_mels.min(), log_mels.max(), log_mels.mean(), log_mels.std()))
    ranged, standard = (scale_mel(log_mels, fit_scale(low, high, mean, std, kind)) for kind in ("range", "standard"))
    assert (ranged.min().item(), ranged.max().item()) == pytest.approx((-1, 1), abs=1e-5)
    assert (standard.mean().item(), standard.std().item()) == pytest.approx((0, 0.5), abs=1e-5)
