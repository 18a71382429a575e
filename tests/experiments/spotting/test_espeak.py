"""espeak.py: clips of the rule-based synthesiser, where it is installed, and one line where it is not."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from duovox.contracts import GenerationError
from duovox.experiments.spotting import espeak
from duovox.sound.audio import read_audio

needed = pytest.mark.skipif(shutil.which(espeak.PROGRAM) is None, reason="espeak-ng is not installed")

FAKE = """#!{python}
import sys, wave
if "bad" in sys.argv:
    sys.exit("Error: no such voice\\nmore")
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 1.51  Data at: somewhere"); sys.exit()
with wave.open(sys.argv[sys.argv.index("-w") + 1], "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
    level = 3000 + len(sys.argv[-1]) * 1000
    file.writeframes(b"".join((level if i // 20 % 2 else -level).to_bytes(2, "little", signed=True) for i in range(4000)))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in its place, which says a square wave of a quarter of a second."""
    import sys

    path = tmp_path / "bin" / espeak.PROGRAM
    path.parent.mkdir()
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(path.parent))


def test_a_manner_is_drawn_of_the_language() -> None:
    drawn = [espeak.draw_manner("en", np.random.default_rng(seed)) for seed in range(200)]
    assert len({manner.voice for manner in drawn}) > 80
    assert all(110 <= manner.speed < 220 and 20 <= manner.pitch < 80 for manner in drawn)
    assert {espeak.draw_manner("de", np.random.default_rng(seed)).voice.split("+")[0] for seed in range(9)} == {"de"}


def test_clips_are_made_once_and_each_is_its_own(fake: None, tmp_path: Path) -> None:
    paths = list(espeak.make_clips(tmp_path / "clips", ["no", "seven"], {}, range(2)))
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        f"clips/{word}/{seed}.wav" for word in ("no", "seven") for seed in (0, 1)
    ]
    waves = [read_audio(path, 16000) for path in paths]
    assert all(wave.shape == (16000,) for wave in waves)
    loud = [int(np.flatnonzero(np.abs(wave) > 0.05)[0]) for wave in waves]
    assert len(set(loud)) == 4, "each stands at a place of its own"
    paths[0].write_bytes(b"kept")
    list(espeak.make_clips(tmp_path / "clips", ["no", "seven"], {}, range(2)))
    assert paths[0].read_bytes() == b"kept"


def test_a_program_that_is_missing_or_fails_is_one_line(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert espeak.missing_program() == "" and espeak.version() == "eSpeak NG text-to-speech: 1.51"
    with pytest.raises(GenerationError, match=r"espeak-ng failed \(Error: no such voice\); mend it, or take --no-espeak"):
        espeak.speak("bad", espeak.Manner("en", 150, 50), "name")
    monkeypatch.setenv("PATH", "")
    assert espeak.missing_program() == "espeak-ng is not installed, so its rows are left out; install it, and the same command adds them"
    with pytest.raises(GenerationError, match=r"espeak-ng failed \(.*No such file"):
        espeak.version()


@needed
def test_the_real_program_speaks_every_accent_and_timbre() -> None:
    manners = [espeak.Manner(accent, 160, 50) for accent in espeak.ACCENTS["en"]]
    manners += [espeak.Manner(f"en-us{timbre}", 160, 50) for timbre in espeak.TIMBRES]
    waves = [espeak.speak("seven", manner, "name") for manner in manners]
    assert all(0.02 < float(np.abs(wave).max()) <= 1 for wave in waves)
    assert len({wave.tobytes() for wave in waves}) >= len(manners) - 2, (
        "an unknown timbre would sound as none; two accents may agree in a word"
    )
