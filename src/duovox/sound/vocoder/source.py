"""The voice source: takes the log-mel from `istft_net`, gives it pulses at the pitch it hears there, and the pitch loss.

A frame-wise vocoder must otherwise guess phases that agree from frame to frame, which takes days of training. A pulse train
whose phase is the running sum of the pitch agrees by construction (Wang et al. 2019, arXiv 1904.12088); the network only filters it.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from torch import Tensor, nn

from duovox.config import MelConfig
from duovox.sound.mel import LogMel

LOWEST_HZ = 60.0
HIGHEST_HZ = 520.0
PITCHES = 112
NEAR = 6  # grid points to either side of the best one over which the pitch is averaged


def pitch_grid() -> Tensor:
    """The pitches in Hz that the head tells apart, (PITCHES,), evenly spaced in log frequency (a third of a semitone)."""
    return torch.exp(torch.linspace(math.log(LOWEST_HZ), math.log(HIGHEST_HZ), PITCHES))


class PitchHead(nn.Module):
    """log-mel (B, M, T) -> logits over `pitch_grid` (B, PITCHES, T).

    How well each pitch's harmonics match the mel's fine structure is a good first guess; convolutions correct it.
    """

    grid: Tensor
    combs: Tensor

    def __init__(self, mel: MelConfig, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in in (mel.n_mels + PITCHES, width, width):
            layers += [nn.Conv1d(fan_in, width, 5, padding=2), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(width, PITCHES, 1))
        self.register_buffer("grid", pitch_grid(), persistent=False)
        self.register_buffer("combs", harmonic_combs(mel), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits in double precision: the pitch is summed up over a whole clip, and with it its rounding errors."""
        exact = log_mel.double()
        match = self.combs.double() @ fine_structure(exact)
        guess = torch.cat([normalise(exact), match / 3], dim=1)
        if torch.is_autocast_enabled(log_mel.device.type):
            correction = self.layers(guess.float())
        else:
            weights = {name: parameter.double() for name, parameter in self.layers.named_parameters()}
            correction = torch.func.functional_call(self.layers, weights, guess)
        return correction.double() + 3 * match

    def hertz(self, logits: Tensor) -> Tensor:
        """The pitch in Hz, (B, T): the mean log frequency near the best grid point, of logits averaged over five frames.

        Wide enough around the best point for the mean to hold still where two neighbours are equally good.
        """
        share = torch.tensor([1, 2, 3, 2, 1], dtype=logits.dtype, device=logits.device) / 9
        smooth = nn.functional.conv1d(nn.functional.pad(logits, (2, 2), mode="replicate"), share.expand(PITCHES, 1, 5), groups=PITCHES)
        best = smooth.argmax(dim=1, keepdim=True).clamp(NEAR, PITCHES - 1 - NEAR)
        near = best + torch.arange(-NEAR, NEAR + 1, device=logits.device)[None, :, None]
        weights = smooth.gather(1, near).softmax(dim=1)
        return torch.exp((weights * self.grid.double().log()[near]).sum(dim=1))


def normalise(log_mel: Tensor) -> Tensor:
    """log-mel of speech, brought near mean 0 and variance 1."""
    return (log_mel + 5) / 3


def fine_structure(log_mel: Tensor) -> Tensor:
    """log-mel (B, M, T) less its mean over the 15 nearest mels: what harmonics add to the envelope."""
    smooth = nn.functional.avg_pool1d(nn.functional.pad(log_mel.transpose(1, 2), (7, 7), mode="replicate"), 15, 1)
    return log_mel - smooth.transpose(1, 2)


def harmonic_combs(mel: MelConfig) -> Tensor:
    """The fine structure that a pulse train of each pitch has, as unit vectors (PITCHES, M)."""
    steady = MelConfig(**{**asdict(mel), "frames": 9, "clip_samples": 8 * mel.hop_length})
    wave = 0.1 * pulses(pitch_grid()[:, None].expand(-1, 9), torch.zeros(PITCHES, 1), mel.hop_length, mel.sample_rate)
    structure = fine_structure(LogMel(steady)(wave)[:, 0])[:, :, 4]
    return structure / structure.norm(dim=1, keepdim=True)


