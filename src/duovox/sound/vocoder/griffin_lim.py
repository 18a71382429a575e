"""The vocoder that needs no training: takes a log-mel, gives the wave whose magnitudes come closest to it.

Also the yardstick for the neural one. Fast Griffin-Lim: Perraudin, Balazs, Søndergaard 2013 (WASPAA), after Griffin and Lim 1984.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.config import MelConfig
from duovox.contracts import ConfigError, check_mel
from duovox.sound.mel import mel_filterbank

MOMENTUM = 0.99
TINY = 1e-8


class GriffinLim(nn.Module):
    """log-mel (B, 1, M, T), natural logarithm -> wave (B, clip_samples) in [-1, 1].

    The first phases are fixed and the same for every clip, so a clip does not depend on its neighbours and comes out the same
    each time; computed in double precision, since the iteration magnifies rounding errors.
    Raises `ShapeError` for another shape of mel and `ConfigError` for fewer than one iteration.
    """

    window: Tensor
    filterbank: Tensor
    start: Tensor
    phases: Tensor

    def __init__(self, mel: MelConfig, iterations: int = 64, inversion_steps: int = 100) -> None:
        super().__init__()
        if iterations < 1:
            raise ConfigError(f"Griffin-Lim needs at least 1 iteration, not {iterations}")
        self.mel, self.iterations, self.inversion_steps = mel, iterations, inversion_steps
        bank = mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax).double()
        turns = torch.rand(mel.n_fft // 2 + 1, mel.frames, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.register_buffer("window", torch.hann_window(mel.win_length, dtype=torch.float64), persistent=False)
        self.register_buffer("filterbank", bank, persistent=False)
        self.register_buffer("start", torch.linalg.pinv(bank), persistent=False)
        self.register_buffer("phases", torch.polar(torch.ones_like(turns), 2 * math.pi * turns), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        check_mel(log_mel, self.mel.n_mels, self.mel.frames)
        magnitude = self.magnitudes(log_mel[:, 0].double().exp())
        angles, previous = self.phases, torch.zeros_like(magnitude, dtype=self.phases.dtype)
        for _ in range(self.iterations):
            rebuilt = self.stft(self.istft(magnitude * angles))
            accelerated = rebuilt + MOMENTUM * (rebuilt - previous)
            angles, previous = accelerated / accelerated.abs().clamp(min=TINY), rebuilt
        return self.istft(magnitude * angles)[:, : self.mel.clip_samples].clamp(-1, 1).float()

    def magnitudes(self, mel: Tensor) -> Tensor:
        """Non-negative magnitudes (B, bins, T) whose mel is, in least squares, the given one (B, M, T).

        Clamped pseudo-inverse, then multiplicative updates, which keep the sign (Lee and Seung 2001, theorem 1).
        """
        magnitude = (self.start @ mel).clamp(min=TINY)
        wanted, normal = self.filterbank.T @ mel, self.filterbank.T @ self.filterbank
        for _ in range(self.inversion_steps):
            magnitude = magnitude * wanted / (normal @ magnitude).clamp(min=TINY**2)
        return magnitude

    def stft(self, wave: Tensor) -> Tensor:
        mel = self.mel
        return torch.stft(wave, mel.n_fft, mel.hop_length, mel.win_length, self.window, center=True, return_complex=True)

    def istft(self, spectrum: Tensor) -> Tensor:
        mel = self.mel
        return torch.istft(spectrum, mel.n_fft, mel.hop_length, mel.win_length, self.window, length=mel.padded_samples)
