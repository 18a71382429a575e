"""The neural vocoder in operations that ONNX runtimes have: takes an `ISTFTNet`, gives the same sound from the same weights.

Complex numbers are pairs, and the fixed noise is an input. The pitch, which is summed up over a clip, stays in double precision:
runtimes multiply matrices in it, but do not convolve, so its convolutions are matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duovox.exporting.spectra import Framing, Spectrum
from duovox.sound.vocoder.istft_net import LOUDEST, ISTFTNet
from duovox.sound.vocoder.source import NEAR, PITCHES, PitchHead, fine_structure, normalise, pulses


class PlainPitch(nn.Module):
    """log-mel (B, M, T) -> pitch in Hz (B, T), double: `PitchHead` and its `hertz` without double convolutions."""

    combs: Tensor
    log_grid: Tensor

    def __init__(self, head: PitchHead) -> None:
        super().__init__()
        self.layers = head.layers
        structure = fine_structure(torch.eye(head.combs.shape[1], dtype=torch.float64)[None])[0]
        self.register_buffer("combs", head.combs.double() @ structure, persistent=False)
        self.register_buffer("log_grid", head.grid.double().log(), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        exact = log_mel.double()
        match = self.combs @ exact
        hidden = torch.cat([normalise(exact), match / 3], dim=1)
        for layer in self.layers:
            hidden = exact_convolution(hidden, layer) if isinstance(layer, nn.Conv1d) else nn.functional.gelu(hidden.float()).double()
        return self.hertz(hidden + 3 * match)

    def hertz(self, logits: Tensor) -> Tensor:
        """As `PitchHead.hertz`."""
        smooth = sum(share * part for share, part in zip((1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9), shifted(logits, 2, "replicate"), strict=True))
        assert isinstance(smooth, Tensor)
        best = smooth.argmax(dim=1, keepdim=True).clamp(NEAR, PITCHES - 1 - NEAR)
        near = best + torch.arange(-NEAR, NEAR + 1)[None, :, None]
        weights = smooth.gather(1, near).softmax(dim=1)
        return torch.exp((weights * self.log_grid[near]).sum(dim=1))


def exact_convolution(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """An odd convolution of x (B, C, T), double, as one matrix product: (B, C', T)."""
    parts = torch.cat(shifted(x, layer.kernel_size[0] // 2, "zeros"), dim=1)
    weight = layer.weight.permute(0, 2, 1).flatten(1).double()
    assert layer.bias is not None
    return weight @ parts + layer.bias.double()[:, None]


def shifted(x: Tensor, reach: int, ends: str) -> list[Tensor]:
    """x (B, C, T) moved by -reach .. reach frames; what comes in from the ends is zero, or `replicate`s the last frame."""
    frames = x.shape[2]
    first, last = (x[:, :, :1], x[:, :, -1:]) if ends == "replicate" else (torch.zeros_like(x[:, :, :1]),) * 2
    padded = torch.cat([first] * reach + [x] + [last] * reach, dim=2)
    return [padded[:, :, start : start + frames] for start in range(2 * reach + 1)]


class PlainVocoder(nn.Module):
    """log-mel (B, 1, M, T), natural logarithm, and noise (S,) of unit variance -> wave (B, clip_samples) in [-1, 1]; S = (T - 1) hop.

    With `fixed_noise` it is `ISTFTNet.forward` to rounding.
    """

    def __init__(self, vocoder: ISTFTNet) -> None:
        super().__init__()
        mel = vocoder.mel
        self.vocoder, self.mel = vocoder, mel
        self.pitch = PlainPitch(vocoder.pitch)
        self.framing = Framing(mel.n_fft, mel.hop_length, vocoder.window, mel.frames)

    def forward(self, log_mel: Tensor, noise: Tensor) -> Tensor:
        net, mel = self.vocoder, log_mel[:, 0]
        hidden = net.blocks(net.enter_norm(net.enter(normalise(mel)).transpose(1, 2)).transpose(1, 2))
        filters = net.head(net.leave_norm(hidden.transpose(1, 2)))
        hertz = self.pitch(mel)
        voice = pulses(hertz, torch.zeros_like(hertz[:, :1]), self.mel.hop_length, self.mel.sample_rate)
        wave = self.render(mel.transpose(1, 2), filters, voice, noise.expand(voice.shape))
        return wave.clamp(-1, 1)[:, : self.mel.clip_samples]

    def render(self, mel: Tensor, filters: Tensor, voice: Tensor, noise: Tensor) -> Tensor:
        """As `ISTFTNet.render`; mel (B, T, M), filters (B, T, 4 * bins)."""
        voice_gain, voice_phase, noise_gain, noise_phase = filters.chunk(4, dim=2)
        a, b = self.shape(mel, voice, voice_gain, voice_phase), self.shape(mel, noise, noise_gain, noise_phase)
        wave = self.framing.istft((a[0] + b[0], a[1] + b[1]))
        for _ in range(self.vocoder.config.refinements):
            wave = self.framing.istft(self.shape(mel, wave))
        return wave

    def shape(self, mel: Tensor, source: Tensor, gain: Tensor | None = None, phase: Tensor | None = None) -> Spectrum:
        """As `ISTFTNet.shape`; mel (B, T, M), gain and phase (B, T, bins)."""
        real, imaginary = self.framing.stft(source)
        size = (real.square() + imaginary.square() + 1e-12).sqrt()
        change = (mel - torch.log(size @ self.vocoder.bank.T + self.mel.floor)) @ self.vocoder.envelope.T
        size = torch.exp((change if gain is None else change + gain).clamp(max=LOUDEST))
        if phase is None:
            return real * size, imaginary * size
        cosine, sine = size * torch.cos(phase), size * torch.sin(phase)
        return real * cosine - imaginary * sine, real * sine + imaginary * cosine


def noise_samples(vocoder: ISTFTNet) -> int:
    """How many samples of noise the vocoder takes."""
    return (vocoder.mel.frames - 1) * vocoder.mel.hop_length
