"""Takes our log-mels from the diffusion (or waves from `data`), gives what a classifier of someone else's takes; differentiable.

A mel of the same settings only changes its scale and layout. A mel of other settings is bridged: our mel is spread over the bins
of its own transform, carried over to the target's window and bins, filtered again and moved in time. A waveform comes from the
vocoder. `from_wave` is the exact way, from real sound, by which the classifier was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.classifiers.bridge import LOUDEST, FrameTiming, SpectrumBridge, target_filterbank
from duovox.classifiers.resampling import Resampler, check_wave
from duovox.config import MelConfig, MelInput, WaveInput
from duovox.contracts import BundleError, ConfigError, check_mel
from duovox.sound.vocoder.istft_net import check_same_mel

ITEM_FLOOR = 1e-7
"""Added to the variance in `item` normalisation, as in wav2vec 2.0's feature extractor."""


class MelFrontEnd(nn.Module):
    """Our log-mel (B, 1, M, T), natural logarithm, unscaled -> the classifier's mel, in the layout of `target`; gradients reach our mel.

    `from_wave` takes waves (B, S) at our mel's sample rate, shorter ones padded, longer ones cut, and gives the exact input, as the
    classifier's own front end makes it. Raises `ShapeError` for another shape of mel or wave.

    The floor of the bridge is soft, log(mel + floor), so that gradients do not stop where the mel is quiet; that of `from_wave`
    is the classifier's own, log(max(mel, floor)). Frames that begin after our mel's end are silence. Raises `ConfigError` for
    sample rates whose ratio is too fine.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, source: MelConfig, target: MelInput) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.bridge = None if same_spectrogram(source, target) else SpectrumBridge(source, target)
        self.timing = None if _frames_agree(source, target) else FrameTiming(source, target)
        self.resampler = Resampler(source.sample_rate, target.sample_rate)
        self.register_buffer("window", torch.hann_window(target.win_length), persistent=False)
        self.register_buffer("filters", target_filterbank(target), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        check_mel(log_mel, self.source.n_mels, self.source.frames)
        with torch.autocast(log_mel.device.type, enabled=False):
            x = log_mel[:, 0].float()
            x = x if self.bridge is None else self.bridge(x)
            if self.bridge is not None or self.target.floor > self.source.floor:
                x = torch.logaddexp(x, torch.full_like(x, math.log(self.target.floor)))
            return self._finish(x if self.timing is None else self.timing(x))

    def from_wave(self, wave: Tensor) -> Tensor:
        target = self.target
        check_wave(wave)
        with torch.autocast(wave.device.type, enabled=False):
            padded = self._fit(self.resampler(wave.float()))
            spectrum = torch.stft(
                padded, target.n_fft, target.hop_length, target.win_length, self.window, pad_mode="reflect", return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square()
            size = torch.sqrt(power + 1e-12) if target.power == 1 else power
            return self._finish(torch.log((self.filters @ size).clamp(min=target.floor))[..., : target.frames])

    def _fit(self, wave: Tensor) -> Tensor:
        """wave (B, S) -> as many samples as all frames need; what the last frame still sees is not cut."""
        last = (self.target.frames - 1) * self.target.hop_length
        wave = wave[:, : last + self.target.n_fft]
        needed = max(last, self.target.n_fft // 2 + 1)
        return nn.functional.pad(wave, (0, max(0, needed - wave.shape[1])))

    def _finish(self, x: Tensor) -> Tensor:
        """Natural log of the mel (B, M, T) -> the classifier's logarithm, normalisation, scale and layout."""
        target = self.target
        if target.log == "none":
            x = x.clamp(max=target.power * LOUDEST).exp()
        else:
            x = x * {"ln": 1.0, "log10": 1 / math.log(10), "db": 10 / math.log(10)}[target.log]
        if target.normalise == "item":
            x = standardise(x, (1, 2))
        if target.normalise == "whisper":
            x = (torch.maximum(x, x.amax((1, 2), keepdim=True) - 8) + 4) / 4
        x = (x - target.shift) / target.scale
        x = x.transpose(1, 2) if target.layout in ("B1TM", "BTM") else x
        return x.unsqueeze(1) if target.layout in ("B1MT", "B1TM") else x


