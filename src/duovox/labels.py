"""What people call the words of a voice: takes what was asked for, gives the label that is meant; and labels with their languages, to show.

Every door asks through `Duovox.resolve_label`.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from duovox.contracts import LabelError
from duovox.text import named, printable, same_spelling

DIGITS: dict[str, tuple[tuple[str, ...], ...]] = {
    "en": tuple((word,) for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]),
    "de": (("null",), ("eins",), ("zwei", "zwo"), ("drei",), ("vier",), ("fünf", "fuenf"), ("sechs",), ("sieben",), ("acht",), ("neun",)),
}
"""The words of the figures 0 to 9 in the languages that are asked in turn, each in its spellings."""

_WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})  # case folding has made ss of ß


def resolve(asked: str, labels: Sequence[str], languages: Mapping[str, str] | None = None) -> str:
    """The label that is meant: itself, in another Unicode form or case, a figure whose word it is (`7`: seven, else sieben), or its umlauts
    written out (`fuenf`: fünf).

    Raises `LabelError`, with the nearest labels, where none is meant or capitals leave several.
    """
    if asked in labels:
        return asked
    plain = same_spelling(asked).strip()
    word = _alike(plain, labels, same_spelling) or _alike(plain, labels, _key) or _word_of_figure(plain, labels)
    word = word or _alike(plain, labels, _written_out)
    if word is None:
        raise LabelError(_unknown(asked, labels, languages or {}))
    return word


def _alike(asked: str, labels: Sequence[str], spelling: Callable[[str], str]) -> str | None:
    """The one label that has the same spelling; None where there is none, or several."""
    found = [label for label in labels if spelling(label) == spelling(asked)]
    return found[0] if len(found) == 1 else None


def shown(label: str, languages: Mapping[str, str]) -> str:
    """A label with its language, as `null (de)`; without one where it has none."""
    return f"{label} ({languages[label]})" if label in languages else label


def counting(labels: Sequence[str]) -> list[str]:
    """The labels to show, the words of figures of each language in the order of counting, in the places that they have; others stay."""
    shown = list(labels)
    for words in DIGITS.values():
        figures = {_key(word): figure for figure, spellings in enumerate(words) for word in spellings}
        places = [place for place, label in enumerate(shown) if _key(label) in figures]
        counted = sorted((shown[place] for place in places), key=lambda label: figures[_key(label)])
        for place, label in zip(places, counted, strict=True):
            shown[place] = label
    return shown


def _key(name: str) -> str:
    return same_spelling(name).casefold()


def _written_out(name: str) -> str:
    """A name in small letters without umlauts, as keyboards without them have it: ae, oe, ue, ss."""
    return _key(name).translate(_WRITTEN_OUT)


def _word_of_figure(asked: str, labels: Sequence[str]) -> str | None:
    """The first label that is a word of the figure asked for, by the order of `DIGITS`."""
    figure = unicodedata.digit(asked, None) if len(asked) == 1 else None
    if figure is None:
        return None
    by_key = {_key(label): label for label in labels}
    return next((by_key[word] for words in DIGITS.values() for word in words[figure] if word in by_key), None)


def _unknown(asked: str, labels: Sequence[str], languages: Mapping[str, str]) -> str:
    by_key = {_written_out(label): label for label in labels}
    near = [by_key[key] for key in difflib.get_close_matches(_written_out(asked), by_key, 3, cutoff=0.5)]
    hint = f"; the nearest: {named([shown(label, languages) for label in near])}" if near else ""
    return f"unknown label {printable(repr(asked))}{hint}; this model speaks: {', '.join(shown(label, languages) for label in labels)}"
