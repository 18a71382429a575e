"""The one rule of hearing: which stretch of a sound counts, and which sounds cannot be heard at all. Every door goes by it.

Takes decoded sounds from `audio`; gives excerpts of a fixed length to `data`, the public object, the evaluation and the server, with
what was done to them. No files, no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import AudioError

Wave = NDArray[np.float32]

SILENCE = 1e-4
"""A sound that never leaves its mean by more than this is silent (full scale is 1: three steps of 16 bits)."""

LOUDEST = 2.0
"""Samples beyond this are on another scale. Lossy codecs overshoot full scale by up to a quarter; that much is clipped."""

CANCELLING = 0.1
"""Channels cancel where their average has less than this share of the power that independent channels would leave it."""


class SilentError(AudioError):
    """There is nothing to hear in a sound."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded sound: samples (S, channels), floats of full scale 1, at `rate` Hz. `broken` says that its file is damaged or breaks
    off, and that these are the samples before that."""

    samples: NDArray[np.floating]
    rate: float
    broken: bool = False


@dataclass(frozen=True)
class Treatment:
    """What was done to a sound: from `original_rate` to `rate` Hz; its channels averaged, or (they cancel) the channel `alone` taken,
    counted from 1; of `length` samples `kept` from sample `start` on, filled up with silence to `fitted` (all at `rate`), or `placed`: put
    at a drawn place among noise (see `placing`)."""

    original_rate: float
    rate: int
    channels: int
    alone: int | None
    length: int
    start: int
    fitted: int
    broken: bool = False
    placed: bool = False

    @property
    def kept(self) -> int:
        return min(self.length, self.fitted)

    def notes(self) -> tuple[str, ...]:
        """What a user should know of one sound: what was cut, which channel counts, where the file breaks off."""
        found = []
        if self.broken:
            found.append("the file is damaged or breaks off, what comes before that counts")
        if self.alone is not None:
            found.append(f"its {self.channels} channels cancel, channel {self.alone} counts alone")
        if self.kept < self.length:
            whole, part, start = (f"{samples / self.rate:.3g} s" for samples in (self.length, self.kept, self.start))
            found.append(f"lasts {whole}, the loudest {part} from {start} on counts")
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The part of a sound that counts: wave (S,) float32 in [-1, 1], and what was done to get it."""

    wave: Wave = field(repr=False)
    treatment: Treatment


def hear(sound: Sound, rate: int, samples: int) -> Excerpt:
    """The loudest `samples` samples of a sound at `rate` Hz; a shorter sound is followed by silence.

    Channels are averaged, unless they cancel: then the loudest counts alone. What lies above full scale is clipped. Raises
    `AudioError` for a sound without samples, on another scale or with values that are not finite, and `SilentError`.
    """
    whole, alone = _to_mono(sound, rate)
    start = loudest_start(whole, samples)
    wave = np.clip(whole[start : start + samples], -1, 1)
    if np.abs(wave - wave.mean(dtype=np.float64)).max() < SILENCE:
        raise SilentError(f"is silent (nothing in it reaches {SILENCE:g} of full scale)")
    done = Treatment(sound.rate, rate, sound.samples.shape[1], alone, len(whole), start, samples, sound.broken)
    return Excerpt(fit_length(wave, samples), done)


def to_wave(sound: Sound, rate: int) -> Wave:
    """All of a sound as a mono wave (S,), float32, at `rate` Hz. Raises `AudioError` as `hear` does, but takes silence."""
    return _to_mono(sound, rate)[0]


def loudest_start(wave: Wave, samples: int) -> int:
    """Where the stretch of `samples` samples with the most energy starts; 0 if the wave is no longer than that."""
    if len(wave) <= samples:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    return int(np.argmax(energy[samples:] - energy[:-samples]))


