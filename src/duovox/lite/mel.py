"""Sound to log-mel in numpy: `sound.mel` without PyTorch, equal to rounding. Takes waves, gives log-mels to the classifier's graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from duovox.config import MelConfig, MelScale


def log_mel(wave: NDArray[np.float32], config: MelConfig) -> NDArray[np.float32]:
    """wave (B, S) in [-1, 1], S <= padded_samples -> log-mel (B, 1, M, T), natural logarithm of the mel magnitude."""
    padded = np.pad(wave.astype(np.float64), ((0, 0), (0, config.padded_samples - wave.shape[1])))
    reflected = np.pad(padded, ((0, 0), (config.n_fft // 2, config.n_fft // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(reflected, config.n_fft, axis=1)[:, :: config.hop_length]
    spectrum = np.fft.rfft(frames * _window(config), axis=2)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12)
    mel = magnitude @ filterbank(config).T
    return np.log(np.maximum(mel, config.floor)).transpose(0, 2, 1)[:, None].astype(np.float32)


def _window(config: MelConfig) -> NDArray[np.float64]:
    """The periodic Hann window, in the middle of a transform's length."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win_length) / config.win_length)
    left = (config.n_fft - config.win_length) // 2
    return np.pad(hann, (left, config.n_fft - config.win_length - left))


def filterbank(config: MelConfig) -> NDArray[np.float64]:
    """Triangular filters of unit area on slaney's mel scale, (M, n_fft // 2 + 1); see `sound.mel.mel_filterbank`."""
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    low, high = _hz_to_mel(config.fmin), _hz_to_mel(config.fmax)
    edges = _mel_to_hz(np.linspace(low, high, config.n_mels + 2))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else float(15 + np.log(hz / 1000) * 27 / np.log(6.4))


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.maximum(mel - 15, 0) * np.log(6.4) / 27))


def scale_mel(log_mel: NDArray[np.float32], scale: MelScale) -> NDArray[np.float32]:
    """log-mel -> mel, the quantity that is noised and denoised."""
    return (log_mel - scale.shift) / scale.scale


def unscale_mel(mel: NDArray[np.float32], scale: MelScale) -> NDArray[np.float32]:
    """mel -> log-mel; inverse of `scale_mel`."""
    return mel * scale.scale + scale.shift
