"""Sound to log-mel: takes waves from `audio` or `data`, gives log-mels to the classifier, the diffusion and the vocoder.

Differentiable, and computed per clip: a clip's features do not depend on its neighbours in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, MelScale
from duovox.contracts import ShapeError


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels per factor 6.4)."""
    linear = hz * 3 / 200
    return torch.where(hz < 1000, linear, 15 + torch.log(hz.clamp(min=1000) / 1000) * 27 / torch.log(torch.tensor(6.4, dtype=hz.dtype)))


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    return torch.where(
        mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15).clamp(min=0) * torch.log(torch.tensor(6.4, dtype=mel.dtype)) / 27)
    )


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> Tensor:
    """Triangular filters of unit area (slaney norm), (n_mels, n_fft // 2 + 1), float32."""
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low, high = hz_to_mel(torch.tensor([fmin, fmax], dtype=torch.float64)).tolist()
    edges = mel_to_hz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64))
    return (triangles(bins, edges) * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """Triangular filters of height 1 at the frequencies `bins` (N,): filter m rises from edges[m] to edges[m + 1] and falls to
    edges[m + 2]; (M, N) for `edges` (M + 2,)."""
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


class LogMel(nn.Module):
    """wave (B, S) in [-1, 1], S <= padded_samples -> log-mel (B, 1, M, T), natural logarithm of the mel magnitude.

    Shorter clips are zero-padded at their end. Raises `ShapeError` for another rank or a longer clip.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        bank = mel_filterbank(config.sample_rate, config.n_fft, config.n_mels, config.fmin, config.fmax)
        self.register_buffer("filterbank", bank, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        config = self.config
        if wave.ndim != 2 or wave.shape[1] > config.padded_samples:
            raise ShapeError(f"expected a wave of shape (B, S <= {config.padded_samples}), got {tuple(wave.shape)}")
        padded = nn.functional.pad(wave.float(), (0, config.padded_samples - wave.shape[1]))
        spectrum = torch.stft(
            padded, config.n_fft, config.hop_length, config.win_length, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-12)
        return torch.log((self.filterbank @ magnitude).clamp(min=config.floor)).unsqueeze(1)


def scale_mel(log_mel: Tensor, scale: MelScale) -> Tensor:
    """log-mel -> mel, the quantity that is noised and denoised."""
    return (log_mel - scale.shift) / scale.scale


def unscale_mel(mel: Tensor, scale: MelScale) -> Tensor:
    """mel -> log-mel; inverse of `scale_mel`."""
    return mel * scale.scale + scale.shift


def fit_scale(low: float, high: float, mean: float, std: float, kind: str) -> MelScale:
    """The scale for a train split whose log-mels have this minimum, maximum, mean and standard deviation."""
    if kind == "range":
        return MelScale("range", (low + high) / 2, (high - low) / 2)
    return MelScale("standard", mean, 2 * std)
