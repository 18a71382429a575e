"""The number of frames in an MP3 file: what its first frame claims ("Xing" or "Info"), and what is there. Takes and gives bytes."""

from __future__ import annotations

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version: MPEG 1, 2, 2.5
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_HAS_FRAMES = 1  # in the flags behind "Xing"


def with_all_frames(content: bytes) -> bytes:
    """The same MP3 file; one that claims fewer frames than it has claims as many, so that a decoder reads them all."""
    start = _audio_start(content)
    length = _frame_length(content, start)
    tag = start + 4 + _side_bytes(content[start : start + 4]) if length else 0
    has_tag = content[tag : tag + 4] in (b"Xing", b"Info") and len(content) >= tag + 12
    if not (has_tag and content[tag + 7] & _HAS_FRAMES):
        return content
    claimed, there = int.from_bytes(content[tag + 8 : tag + 12], "big"), _count(content, start + length)
    return content if claimed >= there else content[: tag + 8] + there.to_bytes(4, "big") + content[tag + 12 :]


def _audio_start(content: bytes) -> int:
    """Where the first frame lies: behind an ID3 tag, whose size has 7 bits a byte."""
    if not content.startswith(b"ID3") or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _count(content: bytes, place: int) -> int:
    """Whole frames from a place on, one behind the other."""
    frames = 0
    while (length := _frame_length(content, place)) and place + length <= len(content):
        place += length
        frames += 1
    return frames


def _frame_length(content: bytes, place: int) -> int:
    """Bytes of the layer III frame at a place; 0 where there is none."""
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] >> 5 != 7 or head[1] >> 1 & 3 != 1:
        return 0
    version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    hertz = _RATES[version][rate]
    return (144_000 * _KBITS_1[kbits] if version == 3 else 72_000 * _KBITS_2[kbits]) // hertz + (head[2] >> 1 & 1)


def _side_bytes(head: bytes) -> int:
    """Length of the side information between a frame's header and its data: less for one channel, and for MPEG 2."""
    one_channel, mpeg_1 = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    return (17 if one_channel else 32) if mpeg_1 else (9 if one_channel else 17)
