"""Settings of sound: the log-mel, its scale, the vocoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duovox.config.fields import check, require


@dataclass(frozen=True)
class MelConfig:
    """How sound becomes a log-mel spectrogram (log of a slaney mel magnitude spectrogram, reflect-padded, centred).

    The defaults are those of the public 16 kHz HiFi-GAN vocoders, so their mels and ours agree.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5
    clip_samples: int = 16000
    frames: int = 64

    def __post_init__(self) -> None:
        check("mel", self, positive="sample_rate n_fft win_length hop_length n_mels floor clip_samples frames")
        require(self.win_length <= self.n_fft, f"mel.win_length {self.win_length} is longer than n_fft {self.n_fft}")
        require(0 <= self.fmin < self.fmax, f"mel.fmin {self.fmin} must lie below fmax {self.fmax}")
        require(self.fmax <= self.sample_rate / 2, f"mel.fmax {self.fmax} lies above half the sample rate {self.sample_rate}")
        require(self.padded_samples >= self.clip_samples, f"mel.frames {self.frames} do not cover {self.clip_samples} samples")
        require(self.padded_samples > self.n_fft // 2, f"mel.n_fft {self.n_fft} is too long for clips of {self.padded_samples} samples")

    @property
    def padded_samples(self) -> int:
        """Length in samples a clip is zero-padded to, so that centred framing gives exactly `frames` frames."""
        return (self.frames - 1) * self.hop_length


@dataclass(frozen=True)
class MelScale:
    """The affine map between log-mel and the mel the diffusion sees: mel = (log_mel - shift) / scale.

    `kind` says how it was fitted on the train split: `range` maps [min, max] to [-1, 1] (the paper);
    `standard` maps to mean 0 and standard deviation 0.5.
    """

    kind: Literal["range", "standard"] = "standard"
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check("mel_scale", self, positive="scale")


@dataclass(frozen=True)
class VocoderConfig:
    """The neural vocoder: ConvNeXt blocks at the frame rate and an inverse-STFT head (Vocos, arXiv 2306.00814) on a voice source.

    `refinements` counts the rounds that bring the sound closer to its mel. In training the first `pitch_updates` teach the
    pitch alone, and from update `adversarial_after` on the discriminators take part; crops are `crop_frames` long.
    """

    width: int = 256
    hidden: int = 768
    blocks: int = 6
    kernel: int = 7
    pitch_width: int = 128
    refinements: int = 3
    discriminator_width: int = 32
    crop_frames: int = 32
    mel_weight: float = 15.0
    stft_weight: float = 3.0
    pitch_updates: int = 300
    adversarial_after: int = 400

    def __post_init__(self) -> None:
        sizes = "width hidden blocks kernel pitch_width discriminator_width crop_frames"
        check("vocoder", self, positive=sizes, not_negative="refinements mel_weight stft_weight pitch_updates adversarial_after")
        require(self.kernel % 2 == 1, f"vocoder.kernel must be odd, not {self.kernel}")
