"""Small folders of words, tones whose contents are known, for the tests of `data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from duovox.config import MelConfig
from duovox.data import which_split
from duovox.sound.audio import write_audio

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech_commands"
MEL = MelConfig()
RATE = MEL.sample_rate


def speakers(split: str, count: int, start: int = 0) -> list[str]:
    """Made-up speaker names that the official rule puts into `split`."""
    names = (f"{number:08x}" for number in range(start, 100000))
    return [name for name in names if which_split(f"{name}_nohash_0") == split][:count]


def tone(number: int, samples: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(samples) / RATE)).astype(np.float32)


def make_words(root: Path, labels: tuple[str, ...] = ("no", "yes"), train: int = 5, held: int = 2, suffix: str = ".wav") -> Path:
    """A folder of words: per label `train` clips of train speakers, `held` each of validation and test speakers."""
    stems = [f"{s}_nohash_0" for s in [*speakers("train", train), *speakers("validation", held), *speakers("test", held)]]
    for number, label in enumerate(labels):
        for index, stem in enumerate(stems):
            write_audio(root / label / f"{stem}{suffix}", tone(10 * number + index, RATE - 1000 * index), RATE, parents=True)
    return root


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
