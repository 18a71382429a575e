"""Takes our log-mels from the diffusion (or waves from `data`), gives what a classifier of someone else's takes; differentiable.

A mel of the same settings only changes its scale and layout. A mel of other settings is bridged: our mel is spread over the bins
of its own transform, carried over to the target's window and bins, filtered again and moved in time. A waveform comes from the
vocoder. `from_wave` is the exact way, from real sound, by which the classifier was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, MelInput, WaveInput
from duovox.contracts import BundleError, ConfigError, ShapeError, check_mel
from duovox.sound.mel import hz_to_mel, mel_filterbank, mel_to_hz, triangles
from duovox.sound.vocoder.istft_net import check_same_mel, interpolation

LOUDEST = 6.0
"""Log-mels are clamped to this before exp; full-scale speech stays below 3."""
TINY = 1e-30
REFINEMENTS = 3
"""How often the spectrum spread from a mel is corrected to have that mel."""
ITEM_FLOOR = 1e-7
"""Added to the variance in `item` normalisation, as in wav2vec 2.0's feature extractor."""
ZERO_CROSSINGS, ROLL_OFF, KAISER_BETA = 32, 0.95, 9.0
LARGEST_KERNEL = 2**25


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
        _check_wave(wave)
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
        _check_wave(wave)
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


def _check_wave(wave: Tensor) -> None:
    if wave.ndim != 2:
        raise ShapeError(f"expected a wave of shape (B, S), got {tuple(wave.shape)}")


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


class Resampler(nn.Module):
    """wave (B, S) at `old` Hz -> (B, ceil(S * new / old)) at `new` Hz: windowed sinc (Kaiser), one filter for each output phase.

    The same wave for equal rates. Raises `ConfigError` where the rates have so small a common divisor that the filters are huge.
    """

    kernel: Tensor

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        common = math.gcd(old, new)
        self.up, self.down = new // common, old // common
        self.reach = math.ceil(ZERO_CROSSINGS / (ROLL_OFF * min(1.0, new / old)))
        if self.up * (2 * self.reach + self.down) > LARGEST_KERNEL:
            raise ConfigError(f"cannot resample from {old} to {new} Hz; choose a sample rate in a simpler ratio to {old}")
        self.register_buffer("kernel", self._kernel() if self.up != self.down else torch.ones(1, 1, 1), persistent=False)

    def _kernel(self) -> Tensor:
        """(up, 1, 2 * reach + down): row i gives output sample i from input samples -reach, ..., reach + down - 1."""
        cut_off = ROLL_OFF * min(1.0, self.up / self.down)
        centres = torch.arange(self.up, dtype=torch.float64)[:, None] * self.down / self.up
        away = torch.arange(-self.reach, self.reach + self.down, dtype=torch.float64) - centres
        inside = (1 - (away / self.reach).square()).clamp(min=0)
        window = torch.special.i0(KAISER_BETA * inside.sqrt()) * (inside > 0)
        kernel = torch.sinc(cut_off * away) * window
        return (kernel / kernel.sum(dim=1, keepdim=True)).float().unsqueeze(1)

    def forward(self, wave: Tensor) -> Tensor:
        if self.up == self.down:
            return wave
        samples = -(-wave.shape[1] * self.up // self.down)
        padded = nn.functional.pad(wave, (self.reach, self.reach + self.down)).unsqueeze(1)
        phases = nn.functional.conv1d(padded, self.kernel.to(wave.dtype), stride=self.down)
        return phases.transpose(1, 2).flatten(1)[:, :samples]


def resample(wave: Tensor, old: int, new: int) -> Tensor:
    """wave (B, S) from `old` to `new` Hz, (B, ceil(S * new / old)); see `Resampler`. Raises `ShapeError` for another rank."""
    _check_wave(wave)
    module = Resampler(old, new).to(wave.device)
    return module(wave)
