"""An uploaded sound, taken with suspicion: its size is looked at first, its name never. What counts of it is decided by `sound.hearing`.

Takes an open file from `api`; gives the excerpt that is heard to `tasks`, or a `RefusedError`.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from duovox.contracts import AudioError
from duovox.serve.refusals import RefusedError
from duovox.serve.settings import ServeConfig
from duovox.sound.audio import TooLongError, UnreadableError, read_excerpt
from duovox.sound.hearing import Excerpt, SilentError

STATUSES: dict[type[AudioError], tuple[int, str]] = {
    UnreadableError: (415, "not_audio"),
    TooLongError: (413, "too_long"),
    SilentError: (422, "silent"),
}


def read_upload(file: BinaryIO, rate: int, samples: int, config: ServeConfig) -> Excerpt:
    """The part of a sound file that counts, (samples,) at `rate` Hz.

    Raises `RefusedError`: 413 for a file that is too large or lasts too long, 415 for what libsndfile does not read, 422 for a sound
    in which there is nothing to hear.
    """
    _check_size(file, config)
    try:
        return read_excerpt(file, rate, samples, config.upload_seconds)
    except AudioError as error:
        status, code = STATUSES.get(type(error), (422, "bad_audio"))
        raise RefusedError(status, code, f"the sound {error}") from None


def _check_size(file: BinaryIO, config: ServeConfig) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > config.upload_bytes:
        raise too_large(config.upload_bytes)
    if size == 0:
        raise RefusedError(422, "empty", "the file is empty")


def too_large(limit: int) -> RefusedError:
    return RefusedError(413, "too_large", f"larger than the {limit / 2**20:.3g} MB allowed")
