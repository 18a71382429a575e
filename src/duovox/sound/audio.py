"""Sound files and arrays of samples to mono waves, and back: the only module that opens sound.

Takes paths and arrays from the user, gives float32 waves (S,) to `data`, `mel` and the public object. No torch here.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from duovox.contracts import AudioError, OutputError
from duovox.files import write_whole

Wave = NDArray[np.float32]

READABLE = (".wav", ".flac", ".ogg", ".opus", ".mp3")
WRITABLE = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
MAX_SECONDS = 60.0
_INTEGERS = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}  # dtype: (offset, full scale)


def read_audio(path: str | Path, rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """A sound file as a mono wave (S,), float32, resampled to `rate` Hz; channels are averaged.

    Raises `AudioError` for a file that is missing, unreadable, not sound, without samples, longer than `max_seconds`
    (seen from its header, before it is decoded) or that holds non-finite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: {'is a folder, not a sound file' if path.is_dir() else 'no such file'}")
    try:
        with path.open("rb") as handle:
            return decode_audio(handle, rate, max_seconds)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror or error}") from None
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None


def decode_audio(file: BinaryIO, rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """As `read_audio`, from an open file."""
    try:
        with soundfile.SoundFile(file) as sound:
            _check_length(sound.frames / sound.samplerate, max_seconds)
            samples = sound.read(int(max_seconds * sound.samplerate) + 1, dtype="float32", always_2d=True)
            return _to_wave(samples, sound.samplerate, rate, max_seconds)
    except (soundfile.SoundFileError, RuntimeError) as error:
        kind = "is empty" if file.seek(0, io.SEEK_END) == 0 else f"is not sound that can be read ({_libsndfile_words(error)})"
        raise AudioError(f"{kind}; readable are {', '.join(READABLE)}") from None


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself before anything is decoded: frames (samples of one channel), Hz, channels."""

    frames: int
    rate: int
    channels: int


def read_header(file: BinaryIO) -> Header:
    """The header of an open sound file, which is left at its start. Raises `AudioError` for a file that is no readable sound."""
    try:
        with soundfile.SoundFile(file) as sound:
            return Header(sound.frames, sound.samplerate, sound.channels)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"is not sound that can be read ({_libsndfile_words(error)}); readable are {', '.join(READABLE)}") from None
    finally:
        file.seek(0)


def native_rate(path: str | Path) -> int:
    """The sample rate in Hz a sound file is stored at. Raises `AudioError` for a file that is no readable sound."""
    try:
        with Path(path).open("rb") as handle:
            return read_header(handle).rate
    except (OSError, AudioError) as error:
        raise AudioError(f"{path}: cannot be read as sound: {error}") from None


def as_wave(samples: Any, rate: float, target_rate: int, max_seconds: float = MAX_SECONDS) -> Wave:
    """An array of samples at `rate` Hz as a mono wave (S,), float32, resampled to `target_rate` Hz.

    One axis is (S,); of two axes the shorter one is the channels, which are averaged. Floats are taken as they are (full
    scale is 1), uint8, int16 and int32 are scaled to [-1, 1). Raises `AudioError` for anything else, and for a rate that is
    not positive, no samples, more than `max_seconds` of them, or non-finite ones.
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
    return _to_wave(_as_floats(channels_last), rate, target_rate, max_seconds)


def fit_length(wave: Wave, samples: int) -> Wave:
    """The wave (S,) zero-padded or cut at its end to exactly `samples`."""
    fitted: Wave = np.pad(wave[:samples], (0, max(0, samples - len(wave))))
    return fitted


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
    return _with_fixed_serial(sound.getvalue()) if kind == "OGG" else sound.getvalue()


def _as_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Samples of any accepted type as floats of full scale 1."""
    if array.dtype.kind == "f":
        return array
    if array.dtype.name not in _INTEGERS:
        raise AudioError(f"samples of type {array.dtype} are not sound; use floats in [-1, 1], or {', '.join(_INTEGERS)}")
    offset, full = _INTEGERS[array.dtype.name]
    return (array.astype(np.float64) - offset) / full


def _check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise AudioError(f"lasts {seconds:.4g} s, longer than the {max_seconds:g} s allowed")


def _to_wave(samples: NDArray[Any], rate: float, target_rate: int, max_seconds: float) -> Wave:
    """(S, channels) floats at `rate` -> checked mono wave (S',) at `target_rate`."""
    if samples.size == 0:
        raise AudioError("holds no samples")
    _check_length(len(samples) / rate, max_seconds)
    mono = samples.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mono).all():
        raise AudioError(f"holds {np.count_nonzero(~np.isfinite(mono))} samples that are not finite numbers")
    if rate != target_rate:
        try:
            mono = soxr.resample(mono, rate, target_rate)
        except (ValueError, RuntimeError) as error:
            raise AudioError(f"cannot be resampled from {rate} Hz to {target_rate} Hz ({error})") from None
    wave: Wave = mono.astype(np.float32)
    if wave.size == 0:
        raise AudioError(f"is shorter than one sample at {target_rate} Hz")
    return wave


def _with_fixed_serial(ogg: bytes) -> bytes:
    """An Ogg stream with serial number 0 in place of a random one, so that the same sound gives the same bytes (RFC 3533)."""
    content = bytearray(ogg)
    start = 0
    while start < len(content):
        segments = content[start + 26]
        end = start + 27 + segments + sum(content[start + 27 : start + 27 + segments])
        content[start + 14 : start + 18] = bytes(4)
        content[start + 22 : start + 26] = bytes(4)
        content[start + 22 : start + 26] = _ogg_checksum(content[start:end]).to_bytes(4, "little")
        start = end
    return bytes(content)


def _ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 of polynomial 0x04c11db7, most significant bit first, starting from 0."""
    checksum = 0
    for byte in page:
        checksum = (checksum << 8) & 0xFFFFFFFF ^ _CRC_TABLE[checksum >> 24 ^ byte]
    return checksum


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(32):
        table = [(value << 1) ^ (0x104C11DB7 if value >> 31 else 0) for value in table]
    return table


_CRC_TABLE = _crc_table()


def _libsndfile_words(error: Exception) -> str:
    """The reason in a libsndfile error, without the file handle it starts with."""
    return str(getattr(error, "error_string", error)).rstrip(".")
