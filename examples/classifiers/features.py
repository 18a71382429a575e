"""What the three classifiers hear: waves (B, S) at 16 kHz in [-1, 1) -> the input of each, in plain torch, differentiable.

m5            `half_rate`     (B, 16000) -> (B, 1, 8000)
resnet18      `log_mel`       (B, 16000) -> (B, 1, 64, 101), before the (x - mean) / std of the train split
whisper_tiny  `whisper_mel`   (B, 16000) -> (B, 80, 100), what `transformers.WhisperFeatureExtractor` computes
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

RATE = 16000
HOP = 160


def half_rate(wave: Tensor) -> Tensor:
    """The wave at 8 kHz, (B, 1, S / 2): a windowed-sinc low pass (65 taps, Hann, -6 dB at 3750 Hz), then every second sample."""
    place = torch.arange(-32.0, 33.0)
    cutoff = 3750 / (RATE / 2)
    taps = cutoff * torch.sinc(cutoff * place) * torch.hann_window(67, periodic=False)[1:-1]
    return F.conv1d(wave.unsqueeze(1), (taps / taps.sum()).to(wave).view(1, 1, -1), padding=32, stride=2)


def log_mel(wave: Tensor) -> Tensor:
    """(B, 1, 64, 1 + S // 160): the natural log, floored at 1e-6, of 64 HTK bands from 20 to 7600 Hz without area norm."""
    bands = mel_filters(64, 512, 20.0, 7600.0).to(wave) @ power_spectrum(wave, n_fft=512, window=400)
    return bands.clamp(min=1e-6).log().unsqueeze(1)


def whisper_mel(wave: Tensor) -> Tensor:
    """(B, 80, S // 160): Whisper's log10 of 80 Slaney bands, at most 8 below the clip's highest value, then (x + 4) / 4."""
    power = power_spectrum(wave, n_fft=400, window=400)[..., :-1]
    bands = (mel_filters(80, 400, 0.0, 8000.0, slaney=True).to(wave) @ power).clamp(min=1e-10).log10()
    return (torch.maximum(bands, bands.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4


def power_spectrum(wave: Tensor, n_fft: int, window: int) -> Tensor:
    """Power (B, 1 + n_fft / 2, 1 + S // 160); frame t is centred at sample 160 t, beyond its ends the wave is mirrored."""
    hann = torch.hann_window(window, device=wave.device, dtype=wave.dtype)
    spectrum = torch.stft(wave, n_fft, HOP, window, hann, center=True, pad_mode="reflect", return_complex=True)
    return spectrum.real.square() + spectrum.imag.square()


@lru_cache(maxsize=4)
def mel_filters(bands: int, n_fft: int, low: float, high: float, slaney: bool = False) -> Tensor:
    """Triangles (bands, 1 + n_fft / 2) with corners equally spaced on the HTK scale, or on Slaney's and then each of area 1."""
    ends = _hertz_to_mel(torch.tensor([low, high], dtype=torch.float64), slaney)
    corners = _mel_to_hertz(torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64), slaney)
    bins = torch.linspace(0, RATE / 2, 1 + n_fft // 2, dtype=torch.float64)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    triangles = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0)
    return (triangles * 2 / (right - left) if slaney else triangles).float()


_STEP = 27 / torch.log(torch.tensor(6.4, dtype=torch.float64))  # mels for each factor e above 1 kHz on Slaney's scale
_BREAK = 15.0  # mels at 1 kHz on Slaney's scale, up to which it is linear


def _hertz_to_mel(hertz: Tensor, slaney: bool) -> Tensor:
    if not slaney:
        return 2595 * torch.log10(1 + hertz / 700)
    return torch.where(hertz < 1000, hertz * _BREAK / 1000, _BREAK + _STEP * torch.log(hertz.clamp(min=1) / 1000))


def _mel_to_hertz(mel: Tensor, slaney: bool) -> Tensor:
    if not slaney:
        return 700 * (10 ** (mel / 2595) - 1)
    return torch.where(mel < _BREAK, mel * 1000 / _BREAK, 1000 * torch.exp((mel - _BREAK) / _STEP))
