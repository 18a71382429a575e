"""Sound files and arrays of samples to sounds, and waves to sound files: the only module that opens sound.

Takes paths, open files and arrays from the user, gives excerpts (see `hearing`) and float32 waves (S,) to `data`, the public object,
the evaluation and the server. No torch here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import soundfile
from numpy.typing import NDArray

from duovox.contracts import AudioError, OutputError
from duovox.files import write_whole
from duovox.sound.containers import claimed_frames, mended
from duovox.sound.hearing import Excerpt, Sound, Wave, check_samples, hear, resample, to_wave
from duovox.sound.ogg import with_fixed_serial
from duovox.sound.quiet import quiet
from duovox.text import printable

READABLE = (".wav", ".flac", ".ogg", ".opus", ".mp3")
WRITABLE = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
MAX_SECONDS = 60.0
MAX_SAMPLES_A_SECOND = 768_000
"""Of all channels together, for every second allowed: a few bytes of FLAC can claim, and give, any number."""
_BLOCK = 4096  # frames
_INTEGERS = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}  # dtype: (offset, full scale)


class TooLongError(AudioError):
    """A sound lasts longer, or has more samples, than is allowed."""


class UnreadableError(AudioError):
    """A file is no sound that can be read."""


def is_file(sound: object) -> TypeGuard[str | Path | BinaryIO]:
    """Whether a sound is given as a file, by its path or open, and not as samples."""
    return isinstance(sound, str | Path) or hasattr(sound, "read")


def read_excerpt(source: str | Path | BinaryIO, rate: int, samples: int, max_seconds: float = MAX_SECONDS) -> Excerpt:
    """The part of a sound file that counts, by the rule of `hearing.hear`: (samples,) at `rate` Hz.

    Raises `AudioError`, with the path in front, for a file that is missing, unreadable, not sound, longer than `max_seconds` (counted
    while it is decoded, whatever its header says), silent, or whose samples cannot be used.
    """
    if not isinstance(source, str | Path):
        return hear(decode_sound(source, max_seconds), rate, samples)
    with _opened(Path(source)) as file:
        return hear(decode_sound(file, max_seconds), rate, samples)


def read_audio(path: str | Path, rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """A whole sound file as a mono wave (S,), float32, resampled to `rate` Hz; channels are averaged, unless they cancel.

    Raises `AudioError` as `read_excerpt` does, but takes silence.
    """
    with _opened(Path(path)) as file:
        return decode_audio(file, rate, max_seconds)


def decode_audio(file: BinaryIO, rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """As `read_audio`, from an open file."""
    return to_wave(decode_sound(file, max_seconds), rate)


def decode_sound(file: BinaryIO, max_seconds: float = MAX_SECONDS) -> Sound:
    """An open sound file, from where it stands on, with all its channels at its own rate.

    What a header says of lengths is not believed: all that is there is decoded, up to the limits. A damaged file gives what comes
    before the damage. Raises `UnreadableError`, and `TooLongError` for more than `max_seconds`, or more samples than they may have.
    """
    content = file.read(int(max_seconds * MAX_SAMPLES_A_SECOND * 4))
    if not content:
        raise UnreadableError(f"is empty; readable are {', '.join(READABLE)}")
    try:
        with quiet(content), _Stream(io.BytesIO(mended(content))) as stream:
            samples, broken = _decoded(stream, claimed_frames(content), max_seconds)
            return Sound(samples, stream.samplerate, broken)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(error) from None


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file read from its start to its end. Not seekable: soundfile seeks after each read, which fails for unknown lengths."""

    def seekable(self) -> bool:
        return False