def fit_length(wave: Wave, samples: int) -> Wave:
    """The wave (S,) zero-padded or cut at its end to exactly `samples`."""
    fitted: Wave = np.pad(wave[:samples], (0, max(0, samples - len(wave))))
    return fitted


def resample(mono: NDArray[np.floating], rate: float, target_rate: int) -> Wave:
    """A mono wave (S,) at another rate, float32. Raises `AudioError` where nothing is left of it, or the rates are impossible."""
    if rate != target_rate:
        try:
            import soxr  # where it is used: a voice without PyTorch may do without, for sounds at its own rate

            mono = soxr.resample(mono, rate, target_rate)
        except ImportError:
            raise AudioError(f"cannot be resampled from {rate} Hz to {target_rate} Hz without soxr: pip install soxr") from None
        except (ValueError, RuntimeError) as error:
            raise AudioError(f"cannot be resampled from {rate} Hz to {target_rate} Hz ({error})") from None
    wave: Wave = mono.astype(np.float32)
    if wave.size == 0:
        raise AudioError(f"is shorter than one sample at {target_rate} Hz")
    return wave


def check_samples(samples: NDArray[np.floating]) -> None:
    """Raise `AudioError` for no samples, and for samples that are not finite."""
    if samples.size == 0:
        raise AudioError("holds no samples")
    finite = np.isfinite(samples)
    if not finite.all():
        raise AudioError(f"holds {np.count_nonzero(~finite)} samples that are not finite numbers")


def summary(treatments: Sequence[Treatment]) -> tuple[str, ...]:
    """What was done to many sounds, counted, in words."""
    notes = [
        f"{count} clips were resampled from {original:g} to {rate} Hz"
        for (original, rate), count in sorted(Counter((t.original_rate, t.rate) for t in treatments).items())
        if original != rate
    ]
    return (*notes, *(text for words, holds in _COUNTED if (text := _counted(treatments, words, holds))))


_COUNTED: tuple[tuple[str, Callable[[Treatment], bool]], ...] = (
    ("of several channels were averaged", lambda t: t.channels > 1 and t.alone is None),
    ("whose channels cancel were heard by their loudest channel alone", lambda t: t.alone is not None),
    ("shorter than {fitted} samples were padded with silence at their end", lambda t: t.length < t.fitted and not t.placed),
    ("shorter than {fitted} samples were put at a drawn place, the rest filled with noise like their own floor", lambda t: t.placed),
    ("longer than {fitted} samples were cut to their loudest part", lambda t: t.length > t.fitted),
    ("are damaged or break off; what comes before that was taken", lambda t: t.broken),
)


def _counted(treatments: Sequence[Treatment], words: str, holds: Callable[[Treatment], bool]) -> str:
    count = sum(map(holds, treatments))
    return f"{count} clips {words.format(fitted=treatments[0].fitted)}" if count else ""


def _to_mono(sound: Sound, rate: int) -> tuple[Wave, int | None]:
    """The sound as one wave at `rate` Hz, and the channel (from 1) that was taken alone, if one was."""
    check_samples(sound.samples)
    peak = float(np.abs(sound.samples).max())
    if peak > LOUDEST:
        raise AudioError(f"is on another scale (its samples reach {peak:.3g}, full scale is 1); scale them to [-1, 1]")
    lone = _lone_channel(sound.samples)
    mono = sound.samples.mean(axis=1, dtype=np.float64) if lone is None else sound.samples[:, lone].astype(np.float64)
    return resample(mono, sound.rate, rate), None if lone is None else lone + 1


def _lone_channel(samples: NDArray[np.floating]) -> int | None:
    """The loudest channel, from 0, where the channels cancel in their average; None where they do not. A constant is no sound.

    C independent channels of mean power P leave their average P / C.
    """
    powers = samples.var(axis=0, dtype=np.float64)
    together = samples.mean(axis=1, dtype=np.float64).var()
    cancels = together < CANCELLING * powers.mean() / len(powers)
    return int(np.argmax(powers)) if cancels else None
