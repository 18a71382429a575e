"""containers.py: which headers are mended and which are left, byte by byte. What a decoder then reads is for test_audio.py."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from duovox.sound.containers import claimed_frames, mended

NOISE = np.random.default_rng(0).integers(-(2**15), 2**15, 500, dtype=np.int16)


def wav(data: int, tail: bytes = b"", chunks: bytes = b"") -> bytes:
    """A WAV file of `NOISE` whose data chunk claims `data` bytes, with chunks before it and a tail behind it."""
    head = b"WAVE" + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + chunks
    body = head + b"data" + struct.pack("<I", data) + NOISE.tobytes() + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read(content: bytes) -> int:
    return len(soundfile.read(io.BytesIO(content), dtype="int16")[0])


@pytest.mark.parametrize("tail", [b"", b"LIST\x04\0\0\0INFO", b"id3 \x03\0\0\0abc\0bext\0\0\0\0", b"TAG" + bytes(125), b"ID3\x04\0"])
def test_a_right_size_is_left_with_whatever_follows(tail: bytes) -> None:
    assert mended(wav(1000, tail)) == wav(1000, tail)


@pytest.mark.parametrize("size", [0, 2, 998, 1002, 2**31, 2**32 - 1])
def test_a_wrong_size_becomes_the_right_one(size: int) -> None:
    assert mended(wav(size)) == wav(1000)


def test_chunks_before_the_samples_are_walked_over() -> None:
    chunks = b"LIST\x05\0\0\0data!\0" + b"fact\x04\0\0\0\0\0\0\0"
    assert mended(wav(0, chunks=chunks)) == wav(1000, chunks=chunks)


def test_what_is_no_wav_or_has_no_samples_is_left() -> None:
    for content in (b"", b"RIFF", b"RIFF\0\0\0\0WAVE", wav(1000)[:30], b"OggS" + bytes(99), b"fLaC"):
        assert mended(content) == content and claimed_frames(content) == 0


def test_flac_forgets_how_long_it_claims_to_be() -> None:
    file = io.BytesIO()
    soundfile.write(file, NOISE, 8000, format="FLAC")
    content = file.getvalue()
    assert claimed_frames(content) == 500 == read(content)
    unknown = mended(content)
    assert claimed_frames(unknown) == 0 and mended(unknown) == unknown
    assert [place for place in range(len(content)) if content[place] != unknown[place]] == [24, 25]