def _decoded(stream: _Stream, claimed: int, max_seconds: float) -> tuple[NDArray[np.float32], bool]:
    """All samples (S, channels) of a stream, and whether they end in damage; `claimed` frames are certainly sound, if there are so many."""
    blocks, frames, damaged = [np.zeros((0, stream.channels), np.float32)], 0, False
    most = max_seconds * min(stream.samplerate, MAX_SAMPLES_A_SECOND / stream.channels)
    while True:
        before = claimed - frames if frames < claimed else _BLOCK
        try:
            block = stream.read(min(_BLOCK, before), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:  # behind the claimed end it may be anything, a player's tag for instance
            damaged = not 0 < claimed <= frames
            break
        if not len(block):
            break
        blocks.append(block)
        frames += len(block)
        if frames > most:
            raise _too_long(stream, max_seconds)
    if damaged and not frames:
        raise RuntimeError("damaged from its start on")
    return np.concatenate(blocks), damaged


def _too_long(stream: _Stream, max_seconds: float) -> TooLongError:
    if stream.samplerate * stream.channels <= MAX_SAMPLES_A_SECOND:
        return TooLongError(f"lasts longer than the {max_seconds:g} s allowed")
    kind = f"{stream.channels} channels at {stream.samplerate} Hz"
    return TooLongError(f"has too many samples ({kind}); save it with fewer channels, at 48000 Hz or less")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to decode; every error about it begins with its path."""
    name = printable(str(path))
    if not path.is_file():
        kind = "is a folder, not a sound file" if path.is_dir() else "is a broken link" if path.is_symlink() else "no such file"
        raise AudioError(f"{name}: {kind}")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror or error}") from None
    except AudioError as error:
        raise type(error)(f"{name}: {error}") from None


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself before anything is decoded: frames (samples of one channel), Hz, channels."""

    frames: int
    rate: int
    channels: int


def read_header(file: BinaryIO) -> Header:
    """The header of an open sound file, which is left at its start. Raises `UnreadableError` for a file that is no readable sound."""
    start = file.read(4)
    file.seek(0)
    try:
        with quiet(start), soundfile.SoundFile(file) as sound:
            return Header(sound.frames, sound.samplerate, sound.channels)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(error) from None
    finally:
        file.seek(0)


def _unreadable(error: Exception) -> UnreadableError:
    """The reason in a libsndfile error, without the file handle it starts with. Of MP3 files with nothing in them it says that the
    file, which is in memory, does not exist."""
    words = str(getattr(error, "error_string", error)).rstrip(".")
    words = "nothing in it can be decoded" if words.startswith("File does not exist") else words
    return UnreadableError(f"is not sound that can be read ({words}); readable are {', '.join(READABLE)}")


def as_sound(samples: Any, rate: float, max_seconds: float = MAX_SECONDS) -> Sound:
    """An array of samples at `rate` Hz as a sound.

    One axis is (S,); of two axes the shorter one is the channels. Floats are taken as they are (full scale is 1), uint8, int16 and
    int32 are scaled to [-1, 1). Raises `AudioError` for anything else, for a rate that is not positive, and for more than
    `max_seconds`.
    """
    if not (isinstance(rate, int | float | np.number) and math.isfinite(rate) and rate > 0):
        raise AudioError(f"the sample rate must be a positive number of Hz, not {rate!r}")
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"expected an array of samples, got {type(samples).__name__} ({error})") from None
    if array.ndim not in (1, 2):
        raise AudioError(f"expected samples of shape (S,), (S, channels) or (channels, S), got {array.shape}")
    channels_last = array.reshape(-1, 1) if array.ndim == 1 else array if array.shape[0] >= array.shape[1] else array.T
    if len(channels_last) > max_seconds * rate:
        raise TooLongError(f"lasts {len(channels_last) / rate:.4g} s, longer than the {max_seconds:g} s allowed")
    return Sound(_as_floats(channels_last), rate)


def as_wave(samples: Any, rate: float, target_rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """An array of samples at `rate` Hz (see `as_sound`) as a mono wave (S,), float32, at `target_rate` Hz: the channels averaged,
    whatever they hold. Raises `AudioError` as `as_sound` does, and for no samples or non-finite ones."""
    sound = as_sound(samples, rate, max_seconds)
    check_samples(sound.samples)
    return resample(sound.samples.mean(axis=1, dtype=np.float64), rate, target_rate)


def write_audio(path: str | Path, wave: NDArray[Any], rate: int, force: bool = False, parents: bool = False) -> Path:
    """Write a mono wave (S,), clipped to [-1, 1], as 16-bit .wav or .flac, or as .ogg (Vorbis); returns the path.

    The file appears whole or not at all. Raises `AudioError` for samples that cannot be written, and `OutputError` for
    another suffix, an existing file without `force`, a missing folder without `parents`, or a folder that takes no file.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise OutputError(f"{path}: cannot write {path.suffix or 'a name without suffix'}; choose one of {', '.join(WRITABLE)}")
    write_whole(path, encode_audio(wave, rate, path.suffix.lower()), force, parents)
    return path


def encode_audio(wave: NDArray[Any], rate: int, suffix: str) -> bytes:
    """A mono wave as the bytes that `write_audio` puts into a file of that suffix. Raises `AudioError`."""
    mono = as_wave(wave, rate, rate, max_seconds=math.inf)
    kind, subtype = WRITABLE[suffix]
    sound = io.BytesIO()
    soundfile.write(sound, np.clip(mono, -1, 1), rate, format=kind, subtype=subtype)
    return with_fixed_serial(sound.getvalue()) if kind == "OGG" else sound.getvalue()


def _as_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Samples of any accepted type as floats of full scale 1."""
    if array.dtype.kind == "f":
        return array
    if array.dtype.name not in _INTEGERS:
        raise AudioError(f"samples of type {array.dtype} are not sound; use floats in [-1, 1], or {', '.join(_INTEGERS)}")
    offset, full = _INTEGERS[array.dtype.name]
    return (array.astype(np.float64) - offset) / full
