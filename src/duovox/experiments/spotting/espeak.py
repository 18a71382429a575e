"""A public rule-based synthesiser to compare with: takes words and seeds, gives clips that espeak-ng spoke, each in a voice of its own.

Accent, timbre, speed and pitch are drawn for each clip. The program is not ours and not needed for anything else.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import GenerationError
from duovox.files import safe_name, write_whole
from duovox.sound.audio import encode_audio, read_audio
from duovox.sound.placing import place

PROGRAM = "espeak-ng"
RATE, SAMPLES = 16000, 16000

ACCENTS = {"en": ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")}
"""Voices by language; a language that is not here has one, of its own name."""

TIMBRES = ("", *(f"+m{n}" for n in range(1, 9)), *(f"+f{n}" for n in range(1, 6)), *(f"+klatt{n}" for n in ("", 2, 3, 4)), "+croak")

SPEEDS, PITCHES = (110, 220), (20, 80)
"""Ranges: words a minute, and a number from 0 to 99; the program's own are 175 and 50."""


@dataclass(frozen=True)
class Manner:
    """How a clip is spoken."""

    voice: str
    speed: int
    pitch: int


def draw_manner(language: str, rng: np.random.Generator) -> Manner:
    """Any accent of the language in any timbre."""
    accents = ACCENTS.get(language, (language,))
    voice = accents[rng.integers(len(accents))] + TIMBRES[rng.integers(len(TIMBRES))]
    return Manner(voice, int(rng.integers(*SPEEDS)), int(rng.integers(*PITCHES)))


def missing_program() -> str:
    """One line where espeak-ng is not installed, empty where it is."""
    return (
        "" if shutil.which(PROGRAM) else f"{PROGRAM} is not installed, so its rows are left out; install it, and the same command adds them"
    )


def version() -> str:
    """What the program calls itself."""
    return _run(["--version"]).split("  ")[0].strip()


def speak(word: str, manner: Manner, name: str) -> NDArray[np.float32]:
    """The word (16000,) at 16 kHz, at a drawn place, digital silence around it filled with faint noise as `data prepare --place` does;
    `name` is the seed of the place. Raises `GenerationError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "word.wav")
        _run(["-v", manner.voice, "-s", str(manner.speed), "-p", str(manner.pitch), "-w", str(path), "--", word])
        return place(read_audio(path, RATE), SAMPLES, name)


def make_clips(folder: Path, words: Iterable[str], languages: Mapping[str, str], seeds: range) -> Iterator[Path]:
    """The files <folder>/<word>/<seed>.wav, word by word, made where they are missing. Raises `GenerationError`, `OutputError`."""
    for word in words:
        for seed in seeds:
            path = folder / safe_name(word) / f"{seed}.wav"
            if not path.is_file():
                rng = np.random.default_rng([seed, *word.encode()])
                wave = speak(word, draw_manner(languages.get(word, "en"), rng), f"{word}/{seed}")
                write_whole(path, encode_audio(wave, RATE, ".wav"), parents=True)
            yield path


def _run(arguments: list[str]) -> str:
    try:
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise GenerationError(f"{PROGRAM} failed ({said.strip().splitlines()[0]}); mend it, or take --no-espeak") from None
    return done.stdout
