"""mpeg.py: frames counted in files that libsndfile wrote, and claims of fewer mended."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from duovox.sound.audio import decode_sound
from duovox.sound.mpeg import with_all_frames


def mp3(rate: int, channels: int) -> bytes:
    """Three seconds with a Xing or Info tag."""
    file = io.BytesIO()
    wave = 0.5 * np.sin(np.outer(np.arange(3 * rate), np.ones(channels)) / 5)
    soundfile.write(file, wave, rate, format="MP3")
    return file.getvalue()


def tag_of(content: bytes) -> int:
    return max(content.find(b"Xing", 0, 200), content.find(b"Info", 0, 200))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_true_claim_is_left_and_a_small_one_becomes_true(rate: int, channels: int) -> None:
    content = mp3(rate, channels)
    tag = tag_of(content)
    assert tag > 0 and with_all_frames(content) == content
    for claimed in (0, 1, 10):
        lying = content[: tag + 8] + claimed.to_bytes(4, "big") + content[tag + 12 :]
        assert with_all_frames(lying) == content
        assert decode_sound(io.BytesIO(lying)).samples.shape == (3 * rate, channels)


def test_a_tag_before_it_and_one_behind_it_are_no_frames() -> None:
    content = mp3(16000, 1)
    tag = tag_of(content)
    lying = content[: tag + 8] + bytes(4) + content[tag + 12 :]
    before, behind = b"ID3\x04\0\0\0\0\x02\x05" + bytes(2 * 128 + 5), b"TAG" + bytes(125)
    assert with_all_frames(before + lying + behind) == before + content + behind


def test_a_claim_of_more_is_left_and_the_file_is_read_to_its_end() -> None:
    content = mp3(16000, 1)
    tag = tag_of(content)
    lying = content[: tag + 8] + (10**6).to_bytes(4, "big") + content[tag + 12 :]
    assert with_all_frames(lying) == lying
    assert len(decode_sound(io.BytesIO(lying)).samples) >= 48000


def test_what_is_no_mp3_is_left() -> None:
    whole = mp3(16000, 1)
    for end in range(tag_of(whole) + 12):
        assert with_all_frames(whole[:end]) == whole[:end]
    for content in (b"", b"ID3", b"\xff", b"\xff\xfb\x90", b"\xff\xfb\x90\x00" + b"junk" * 200, b"ID3" + bytes(40), b"OggS" + bytes(99)):
        assert with_all_frames(content) == content
