"""The neural vocoder: takes log-mels from `duovox` and `training.vocoder`, gives waves.

A voice source (`source`) and fixed noise are filtered, frame by frame, in the short-time Fourier domain; ConvNeXt blocks at the
frame rate choose the filters (the backbone and the inverse-STFT head of Vocos, Siuzdak 2023, arXiv 2306.00814). Whatever is
filtered is first given the mel's envelope in place of its own, and so, a few times over, is the sum: the network need not
learn to be as loud as its mel, only how to sound.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, VocoderConfig
from duovox.contracts import BundleError, check_mel
from duovox.sound.mel import mel_filterbank
from duovox.sound.vocoder.source import PitchHead, normalise, pulses

LOUDEST = 6.0  # highest log gain from source to sound


def check_same_mel(mine: MelConfig, theirs: MelConfig, what: str) -> None:
    """Raise `BundleError` naming the first field in which the mel of `what` (theirs) differs from the vocoder's (mine)."""
    for name in (field.name for field in fields(MelConfig)):
        ours, other = getattr(mine, name), getattr(theirs, name)
        if ours != other:
            raise BundleError(f"the vocoder was made for mel.{name} = {ours}, but {what} has {other}; use a vocoder trained on that mel")


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022, arXiv 2201.03545) in one dimension, (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, hidden: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.mix_time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.mix_time(x).transpose(1, 2))
        update: Tensor = self.scale * self.narrow(nn.functional.gelu(self.widen(mixed)))
        return x + update.transpose(1, 2)


class ISTFTNet(nn.Module):
    """log-mel (B, 1, M, T), natural logarithm -> wave (B, clip_samples) in [-1, 1]; gradients reach the mel.

    Any T works through `synthesise`. Raises `ShapeError` for another shape; `check` refuses a foreign mel with `BundleError`.
    """

    window: Tensor
    envelope: Tensor
    bank: Tensor

    def __init__(self, config: VocoderConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        bins = mel.n_fft // 2 + 1
        self.pitch = PitchHead(mel, config.pitch_width)
        self.enter = nn.Conv1d(mel.n_mels, config.width, config.kernel, padding=config.kernel // 2)
        self.enter_norm = nn.LayerNorm(config.width)
        self.blocks = nn.Sequential(*[Block(config.width, config.hidden, config.kernel, 1 / config.blocks) for _ in range(config.blocks)])
        self.leave_norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 4 * bins)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.constant_(self.head.bias, 0.0)
        nn.init.constant_(self.head.bias[:bins], -0.7)
        bank = mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax)
        self.register_buffer("window", torch.hann_window(mel.win_length), persistent=False)
        self.register_buffer("envelope", interpolation(bank), persistent=False)
        self.register_buffer("bank", bank, persistent=False)

    def check(self, mel: MelConfig, what: str = "the bundle") -> None:
        """Raise `BundleError` unless `mel` is, field by field, the mel this vocoder was made for."""
        check_same_mel(self.mel, mel, what)

    def forward(self, log_mel: Tensor) -> Tensor:
        check_mel(log_mel, self.mel.n_mels, self.mel.frames)
        return self.synthesise(log_mel)[0][:, : self.mel.clip_samples]

    def synthesise(self, log_mel: Tensor, start: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log-mel (B, 1, M, T) of any length T -> (wave (B, (T - 1) * hop), pitch logits (B, PITCHES, T)).

        First phase `start` (B, 1) and `noise` (B, (T - 1) * hop) are fixed, the same for every clip, unless they are given (training).
        """
        check_mel(log_mel, self.mel.n_mels)
        mel = log_mel[:, 0].float()
        pitch_logits = self.pitch(mel)
        x = self.enter_norm(self.enter(normalise(mel)).transpose(1, 2)).transpose(1, 2)
        filters = self.head(self.leave_norm(self.blocks(x).transpose(1, 2))).transpose(1, 2)
        with torch.autocast(mel.device.type, enabled=False):
            voice, white = self.excitation(pitch_logits.detach(), start, noise)
            return self.render(mel, filters.float(), voice, white).clamp(-1, 1), pitch_logits

    def draw_excitation(self, items: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A first phase (items, 1) and white noise (items, samples), for `synthesise`."""
        start = torch.rand(items, 1, generator=generator, device=generator.device)
        return start, torch.randn(items, samples, generator=generator, device=generator.device)

    def excitation(self, pitch_logits: Tensor, start: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pulse train and white noise, both (B, (T - 1) * hop), for pitch logits (B, PITCHES, T)."""
        batch, samples = pitch_logits.shape[0], (pitch_logits.shape[2] - 1) * self.mel.hop_length
        start = torch.zeros(batch, 1) if start is None else start
        noise = fixed_noise(samples).expand(batch, samples) if noise is None else noise
        voice = pulses(self.pitch.hertz(pitch_logits), start.to(pitch_logits.device), self.mel.hop_length, self.mel.sample_rate)
        return voice, noise.to(pitch_logits.device)

    def render(self, mel: Tensor, filters: Tensor, voice: Tensor, noise: Tensor) -> Tensor:
        """Filter voice and noise, (B, S) each, to the mel (B, M, T); `filters` (B, 4 * bins, T) are log gains and phases on top."""
        voice_gain, voice_phase, noise_gain, noise_phase = filters.chunk(4, dim=1)
        wave = self.istft(self.shape(mel, voice, voice_gain, voice_phase) + self.shape(mel, noise, noise_gain, noise_phase))
        for _ in range(self.config.refinements):
            wave = self.istft(self.shape(mel, wave))
        return wave

    def shape(self, mel: Tensor, source: Tensor, gain: Tensor | None = None, phase: Tensor | None = None) -> Tensor:
        """The spectrum of `source` (B, S), given the mel's envelope in place of its own, then `gain` and `phase` (B, bins, T)."""
        spectrum = self.stft(source)
        own = torch.log(self.bank @ (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() + self.mel.floor)
        change = self.envelope @ (mel - own)
        size = torch.exp((change if gain is None else change + gain).clamp(max=LOUDEST))
        return spectrum * (size if phase is None else torch.complex(size * torch.cos(phase), size * torch.sin(phase)))

    def stft(self, wave: Tensor) -> Tensor:
        """wave (B, S) -> spectrum (B, bins, S // hop + 1), complex."""
        return torch.stft(wave, self.mel.n_fft, self.mel.hop_length, self.mel.win_length, self.window, center=True, return_complex=True)

    def istft(self, spectrum: Tensor) -> Tensor:
        """spectrum (B, bins, T) -> wave (B, (T - 1) * hop)."""
        mel = self.mel
        samples = (spectrum.shape[2] - 1) * mel.hop_length
        return torch.istft(spectrum, mel.n_fft, mel.hop_length, mel.win_length, self.window, length=samples)


def fixed_noise(samples: int) -> Tensor:
    """White noise of unit variance, (samples,), always the same."""
    return torch.randn(samples, generator=torch.Generator().manual_seed(0))


def interpolation(bank: Tensor) -> Tensor:
    """Weights (bins, M), rows summing to 1, that spread a mel over the bins of its filterbank (M, bins); outermost mels extend outwards."""
    peaks = bank / bank.amax(dim=1, keepdim=True).clamp(min=1e-8)
    weights = peaks.T.clone()
    covered = weights.sum(dim=1) > 1e-6
    first, last = int(covered.nonzero()[0]), int(covered.nonzero()[-1])
    weights[:first, 0], weights[last + 1 :, -1] = 1.0, 1.0
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-8)
