"""Transforms of real arithmetic against torch's own."""

from __future__ import annotations

import pytest
import torch

from duovox.exporting.spectra import Fourier, Framing


@pytest.mark.parametrize("points", [2, 7, 15, 24, 400, 512, 1024])
def test_the_transform_and_its_inverse(points: int) -> None:
    x = torch.randn(2, 3, points)
    expected = torch.fft.rfft(x)
    fourier = Fourier(points)
    real, imaginary = fourier(x)
    torch.testing.assert_close(torch.complex(real, imaginary), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fourier.inverse((real, imaginary)), x, rtol=1e-4, atol=1e-5)


def test_the_inverse_of_what_no_real_sound_has() -> None:
    """A spectrum whose first and last bins are not real, as filters make them: torch ignores their imaginary parts."""
    spectrum = torch.randn(3, 9, dtype=torch.complex64)
    torch.testing.assert_close(Fourier(16).inverse((spectrum.real, spectrum.imag)), torch.fft.irfft(spectrum, 16), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n_fft", "win_length", "hop"), [(1024, 1024, 256), (64, 48, 16), (64, 64, 24), (60, 60, 15)])
def test_short_time_transforms(n_fft: int, win_length: int, hop: int) -> None:
    """Also for windows shorter than the transform, and hops that do not divide it."""
    frames, window = 12, torch.hann_window(win_length)
    wave = torch.randn(2, (frames - 1) * hop)
    framing = Framing(n_fft, hop, window, frames)
    expected = torch.stft(wave, n_fft, hop, win_length, window, return_complex=True)
    real, imaginary = framing.stft(wave)
    torch.testing.assert_close(torch.complex(real, imaginary).transpose(1, 2), expected, rtol=1e-4, atol=1e-4)
    changed = expected * torch.randn(expected.shape, dtype=torch.complex64)
    back = torch.istft(changed, n_fft, hop, win_length, window, length=wave.shape[1])
    torch.testing.assert_close(framing.istft((changed.real.transpose(1, 2), changed.imag.transpose(1, 2))), back, rtol=1e-3, atol=1e-4)
