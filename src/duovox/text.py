"""Text that users give and read: files with byte order marks, one spelling of a name, control characters escaped. Imports nothing of
duovox.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that break a line, steer a terminal or cannot be encoded."""
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what follows, so that a name reads as another."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def read_text(path: Path) -> str:
    """A text file of a user's: UTF-8, with or without a byte order mark, or UTF-16 with one. Raises `OSError`, `UnicodeDecodeError`."""
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding).replace("\r\n", "\n")


def same_spelling(name: str) -> str:
    """A name in the one Unicode form (NFC) in which names are compared: some systems give "ü" as one character, others as two."""
    return unicodedata.normalize("NFC", name)


def printable(text: str) -> str:
    """The text on one line, as a terminal may show it: control characters, line ends and turns of direction are escaped."""
    return "".join(_escape(c) if unicodedata.category(c) in _UNSEEN or c in _DIRECTIONS else c for c in text)


def label_fault(label: str) -> str:
    """Why a text cannot be a label, in words that follow it; empty where it can."""
    if not label.strip():
        return "is empty"
    if label in (".", ".."):
        return "is no name"
    unseen = next((c for c in label if unicodedata.category(c) in _UNSEEN), None)
    return f"holds the character {_escape(unseen)}" if unseen else ""


def language_fault(code: str) -> str:
    """Why a text cannot be the code of a language, in words that follow it; empty where it can (`en`, `de`, `zh-Hant`: BCP 47)."""
    if not code.strip():
        return "is empty; write a code such as en, or leave it out"
    return "" if _LANGUAGE.fullmatch(code) else "is no code of a language; write one such as en or zh-Hant"


def named(items: Collection[str], most: int = 3) -> str:
    """The first few of many names on one line, and that there are more."""
    shown = ", ".join(printable(item) for item in list(items)[:most])
    return f"{shown}, ..." if len(items) > most else shown


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
