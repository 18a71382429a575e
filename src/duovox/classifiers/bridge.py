"""From our mel to another one in closed form: takes our log-mels, gives those of other windows, filters and frame times, to `front_end`.

Our mel is spread over the bins of its own transform, carried over to the target's window and bins, filtered again and moved in time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, MelInput
from duovox.sound.mel import hz_to_mel, mel_filterbank, mel_to_hz, triangles
from duovox.sound.vocoder.istft_net import interpolation

LOUDEST = 6.0
"""Log-mels are clamped to this before exp; full-scale speech stays below 3."""

TINY = 1e-30

REFINEMENTS = 3
"""How often the spectrum spread from a mel is corrected to have that mel."""


class SpectrumBridge(nn.Module):
    """log-mel of ours (B, M, T) -> log-mel of the target's filters (B, M', T), both natural logarithms, without a floor.

    Which bins carried a mel's energy is lost; the bridge takes what is left to be noise. It is then right on average: a mean
    magnitude of noise is less than its root mean square, and the mean of a logarithm less than the logarithm of the mean, each by
    an amount that follows from windows and filters (`noise_bias`). The refinement keeps our mel: the spectrum has it.
    """

    area: Tensor
    bank: Tensor
    spread: Tensor
    smear: Tensor
    filters: Tensor
    bias: Tensor

    def __init__(self, source: MelConfig, target: MelInput) -> None:
        super().__init__()
        self.power = target.power
        bank = mel_filterbank(source.sample_rate, source.n_fft, source.n_mels, source.fmin, source.fmax)
        filters = target_filterbank(target)
        shortfall = noise_bias(bank, source.win_length, source.n_fft, 1)[:, None]
        area = torch.log(bank.sum(dim=1, keepdim=True).clamp(min=1e-8))
        self.register_buffer("area", area + shortfall, persistent=False)
        self.register_buffer("bank", bank * torch.exp(shortfall), persistent=False)
        self.register_buffer("spread", interpolation(bank), persistent=False)
        self.register_buffer("smear", window_change(source, target), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("bias", noise_bias(filters, target.win_length, target.n_fft, target.power)[:, None], persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        power = self.smear @ self.magnitudes(log_mel).square()
        size = torch.sqrt(power + TINY) if self.power == 1 else power
        return torch.log(self.filters @ size + TINY) + self.bias

    def magnitudes(self, log_mel: Tensor) -> Tensor:
        """log-mel (B, M, T) -> root mean square magnitudes (B, bins, T), positive, that have very nearly this mel."""
        wanted = log_mel.clamp(max=LOUDEST)
        size = torch.exp(self.spread @ (wanted - self.area))
        for _ in range(REFINEMENTS):
            size = size * torch.exp(self.spread @ (wanted - torch.log(self.bank @ size + TINY)))
        return size


class FrameTiming(nn.Module):
    """(B, M, T) -> (B, M, frames): linear interpolation in time; frame t of the target lies at t * hop / sample_rate seconds.

    The last frame is held up to the end of the source; a frame whose window begins after that is silence, log(floor).
    """

    weights: Tensor
    silence: Tensor

    def __init__(self, source: MelConfig, target: MelInput) -> None:
        super().__init__()
        seconds = torch.arange(target.frames, dtype=torch.float64) * target.hop_length / target.sample_rate
        place = (seconds * source.sample_rate / source.hop_length).clamp(max=source.frames - 1)
        weights = (1 - (torch.arange(source.frames)[:, None] - place).abs()).clamp(min=0)
        heard = seconds - target.win_length / 2 / target.sample_rate < source.padded_samples / source.sample_rate
        self.register_buffer("weights", (weights * heard).float(), persistent=False)
        self.register_buffer("silence", torch.where(heard, 0.0, math.log(target.floor)).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights + self.silence


def target_filterbank(target: MelInput) -> Tensor:
    """The target's triangular filters, (n_mels, n_fft // 2 + 1), float32, of unit area (slaney) or unit height (none)."""
    bins = torch.arange(target.n_fft // 2 + 1, dtype=torch.float64) * target.sample_rate / target.n_fft
    ends = torch.tensor([target.fmin, target.fmax], dtype=torch.float64)
    if target.filters == "slaney":
        low, high = hz_to_mel(ends).tolist()
        edges = mel_to_hz(torch.linspace(low, high, target.n_mels + 2, dtype=torch.float64))
    else:
        low, high = torch.log1p(ends / 700).tolist()  # HTK: 2595 log10(1 + f / 700) mels; the factor cancels
        edges = 700 * torch.expm1(torch.linspace(low, high, target.n_mels + 2, dtype=torch.float64))
    height = 2 / (edges[2:] - edges[:-2]) if target.filter_norm == "slaney" else torch.ones_like(edges[2:])
    return (triangles(bins, edges) * height[:, None]).float()


def noise_bias(bank: Tensor, win_length: int, n_fft: int, power: int) -> Tensor:
    """For white noise: mean of the log of a mel, less the log of the mel of the mean power spectrum; (M,), at most 0.

    Bins of Hann-windowed noise are complex Gaussian, correlated as the transform of the squared window; |X|^power has the relative
    variance 1 (power 2) or 4 / pi - 1 (power 1), and a filter's sum over bins is taken to be gamma-distributed.
    """
    window = nn.functional.pad(torch.hann_window(win_length, dtype=torch.float64).square(), (0, n_fft - win_length))
    bins = torch.arange(bank.shape[1])
    likeness = (torch.fft.fft(window).abs() / window.sum()).square()[(bins[:, None] - bins).abs()]
    weights = bank.double() / bank.double().sum(dim=1, keepdim=True).clamp(min=1e-8)
    variance = torch.einsum("mk,kl,ml->m", weights, likeness, weights).clamp(min=1e-6)
    variance = variance * (4 / math.pi - 1) if power == 1 else variance
    bias = torch.digamma(1 / variance) + torch.log(variance) + (math.log(math.pi / 4) / 2 if power == 1 else 0.0)
    return bias.float()


def window_change(source: MelConfig, target: MelInput) -> Tensor:
    """Power spectrum of the source's transform -> expected one of the target's, (target bins, source bins), not negative.

    A window of energy E makes a stationary sound's power E times its density, smeared as the transform of the window's
    autocorrelation. A shorter window smears more: by the ratio of the two autocorrelations, a window over the lags. A longer one
    would have to sharpen; it is left as it is. Only the main lobe of the target's window is kept: what the end of the lags adds
    beyond it would drown a quiet band beside a loud one. Between bins, power is interpolated linearly (a smear of sinc^2, divided
    out); above half the source's sample rate there is none.
    """
    bins = torch.arange(source.n_fft // 2 + 1, dtype=torch.float64)
    places = torch.arange(target.n_fft // 2 + 1, dtype=torch.float64) * (
        target.sample_rate / target.n_fft * source.n_fft / source.sample_rate
    )
    between = (1 - (places[:, None] - bins).abs()).clamp(min=0)
    ours = hann_autocorrelation(bins / source.win_length)
    theirs = hann_autocorrelation(bins * target.sample_rate / source.sample_rate / target.win_length)
    if not torch.equal(places, bins):
        ours = ours * torch.sinc(bins / source.n_fft).square()
    both = torch.where((bins == 0) | (2 * bins == source.n_fft), 1.0, 2.0)
    turns = torch.cos(2 * math.pi * bins[:, None] * bins / source.n_fft)
    smear = ((turns * (theirs / ours.clamp(min=1e-9)).clamp(max=1) * both) @ turns * both).clamp(min=0)
    lobe = 2 * source.n_fft * target.sample_rate / (target.win_length * source.sample_rate)
    smear = smear * ((bins[:, None] - bins).abs() <= lobe)
    energy = _window_energy(target.win_length) * target.sample_rate / (_window_energy(source.win_length) * source.sample_rate)
    return (energy * between @ (smear / smear.sum(dim=1, keepdim=True))).float()


def hann_autocorrelation(lag: Tensor) -> Tensor:
    """Autocorrelation of the Hann window, 1 at lag 0; `lag` is in window lengths, and from 1 on there is none."""
    u = lag.abs().clamp(max=1)
    return (1 - u) * (2 + torch.cos(2 * math.pi * u)) / 3 + torch.sin(2 * math.pi * u) / (2 * math.pi)


def _window_energy(win_length: int) -> float:
    return float(torch.hann_window(win_length, dtype=torch.float64).square().sum())
