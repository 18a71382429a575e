"""The bundle in the package: whole, small, and it speaks and hears its six words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import duovox
from duovox import Duovox
from duovox.bundle import FILES
from duovox.cli import main
from duovox.data import SC09
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.sound.audio import read_excerpt

FOLDER = Path(duovox.__file__).parent / "bundles" / "sc06"
WORDS = SC09[:6]

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no bundle sc06 in the package (src/duovox/bundles/sc06)")


@pytest.fixture(scope="module")
def voice() -> Duovox:
    return Duovox.from_pretrained()


def test_it_is_whole_small_and_says_where_it_comes_from(voice: Duovox) -> None:
    assert {path.name for path in FOLDER.iterdir()} <= set(FILES)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 40 * 2**20
    assert voice.labels == WORDS
    assert voice.bundle.model.classifier.unchanged()
    assert {"classifier", "subnet"} <= voice.config.origin.keys()
    assert voice.config.revision != "unknown"


def test_its_card_tells_the_story(voice: Duovox) -> None:
    assert all(word in voice.bundle.card for word in ("zero", "Speech Commands", "classifier"))


def test_it_speaks_its_words(voice: Duovox) -> None:
    """At the bundle's own settings, but for the number of steps. (Six are too few for guidance of strength 3: it overshoots.)"""
    clips = [voice.generate(word, seed=0, steps=8, sampler="heun")[0] for word in WORDS]
    heard = [max(clip.probabilities, key=clip.probabilities.__getitem__) for clip in clips]
    assert sum(one == other for one, other in zip(heard, WORDS, strict=True)) >= 5, heard
    for clip in clips:
        assert clip.wave.shape == (16000,) and np.isfinite(clip.wave).all()
        assert 0.01 < np.abs(clip.wave).max() <= 1


def test_a_clip_is_the_same_in_any_batch(voice: Duovox) -> None:
    """Up to rounding, which the vocoder's pulses amplify: their phase adds up the errors of the pitch."""
    together = voice.generate("three", 4, steps=8, batch=4)
    for seed in (0, 3):
        (alone,) = voice.generate("three", seed=seed, steps=8)
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


def test_it_hears_real_recordings(voice: Duovox, recordings: Path) -> None:
    """Eight of each word, spread over the official test list."""
    names = (recordings / "speech_commands" / "testing_list.txt").read_text().split()
    right = []
    for word in WORDS:
        own = sorted(name for name in names if name.startswith(f"{word}/"))
        for name in own[:: len(own) // 8][:8]:
            (path,) = (recordings / "speech_commands" / word).glob(f"{Path(name).stem}.*")
            heard = voice.classify(path)
            right.append(max(heard, key=heard.__getitem__) == word)
    assert len(right) >= 20
    assert np.mean(right) >= 0.85


def test_a_judge_of_28_words_hears_real_ones(recordings: Path) -> None:
    """Four speakers a word of three corpora, two of them held out; a second each, as `classify` would hear them."""
    judge = Judge.load(packaged_judge(["sieben"]))
    assert len(judge.labels) == 28 and {"zero", "nine", "fuenf", "yes"} <= set(judge.labels)
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
