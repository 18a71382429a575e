"""An uploaded sound, taken with suspicion: its size is known, its length is looked at before it is decoded, its name never used.

Takes an open file from `app`; gives a wave (S,) to `tasks`, or a `RefusedError`.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import AudioError
from duovox.serve.refusals import RefusedError
from duovox.serve.settings import ServeConfig
from duovox.sound.audio import Header, decode_audio, read_header

MAX_SAMPLES_A_SECOND = 192_000
"""Of all channels together: a file that claims more (a few bytes of FLAC can) is not decoded."""

SILENCE, LOUDEST = 1e-4, 100.0
"""Peaks below the one are silence; above the other they are no sound (full scale is 1)."""


def read_upload(file: BinaryIO, rate: int, config: ServeConfig) -> NDArray[np.float32]:
    """A sound file as a mono wave (S,) at `rate` Hz.

    Raises `RefusedError`: 413 for a file that is too large or claims to last too long, 415 for what libsndfile does not read, 422
    for a sound with nothing in it.
    """
    _check_size(file, config)
    try:
        header = read_header(file)
    except AudioError as error:
        raise RefusedError(415, "not_audio", f"the file {error}") from None
    _check_length(header, config)
    try:
        wave = decode_audio(file, rate, config.upload_seconds)
    except AudioError as error:
        raise RefusedError(422, "bad_audio", f"the sound {error}") from None
    _check_loudness(wave)
    return wave


def _check_size(file: BinaryIO, config: ServeConfig) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > config.upload_bytes:
        raise too_large(config.upload_bytes)
    if size == 0:
        raise RefusedError(422, "empty", "the file is empty")


def too_large(limit: int) -> RefusedError:
    return RefusedError(413, "too_large", f"larger than the {limit / 2**20:.3g} MB allowed")


def _check_length(header: Header, config: ServeConfig) -> None:
    seconds, limit = header.frames / max(header.rate, 1), config.upload_seconds
    if seconds > limit:
        raise RefusedError(413, "too_long", f"the sound lasts {seconds:.4g} s, longer than the {limit:g} s allowed")
    if header.frames * header.channels > limit * MAX_SAMPLES_A_SECOND:
        kind = f"{header.channels} channels at {header.rate} Hz"
        raise RefusedError(413, "too_many_samples", f"the sound has too many samples ({kind}); send one channel at 48000 Hz or less")


def _check_loudness(wave: NDArray[np.float32]) -> None:
    peak = float(np.abs(wave).max())
    if peak < SILENCE:
        raise RefusedError(422, "silent", "there is nothing but silence in the sound")
    if peak > LOUDEST:
        raise RefusedError(422, "bad_audio", f"the samples reach {peak:.3g}, but full scale is 1")
