"""README.md: what it tells people to type exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import MelConfig, Recipe, SampleConfig
from duovox.repurposing import building

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, ...]]:
    """Every `duovox ...` in shell blocks and in running text, as its words after the program's name."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    texts = [line for language, block in BLOCKS if language == "bash" for line in block.replace("\\\n", " ").splitlines()]
    texts += [text.replace("\n", " ") for text in re.findall(r"`(duovox [^`]*)`", prose)]
    found = []
    for text in texts:
        for part in re.split(r"&&|;|\|", text.partition("#")[0]):
            program, *words = shlex.split(part) or [""]
            if Path(program).name == "duovox":
                found.append(tuple(words))
    return found


def test_the_readme_shows_commands() -> None:
    assert {words[0] for words in commands()} >= {"generate", "classify", "data", "train", "bundle", "taps", "repurpose", "calibrate"}


@pytest.mark.parametrize("words", sorted(set(commands())), ids=" ".join)
def test_every_command_and_its_options_exist(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = words[: 2 if words[0] == "data" else 1]
    with pytest.raises(SystemExit) as leaving:
        main([*command, "--help"])
    assert not leaving.value.code
    text = capsys.readouterr().out
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", text), f"{word} is no option of {' '.join(command)}"


def test_the_options_of_the_training_comment_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    comments = [line.partition("#")[2] for _, block in BLOCKS for line in block.splitlines() if "duovox train" in line]
    for option in re.findall(r"--[a-z-]+", " ".join(comments)):
        assert option in text


@pytest.fixture
def classifier_and_words(tiny_words: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder `classifier.pt2`, which hears a second at 8 kHz, and `words`; a tiny recipe for it."""
    network = nn.Sequential(nn.Conv1d(1, 4, 80, 40), nn.ReLU(), nn.Conv1d(4, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    network.append(nn.Linear(8, 3))
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(2, 1, 8000),), dynamic_shapes=shapes), tmp_path / "classifier.pt2")
    for tone, word in (("high", "yes"), ("low", "no"), ("mid", "stop")):
        shutil.copytree(tiny_words / tone, tmp_path / "words" / word)
    recipe = dataclasses.replace(tiny_recipe, mel=MelConfig(), sample=SampleConfig(steps=2, gamma=0.3))
    monkeypatch.setattr(building, "read_recipe", lambda name: recipe)


@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")
@pytest.mark.usefixtures("classifier_and_words")
@pytest.mark.usefixtures("anything_is_speech")
def test_the_python_runs(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, with a tiny bundle in the place of the one in the package, and a tiny recipe."""
    config = dataclasses.replace(tiny_bundle.config, labels=("one", "two", "three"))
    voice = Duovox(dataclasses.replace(tiny_bundle, config=config))
    monkeypatch.setattr(Duovox, "from_pretrained", lambda source="sc06": voice)
    monkeypatch.chdir(tmp_path)
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    for block in blocks:
        exec(compile(ast.parse(block), "README.md", "exec"), {})
    assert (tmp_path / "spoken.wav").is_file() and (tmp_path / "stop.wav").is_file()
    assert "'three': " in capsys.readouterr().out


def test_pictures_and_files_it_points_at_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[1] / target).exists(), target
