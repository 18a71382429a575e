"""README.md: what it tells people to type exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main

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
    assert {words[0] for words in commands()} >= {"generate", "classify", "data", "train", "bundle"}


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


def test_the_python_runs(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, with a tiny bundle in the place of the one in the package."""
    config = dataclasses.replace(tiny_bundle.config, labels=("one", "two", "three"))
    voice = Duovox(dataclasses.replace(tiny_bundle, config=config))
    monkeypatch.setattr(Duovox, "from_pretrained", lambda source="sc06": voice)
    monkeypatch.chdir(tmp_path)
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    for block in blocks:
        exec(compile(ast.parse(block), "README.md", "exec"), {})
    assert (tmp_path / "three.wav").is_file()
    assert "'three': " in capsys.readouterr().out


def test_pictures_and_files_it_points_at_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target and target != "docs/images/sheet.png":
            assert (Path(__file__).parents[1] / target).exists(), target
