"""The bundles in the package: whole, small, and each speaks and hears its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duovox import Duovox
from duovox.bundle import FILES
from duovox.cli import main
from duovox.data import SC09
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.shipped import BUNDLES, DEFAULT_BUNDLE
from duovox.sound.audio import read_excerpt

GERMAN = ("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun")
COMMANDS = ("down", "go", "left", "no", "right", "stop", "up", "yes")
ENGLISH_DIGITS = (*SC09[:6], "six", "seven", "eight", "nine")
WORDS = {"sc06": SC09[:6], "words": (*ENGLISH_DIGITS, *GERMAN, *COMMANDS)}
ASKED = {"sc06": SC09[:6], "words": ("three", "nine", "null", "sieben", "left", "yes")}
"""Six words of each to try it with."""

EACH = pytest.mark.parametrize("name", sorted(WORDS))


@pytest.fixture(scope="module")
def voices() -> dict[str, Duovox]:
    return {name: Duovox.from_pretrained(name) for name in WORDS}


def test_where_none_is_named_the_one_of_most_words_speaks() -> None:
    assert DEFAULT_BUNDLE == "words" == max(WORDS, key=lambda name: len(WORDS[name]))
    assert {folder.name for folder in BUNDLES.iterdir()} == set(WORDS)


@EACH
def test_it_is_whole_small_and_says_where_it_comes_from(voices: dict[str, Duovox], name: str) -> None:
    voice = voices[name]
    assert {path.name for path in (BUNDLES / name).iterdir()} <= set(FILES)
    assert sum(path.stat().st_size for path in (BUNDLES / name).iterdir()) < 22 * 2**20
    assert set(voice.labels) == set(WORDS[name]) and len(voice.labels) == len(WORDS[name])
    assert voice.bundle.model.classifier.unchanged()
    assert {"classifier", "subnet"} <= voice.config.origin.keys()
    assert voice.config.revision != "unknown"


def test_every_word_of_two_languages_has_its_own(voices: dict[str, Duovox]) -> None:
    languages = voices["words"].config.languages
    assert {label for label, language in languages.items() if language == "de"} == set(GERMAN)
    assert {label for label, language in languages.items() if language == "en"} == {*ENGLISH_DIGITS, *COMMANDS}


@EACH
def test_its_card_tells_the_story(voices: dict[str, Duovox], name: str) -> None:
    assert all(word in voices[name].bundle.card for word in ("zero", "Speech Commands", "classifier"))


@EACH
def test_it_speaks_its_words(voices: dict[str, Duovox], name: str) -> None:
    """With the bundle's own guidance, and eight steps. (Six are too few for guidance of strength 3: it overshoots.)"""
    voice, asked = voices[name], ASKED[name]
    clips = voice.generate_batch([(word, 0) for word in asked], voice.settings(steps=8, sampler="heun"))
    heard = [max(clip.probabilities, key=clip.probabilities.__getitem__) for clip in clips]
    assert sum(one == other for one, other in zip(heard, asked, strict=True)) >= 5, heard
    for clip in clips:
        assert clip.wave.shape == (16000,) and np.isfinite(clip.wave).all()
        assert 0.01 < np.abs(clip.wave).max() <= 1


@EACH
def test_a_clip_is_the_same_in_any_batch(voices: dict[str, Duovox], name: str) -> None:
    """Up to rounding, which the vocoder's pulses amplify: their phase adds up the errors of the pitch."""
    together = voices[name].generate("three", 4, steps=8, batch=4)
    for seed in (0, 3):
        (alone,) = voices[name].generate("three", seed=seed, steps=8)
        assert np.abs(alone.log_mel - together[seed].log_mel).max() < 1e-4
        difference = alone.wave - together[seed].wave
        assert np.sqrt(np.square(difference).mean()) < 1e-4 and np.abs(difference).max() < 1e-3
    assert np.abs(together[0].log_mel - together[1].log_mel).mean() > 0.1


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["generate", "five", "--steps", "3", "--keep-faulty", "--spectrogram", "--out", str(tmp_path / name)]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert one.keys() == {"five_0.wav", "five_0.json", "five_0.png"}


@EACH
def test_it_hears_real_recordings(voices: dict[str, Duovox], name: str, recordings: Path) -> None:
    """Eight of each digit, spread over the official test list."""
    names = (recordings / "speech_commands" / "testing_list.txt").read_text().split()
    right = []
    for word in SC09[:6]:
        own = sorted(name for name in names if name.startswith(f"{word}/"))
        for file in own[:: len(own) // 8][:8]:
            (path,) = (recordings / "speech_commands" / word).glob(f"{Path(file).stem}.*")
            heard = voices[name].classify(path)
            right.append(max(heard, key=heard.__getitem__) == word)
    assert len(right) >= 20
    assert np.mean(right) >= 0.85


def test_a_judge_of_28_words_hears_real_ones(recordings: Path) -> None:
    """Four speakers a word of three corpora, two of them held out; a second each, as `classify` would hear them."""
    judge = Judge.load(packaged_judge(["sieben"]))
    assert set(judge.labels) == set(WORDS["words"])
    files = [
        file
        for corpus in ("heidelberg_english", "heidelberg_german", "mini_speech_commands")
        for folder in sorted((recordings / corpus).iterdir())
        if folder.is_dir() and folder.name in judge.labels
        for file in sorted(file for file in folder.iterdir() if file.suffix in (".ogg", ".wav", ".flac"))[::60][:4]
    ]
    waves = np.stack([read_excerpt(file, 16000, 16000).wave for file in files])
    heard = judge.score(waves).probabilities.argmax(axis=1)
    right = np.mean([judge.labels[best] == file.parent.name for best, file in zip(heard, files, strict=True)])
    assert len(files) > 90 and right > 0.9, right
