"""Sizes in the headers of sound files, mended: a recorder that streams, or that was killed, leaves them unknown or wrong.

Takes the bytes of a file from `audio`; gives bytes of which a decoder reads all that is there.
"""

from __future__ import annotations

import struct

from duovox.sound.mpeg import with_all_frames

_TAGS = (b"TAG", b"ID3", b"APETAGEX")
_FLAC_TOTAL = slice(18, 26)  # of the file: sample rate, channels and bits (28 bits), then the number of frames (36 bits)


def mended(content: bytes) -> bytes:
    """The same file with a header that lets a decoder read to its end."""
    if content.startswith(b"RIFF") and content[8:12] == b"WAVE":
        return _mended_wav(content)
    if _is_flac(content):
        total = int.from_bytes(content[_FLAC_TOTAL], "big") >> 36 << 36  # 0 frames: unknown
        return content[: _FLAC_TOTAL.start] + total.to_bytes(8, "big") + content[_FLAC_TOTAL.stop :]
    return with_all_frames(content) if content.startswith((b"ID3", b"\xff")) else content


def claimed_frames(content: bytes) -> int:
    """How many frames a FLAC file says that it has; 0 where it does not say, or is no FLAC file."""
    return int.from_bytes(content[_FLAC_TOTAL], "big") & (2**36 - 1) if _is_flac(content) else 0


def _is_flac(content: bytes) -> bool:
    return content.startswith(b"fLaC") and len(content) >= _FLAC_TOTAL.stop and content[4] & 0x7F == 0


def _mended_wav(content: bytes) -> bytes:
    """A WAV file whose samples run on to the end of the file, unless what follows them is something else."""
    place = _data_chunk(content)
    if place is None:
        return content
    start = place + 8
    size = _size_at(content, place)
    rest = len(content) - start
    if size == rest or (size < rest and _is_tail(content[start + size + (size & 1) :] if size else content[start:])):
        return content
    riff, data = struct.pack("<I", min(len(content) - 8, 2**32 - 1)), struct.pack("<I", min(rest, 2**32 - 1))
    return content[:4] + riff + content[8 : place + 4] + data + content[start:]


def _data_chunk(content: bytes) -> int | None:
    """Where the chunk with the samples starts."""
    place = 12
    while place + 8 <= len(content):
        if content[place : place + 4] == b"data":
            return place
        size = _size_at(content, place)
        place += 8 + size + (size & 1)
    return None


def _is_tail(rest: bytes) -> bool:
    """Whether what follows the samples is no sound: further chunks up to the end of the file, or tags of a player."""
    if rest.startswith(_TAGS) or len(rest) < 2:
        return True
    place = 0
    while place + 8 <= len(rest):
        if not (rest[place : place + 4].isascii() and rest[place : place + 4].decode().isprintable()):
            return False
        size = _size_at(rest, place)
        place += 8 + size + (size & 1)
    return place in (len(rest), len(rest) + 1)


def _size_at(content: bytes, place: int) -> int:
    size: int = struct.unpack_from("<I", content, place + 4)[0]
    return size