def pulses(hertz: Tensor, start: Tensor, hop: int, sample_rate: int) -> Tensor:
    """Band-limited pulse train, (B, T) pitch in Hz -> (B, (T - 1) * hop): all harmonics below half the rate, amplitude 1 each.

    The highest fades in as the pitch makes room for it. `start` (B, 1) is the phase before the first sample, in turns.
    The sum of K cosines of angle x is (sin((K + 1/2) x) / sin(x / 2) - 1) / 2 (Dirichlet's kernel).
    """
    steps = torch.arange(hop, device=hertz.device, dtype=torch.float64) / hop
    left, right = hertz.double()[:, :-1, None], hertz.double()[:, 1:, None]
    smooth = (left + (right - left) * steps).flatten(1)
    angle = torch.remainder(start + torch.cumsum(smooth / sample_rate, dim=1), 1.0) * 2 * math.pi
    room = 0.5 * sample_rate / smooth - 1
    harmonics, rest = room.floor(), room.frac()
    half = torch.sin(angle / 2)
    near_zero = half.abs() < 1e-6
    ratio = torch.sin((harmonics + 0.5) * angle) / torch.where(near_zero, torch.ones_like(half), half)
    whole = (torch.where(near_zero, 2 * harmonics + 1, ratio) - 1) / 2
    return (whole + rest * torch.cos((harmonics + 1) * angle)).float()


def measure_pitch(wave: Tensor, config: MelConfig) -> tuple[Tensor, Tensor]:
    """Autocorrelation pitch of wave (B, S): (hertz, voiced), both (B, S // hop + 1), `voiced` a boolean mask.

    The smallest lag whose normalised correlation comes within a tenth of the best one; voiced where that exceeds 0.7.
    """
    shortest, longest = int(config.sample_rate / HIGHEST_HZ), math.ceil(config.sample_rate / LOWEST_HZ)
    size = config.win_length + longest
    frames = nn.functional.pad(wave, (size // 2, size - size // 2)).unfold(1, size, config.hop_length)
    head = frames[..., : config.win_length]
    length = 2 ** math.ceil(math.log2(size + config.win_length))
    cross = torch.fft.irfft(torch.fft.rfft(frames, length) * torch.fft.rfft(head, length).conj(), length)[..., : longest + 1]
    energy = nn.functional.pad(frames.square().cumsum(-1), (1, 0))
    shifted = energy[..., config.win_length : size + 1] - energy[..., : longest + 1]
    correlation = cross / torch.sqrt(shifted * shifted[..., :1] + 1e-6)
    inner = correlation[..., shortest : longest + 1]
    best = inner.amax(-1, keepdim=True)
    peak = (inner[..., 1:-1] >= inner[..., :-2]) & (inner[..., 1:-1] >= inner[..., 2:]) & (inner[..., 1:-1] >= best - 0.1)
    lag = peak.float().argmax(-1) + 1
    a, b, c = (inner.gather(-1, (lag + shift)[..., None])[..., 0] for shift in (-1, 0, 1))
    offset = (0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    return config.sample_rate / (lag + offset + shortest), peak.any(-1) & (best[..., 0] > 0.7)


def pitch_loss(logits: Tensor, hertz: Tensor, voiced: Tensor, frames: Tensor | None = None) -> Tensor:
    """Cross-entropy of pitch logits (B, PITCHES, T) on the voiced frames of measured pitch (B, T); the target is one grid step wide.

    The mean over the voiced frames, or the sum divided by `frames`.
    """
    place = torch.log(hertz / LOWEST_HZ) / math.log(HIGHEST_HZ / LOWEST_HZ) * (PITCHES - 1)
    distance = torch.arange(PITCHES, device=logits.device)[None, :, None] - place[:, None]
    target = torch.softmax(-0.5 * distance.square(), dim=1)
    loss = -(target * logits.log_softmax(dim=1)).sum(dim=1)
    return (loss * voiced).sum() / (voiced.sum().clamp(min=1) if frames is None else frames)
