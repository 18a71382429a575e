"""commands/foreign.py: `duovox taps` and `duovox repurpose`, whose printed commands work as they stand, down to a spoken word."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duovox.bundle import Bundle, write_bundle
from duovox.cli import main
from duovox.config import Recipe, write_recipe

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, labels):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, labels)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

class OnWaves(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv1d(1, 8, 64, 128), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).relu().mean(2))

class Pair(Net):
    def forward(self, x):
        return super().forward(x), self.body(x).mean((2, 3))[:, :3]

class Dropping(Net):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.3))

def build(width=4, labels=3):
    return Net(width, labels)

def on_waves():
    return OnWaves()

def pair():
    return Pair(4, 3)

def dropping():
    return Dropping(4, 3)
"""
TAKES = "[mel_input]\nn_mels = 16\nframes = 16\n"
WORDS = "--labels", "low, high,mid"


@pytest.fixture
def here(tmp_path: Path, tiny_recipe: Recipe, tiny_features: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose name has a space: a module `my_nets`, a tiny recipe, features, and what a mel of 16 rows is."""
    folder = tmp_path / "my work"
    folder.mkdir()
    (folder / "my_nets.py").write_text(CODE)
    (folder / "takes.toml").write_text(TAKES)
    recipe = dataclasses.replace(tiny_recipe, train_subnet=dataclasses.replace(tiny_recipe.train_subnet, updates=2))
    (folder / "tiny.toml").write_bytes(write_recipe(recipe).encode())
    shutil.copytree(tiny_features, folder / "my features")
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    yield folder
    sys.modules.pop("my_nets", None)


def common(source: str = "my_nets:build") -> list[str]:
    return [source, "--takes", "takes.toml", "--recipe", "tiny.toml"]


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The commands that were printed."""
    return [shlex.split(line) for line in re.findall(r"^  (duovox .*)$", capsys.readouterr().out, re.MULTILINE)]


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.usefixtures("anything_is_speech")
def test_every_printed_command_works_as_it_stands(here: Path, capsys: pytest.CaptureFixture[str], conditioned: bool) -> None:
    out = str(here / "its run")
    given = ["repurpose", *common(), *WORDS, "--data", "my features", "--out", out, *["--conditioned"] * conditioned]
    assert main(given) == 0
    text = capsys.readouterr().out
    assert re.search(r"^subnet: about \S+ s a step \(\w+, batch 4\), \d+ s for 2 steps$", text, re.MULTILINE)
    lines = [shlex.split(line) for line in re.findall(r"^  (duovox .*)$", text, re.MULTILINE)]
    assert [words[1] for words in lines] == [*["train"] * (1 + conditioned), "bundle", "calibrate", "generate"]
    for words in lines:
        assert main(words[1:]) == 0, shlex.join(words)
    assert (here / "its run" / "spoken.wav").is_file()


def test_temperatures_are_not_proposed_where_there_is_nothing_to_fit_them_on(
    here: Path, tiny_words: Path, tiny_recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    from duovox.data import prepare, which_split

    words = Path(shutil.copytree(tiny_words, here / "words"))
    for path in words.rglob("*.wav"):
        if which_split(path.stem) == "validation":
            path.unlink()
    prepare(words, here / "unvalidated", tiny_recipe.mel, progress=False)
    assert main(["repurpose", *common(), *WORDS, "--data", "unvalidated", "--out", "run"]) == 0
    assert [words[1] for words in printed(capsys)] == ["train", "bundle", "generate"]


def test_a_vocoder_can_be_named_for_another_mel(here: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """As the refusal says; and the bundle is made with it."""
    write_bundle(tiny_bundle, here / "theirs")
    (here / "wave.toml").write_text('[wave_input]\nsamples = 3840\nlayout = "B1S"\n')
    wanted = ["my_nets:on_waves", "--takes", "wave.toml", "--recipe", "tiny.toml"]
    assert main(["taps", *wanted]) == 1
    assert "give one with --vocoder" in capsys.readouterr().err
    assert main(["taps", *wanted, "--vocoder", "theirs"]) == 0
    assert "| * body | Conv1d |" in capsys.readouterr().out
    assert main(["repurpose", *wanted, *WORDS, "--data", "my features", "--out", "run", "--vocoder", "theirs"]) == 0
    (bundling,) = [words for words in printed(capsys) if words[1] == "bundle"]
    assert bundling[-2:] == ["--vocoder", "theirs"]


def test_a_bundle_without_a_vocoder_is_refused(here: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(dataclasses.replace(tiny_bundle, vocoder=None), here / "mute")
    assert main(["taps", *common(), "--vocoder", "mute"]) == 1
    assert "the bundle mute has no neural vocoder" in capsys.readouterr().err


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "=..." not in said.err
    return said.err


def test_errors_speak_of_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not of Python's arguments."""
    given = ["--data", "my features", "--out", "run"]
    assert "in the order of the outputs: --labels" in refusal(capsys, "repurpose", *common(), *given)
    assert "name its 3 labels in the order of its outputs: --labels" in refusal(capsys, "repurpose", *common(), *given, "--labels", "a,b")
    assert "say what the classifier takes: --takes" in refusal(capsys, "repurpose", "my_nets:build", *given, *WORDS)
    assert "say what the classifier takes: --takes" in refusal(capsys, "taps", "my_nets:build")
    assert "say which holds the logits: --output" in refusal(capsys, "taps", *common("my_nets:pair"))
    assert "`duovox taps --all` lists all" in refusal(capsys, "repurpose", *common(), *given, *WORDS, "--taps", "xyzzy")
    assert not (here / "run").exists()


@pytest.mark.parametrize("command", ["taps", "repurpose"])
def test_what_is_no_function_of_one_clip_is_refused_before_anything_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    rest = ["--data", "my features", "--out", "run", *WORDS] if command == "repurpose" else []
    assert "depends on chance" in refusal(capsys, command, *common("my_nets:dropping"), *rest)
    assert not (here / "run").exists()


def test_pickled_weights_are_not_answered_with_what_was_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({}, here / "net.pt")
    said = refusal(capsys, "taps", *common(), "--weights", "net.pt")
    assert "net.safetensors" in said and "package.module" not in said


def test_what_was_done_to_the_weights_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    sys.path.insert(0, str(here))
    try:
        state = importlib.import_module("my_nets").build(6, 3).state_dict()
    finally:
        sys.path.remove(str(here))
    save_file({f"module.{name}": value.half() for name, value in state.items()}, here / "w.safetensors")
    given = ["--weights", "w.safetensors", "--arguments", '{"width": 6}']
    said = ["note: the names of its weights are read without 'module.'", "note: its weights are float16; they are converted to float32"]
    assert main(["taps", *common(), *given]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == said
    assert main(["repurpose", *common(), *given, *WORDS, "--data", "my features", "--out", "run"]) == 0
    assert "\n".join(said) in capsys.readouterr().out


def test_layers_are_listed_and_those_that_cannot_be_tapped_on_demand(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["taps", *common()]) == 0
    short = capsys.readouterr().out
    assert main(["taps", *common(), "--all"]) == 0
    assert "| * body.0 | Conv2d |" in short and "head" not in short and "| - head | Linear |" in capsys.readouterr().out
