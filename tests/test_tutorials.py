"""docs/tutorials: every block is run as it stands in the Markdown file, but for the sizes in `TINY`."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tyro
from conftest import tone

from duovox.cli import main
from duovox.data import which_split
from duovox.sound.audio import write_audio

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
WORDS = {"zero": "low", "one": "low", "two": "mid", "three": "mid", "four": "high", "five": "high"}

TINY = {
    "duovox data fetch sc09 --out data\n": "",
    "train.py m5": "train.py m5 --updates 2",
    "train.py whisper_tiny": "train.py whisper_tiny --updates 2",
    'recipe="compact"': 'recipe="tiny.toml"',
    "--recipe compact": "--recipe tiny.toml",
    "n=50": "n=1",
    "duovox evaluate clips": "duovox evaluate clips --no-fid",
    "--init sc06 --time-budget 10m": "--init sc06 --recipe words.toml --updates 2",
    "--init sc06 --time-budget 20m": "--init sc06 --recipe words.toml --updates 2",
    "--time-budget 5m": "--recipe words.toml --updates 2",
    "duovox bundle run ": "duovox bundle run --recipe words.toml ",
    "--n 20": "--n 1 --no-fid --steps 2 --gamma 0.3",
}
"""What the test writes in the place of what the tutorials say."""

RECIPE = """
[subnet]
widths = [8, 8, 8, 8]
blocks = 1
embedding = 16
group_size = 4
fusion = "concat"
gradient_taps = "label"
[sample]
steps = 2
gamma = 0.3
[train_classifier]
updates = 4
batch = 4
warmup = 1
[train_subnet]
updates = 2
batch = 4
warmup = 1
"""


WORDS_RECIPE = """
[classifier]
[subnet]
blocks = 2
fusion = "concat"
gradient_taps = "label"
[train_classifier]
batch = 4
warmup = 1
[train_subnet]
batch = 4
warmup = 1
[train_judge]
batch = 4
warmup = 1
"""
"""Networks of the shipped bundle's size, to start from its weights; trained on next to nothing."""


def blocks(name: str) -> list[tuple[str, str]]:
    """(language, text) of a tutorial's code blocks in order; those without a language are pictures."""
    text = (TUTORIALS / name).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, _tiny(block)) for language, block in found]


def _tiny(block: str) -> str:
    for said, instead in TINY.items():
        block = block.replace(said, instead)
    return block


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the examples, a folder of six words (tones of a second) and a tiny recipe of the shipped one's mel."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    names = [f"{number:08x}" for number in range(100)]
    for split, count in (("train", 3), ("validation", 1), ("test", 2)):
        for voice, name in enumerate([name for name in names if which_split(name) == split][:count]):
            for word, pitch in WORDS.items():
                path = tmp_path / "data" / "sc09" / word / f"{name}_nohash_0.wav"
                write_audio(path, tone(pitch, voice + len(split), 16000), 16000, parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "classifiers"))
    return tmp_path


def run(name: str) -> list[list[str]]:
    """Run a tutorial's blocks in order, in this process; the commands they gave."""
    names: dict[str, Any] = {}
    given = []
    for language, block in blocks(name):
        if language == "python":
            exec(compile(block, f"{name}: {block.splitlines()[0]}", "exec"), names)
        else:
            assert language == "bash"
            for words in commands(block):
                call(words)
                given.append(words)
    return given


def commands(block: str) -> list[list[str]]:
    """The calls of duovox and python in a shell block, as bash itself reads it."""
    stand_in = 'duovox() { printf "duovox %s\\n" "${*@Q}"; }; python() { printf "python %s\\n" "${*@Q}"; }; '
    done = subprocess.run(["bash", "-euc", stand_in + "PATH=\n" + block], capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def call(words: list[str]) -> None:
    """Do what a command line says without starting a process."""
    if words[0] == "duovox":
        assert main(words[1:]) == 0, shlex.join(words)
    else:
        assert words[1] == "examples/classifiers/train.py", words
        tyro.cli(importlib.import_module("train").main, args=words[2:])


def test_the_replacements_are_all_needed() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in TUTORIALS.glob("*.md"))
    assert [said for said in TINY if said not in text] == []


@pytest.mark.usefixtures("anything_is_speech")
def test_a_waveform_classifier(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("wave_classifier.md")
    said = capsys.readouterr().out
    assert said.count("| * blocks.0.2 | ReLU | 64 x 496 | BCT |") == 2, "the command's table and Python's"
    assert "'three': " in said and "| real test |" in said
    assert len(list((place / "clips").glob("*/0.wav"))) == 6
    assert (place / "m5_run" / "bundle" / "config.json").is_file() and (place / "again.wav").is_file()


@pytest.mark.usefixtures("anything_is_speech")
def test_a_hugging_face_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    given = run("hugging_face_folder.md")
    said = capsys.readouterr().out
    assert "| * encoder.conv1 | Conv1d | 128 x 100 | BCT |" in said
    proposed = [shlex.split(line) for line in re.findall(r"^  (duovox .*)$", said, re.MULTILINE)]
    assert len(proposed) == 4 + 5
    assert [words for words in proposed if words not in given] == [], "the tutorial goes on as duovox proposes"
    assert (place / "whisper_run/spoken.wav").is_file() and (place / "whisper_tuned/spoken.wav").is_file()


@pytest.mark.usefixtures("anything_is_speech")
def test_your_own_words(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two words by ten speakers, from the shipped weights to a bundle that speaks them and a judge's report."""
    (place / "words.toml").write_text(WORDS_RECIPE, encoding="utf-8")
    for number in range(20, 34):
        for word, pitch, code in (("beijing", "low", "06"), ("close", "high", "17")):
            write_audio(place / "words" / word / f"s{number}-{code}-00.ogg", tone(pitch, number, 16000), 16000, parents=True)
    run("your_own_words.md")
    said = capsys.readouterr()
    assert "speakers: 14 by the pattern" in said.out + said.err
    assert re.search(r"classifier: \d+ tensors taken over from sc06 .*new: head\.3\.bias, head\.3\.weight", said.out + said.err)
    assert re.search(r"subnet: \d+ tensors taken over from sc06 .*new: none", said.out + said.err)
    assert len(list((place / "clips").glob("*/0.wav"))) == 2 and (place / "beijing.wav").is_file() and (place / "scores.md").is_file()


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.md")), ids=lambda path: path.stem)
def test_what_a_tutorial_points_at_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
