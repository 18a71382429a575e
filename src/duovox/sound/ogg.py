"""Ogg streams with a fixed serial number, so that the same sound gives the same bytes (RFC 3533). Takes and gives bytes."""

from __future__ import annotations


def with_fixed_serial(ogg: bytes) -> bytes:
    """An Ogg stream with serial number 0 in place of a random one."""
    content = bytearray(ogg)
    start = 0
    while start < len(content):
        segments = content[start + 26]
        end = start + 27 + segments + sum(content[start + 27 : start + 27 + segments])
        content[start + 14 : start + 18] = bytes(4)
        content[start + 22 : start + 26] = bytes(4)
        content[start + 22 : start + 26] = checksum(content[start:end]).to_bytes(4, "little")
        start = end
    return bytes(content)


def checksum(page: bytes | bytearray) -> int:
    """CRC-32 of polynomial 0x04c11db7, most significant bit first, starting from 0."""
    found = 0
    for byte in page:
        found = (found << 8) & 0xFFFFFFFF ^ _CRC_TABLE[found >> 24 ^ byte]
    return found


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(32):
        table = [(value << 1) ^ (0x104C11DB7 if value >> 31 else 0) for value in table]
    return table


_CRC_TABLE = _crc_table()
