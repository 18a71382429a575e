"""evaluation/recogniser.py: a general recogniser, where it is installed, hears words it knows and names those it does not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from duovox import Duovox
from duovox.contracts import ConfigError, LabelError
from duovox.evaluation.recogniser import Recogniser

WORDS = ("zero", "one", "two", "three", "four", "five")


def test_where_it_is_not_installed_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ConfigError, match=r"^the general recogniser needs pocketsphinx; pip install 'duovox\[recogniser\]'$"):
        Recogniser(WORDS)


def test_words_that_its_dictionary_lacks_are_named() -> None:
    pytest.importorskip("pocketsphinx")
    with pytest.raises(LabelError, match="does not know the words zwölf, xyzzyq; it has an English dictionary"):
        Recogniser(["three", "zwölf", "xyzzyq"])


def test_it_hears_our_words_each_for_itself_and_nothing_in_silence() -> None:
    pytest.importorskip("pocketsphinx")
    voice, recogniser = Duovox.from_pretrained("sc06"), Recogniser([word.upper() for word in WORDS])
    waves = [clip.wave for clip in voice.generate_batch([("three", 7), ("five", 7)], voice.settings(preset="balanced"))]
    heard = [recogniser(wave) for wave in (*waves, waves[0])]
    assert heard == ["THREE", "FIVE", "THREE"], "in the spelling it was given"
    assert recogniser.understood(waves, ("THREE", "ONE")) == 1
    assert recogniser(np.zeros(16000, np.float32)) in ("", *[word.upper() for word in WORDS])
