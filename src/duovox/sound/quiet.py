"""Standard error without the remarks of libmpg123, which writes there by itself whatever it finds odd in an MP3 file."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_REMARK = re.compile(rb"\s*(\[.*libmpg123.*\]|(Note|Warning|warning|error): |\[id3|.*mpg123)")
_KNOWN = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")
_one_at_a_time = threading.Lock()


@contextmanager
def quiet(content: bytes) -> Iterator[None]:
    """While `content`, the bytes of a sound file, is decoded, hold back what libmpg123 writes to standard error.

    The stream belongs to the whole process: what others write to it meanwhile is passed on at the end. Files that libmpg123 never
    sees are left alone.
    """
    if content.startswith(_KNOWN):
        yield
        return
    with _one_at_a_time, tempfile.TemporaryFile() as held:
        try:
            stream = os.dup(2)
        except OSError:  # there is no standard error
            stream = -1
        if stream < 0:
            yield
            return
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            os.dup2(stream, 2)
            held.seek(0)
            for line in held:
                if not _REMARK.match(line):
                    os.write(stream, line)
            os.close(stream)
