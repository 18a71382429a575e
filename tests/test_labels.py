"""labels.py: what people type for a word, and what they are told where a voice does not have it."""

from __future__ import annotations

import pytest

from duovox.contracts import LabelError
from duovox.labels import DIGITS, counting, resolve, shown

ENGLISH, GERMAN = tuple(words[0] for words in DIGITS["en"]), tuple(words[-1] for words in DIGITS["de"])
WORDS = (*ENGLISH, *(word for word in GERMAN if word not in ENGLISH), "Straße", "f\u00fcr", "Gru\u0308n", "ä ö ü")
LANGUAGES = dict.fromkeys(ENGLISH, "en") | dict.fromkeys(GERMAN, "de")


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ("three", "three"),
        ("Three", "three"),
        (" THREE ", "three"),
        ("7", "seven"),
        ("\u0667", "seven"),
        ("\uff17", "seven"),
        ("fu\u0308r", "f\u00fcr"),
        ("STRASSE", "Straße"),
        ("Fuenf", "fuenf"),
        ("fuer", "f\u00fcr"),
        ("FUER", "f\u00fcr"),
        ("f\u00fcnf", "fuenf"),
        ("strasse", "Straße"),
        ("gruen", "Gru\u0308n"),
        ("Ae Oe Ue", "ä ö ü"),
    ],
)
def test_the_label_that_is_meant(asked: str, label: str) -> None:
    assert resolve(asked, WORDS) == label


def test_figures_are_english_where_there_is_the_word_and_german_else() -> None:
    assert [resolve(str(figure), WORDS) for figure in range(10)] == list(ENGLISH)
    assert [resolve(str(figure), GERMAN) for figure in range(10)] == list(GERMAN)
    assert resolve("5", ("f\u00fcnf", "vier")) == "f\u00fcnf" and resolve("2", ("drei", "zwo")) == "zwo"
    assert resolve("7", ("7", "seven")) == "7", "a label is itself first"


def test_words_of_figures_are_shown_as_one_counts_each_language_in_its_places() -> None:
    assert counting(["acht", "down", "Three", "drei", "one", "fuenf", "go", "zwo"]) == [
        "zwo",
        "down",
        "one",
        "drei",
        "Three",
        "fuenf",
        "go",
        "acht",
    ]
    assert counting(["b", "a"]) == ["b", "a"] and counting(ENGLISH) == list(ENGLISH) and counting([]) == []


@pytest.mark.parametrize("asked", ["", " ", "77", "six", "-1", "7.0", "²3"])
def test_what_no_label_is_meant_by(asked: str) -> None:
    with pytest.raises(LabelError, match=r"unknown label .*this model speaks: no, yes") as caught:
        resolve(asked, ("no", "yes"))
    assert "\n" not in str(caught.value)


def test_capitals_that_leave_several_are_not_guessed() -> None:
    with pytest.raises(LabelError, match="the nearest: "):
        resolve("NO", ("No", "no"))
    assert resolve("No", ("No", "no")) == "No"


def test_umlauts_that_leave_several_are_not_guessed() -> None:
    with pytest.raises(LabelError, match="unknown label 'GRUESSE'; the nearest: "):
        resolve("GRUESSE", ("gr\u00fc\u00dfe", "gr\u00fcsse"))
    assert resolve("fuenf", ("f\u00fcnf", "fuenf")) == "fuenf" and resolve("5", ("f\u00fcnf",)) == "f\u00fcnf"
    with pytest.raises(LabelError, match="unknown label 'fuenv'; the nearest: f\u00fcnf"):
        resolve("fuenv", ("f\u00fcnf", "vier"))


def test_the_nearest_words_and_the_languages_are_shown() -> None:
    with pytest.raises(LabelError) as caught:
        resolve("sevn", ("seven", "sieben", "null"), {"seven": "en", "sieben": "de", "null": "de"})
    assert str(caught.value) == (
        "unknown label 'sevn'; the nearest: seven (en), sieben (de); this model speaks: seven (en), sieben (de), null (de)"
    )
    assert shown("null", {"null": "de"}) == "null (de)" and shown("null", {}) == "null"