class WaveFrontEnd(nn.Module):
    """Our log-mel -> a waveform, (B, samples) or (B, 1, samples), by way of `vocoder`: (B, 1, M, T) -> wave (B, S) in [-1, 1].

    The vocoder is frozen in place: it stays in eval mode, and its parameters take no gradients. Raises `ConfigError` for a vocoder
    of another mel, or sample rates whose ratio is too fine.
    """

    def __init__(self, source: MelConfig, target: WaveInput, vocoder: nn.Module) -> None:
        super().__init__()
        _check_vocoder(source, vocoder)
        self.source, self.target = source, target
        self.vocoder = vocoder.requires_grad_(False).eval()
        self.resampler = Resampler(source.sample_rate, target.sample_rate)

    def train(self, mode: bool = True) -> WaveFrontEnd:
        super().train(mode)
        self.vocoder.eval()
        return self

    def forward(self, log_mel: Tensor) -> Tensor:
        check_mel(log_mel, self.source.n_mels, self.source.frames)
        with torch.autocast(log_mel.device.type, enabled=False):
            return self.from_wave(self.vocoder(log_mel.float().clamp(max=LOUDEST)))

    def from_wave(self, wave: Tensor) -> Tensor:
        check_wave(wave)
        target = self.target
        with torch.autocast(wave.device.type, enabled=False):
            x = self.resampler(wave.float())[:, : target.samples]
            x = nn.functional.pad(x, (0, target.samples - x.shape[1]))
            x = standardise(x, (1,)) if target.normalise == "item" else x
            return x.unsqueeze(1) if target.layout == "B1S" else x


FrontEnd = MelFrontEnd | WaveFrontEnd
"""What stands between our log-mel and a classifier of someone else's: `forward(log_mel)`, and the exact `from_wave(wave)`."""


def build_front_end(
    source: MelConfig, mel_input: MelInput | None, wave_input: WaveInput | None, vocoder: nn.Module | None
) -> MelFrontEnd | WaveFrontEnd:
    """The front end of a classifier that takes either a mel or a waveform; only a waveform needs a vocoder.

    Raises `ConfigError` where neither or both are given, or the vocoder is missing or was made for another mel.
    """
    if mel_input is not None and wave_input is None:
        return MelFrontEnd(source, mel_input)
    if wave_input is None or mel_input is not None:
        raise ConfigError("say what the classifier takes: either mel_input or wave_input, not both")
    if vocoder is None:
        raise ConfigError("a classifier that takes a waveform needs a vocoder: give one, such as that of a bundle with the same mel")
    return WaveFrontEnd(source, wave_input, vocoder)


def same_spectrogram(source: MelConfig, target: MelInput) -> bool:
    """Whether the target's mel is ours but for the times of its frames, its floor, logarithm, scale and layout."""
    names = ("sample_rate", "n_fft", "win_length", "n_mels", "fmin", "fmax")
    fixed = (target.filters, target.filter_norm, target.power) == ("slaney", "slaney", 1)
    return fixed and all(getattr(source, name) == getattr(target, name) for name in names)


def _frames_agree(source: MelConfig, target: MelInput) -> bool:
    same_hop = source.hop_length * target.sample_rate == target.hop_length * source.sample_rate
    return same_hop and source.frames == target.frames


def _check_vocoder(source: MelConfig, vocoder: nn.Module) -> None:
    """Raise `ConfigError` if the vocoder says that it was made for another mel."""
    mel = getattr(vocoder, "mel", None)
    if isinstance(mel, MelConfig):
        try:
            check_same_mel(mel, source, "the front end")
        except BundleError as error:
            raise ConfigError(str(error)) from None


def standardise(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean 0 and standard deviation 1 over `axes`, for each item of the batch."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + ITEM_FLOOR)
