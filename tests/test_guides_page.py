"""docs/guides.md: every command and every line of Python in it is run as it stands, on tiny networks in the place of those it names."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tone
from safetensors.torch import save_file

from duovox import Duovox, steering
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import GuideStrength
from duovox.sound.audio import write_audio

PAGE = (Path(__file__).parents[1] / "docs" / "guides.md").read_text(encoding="utf-8")
OTHERS = re.compile(r"^## Networks of others, as recipes\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
"""The section whose commands want packages of others: test_examples_guides.py and classifiers/test_onnx_graphs.py run them."""

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", OTHERS.sub("", PAGE), re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line.partition("#")[0])[1:] for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]

NETS = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv1d(1, 8, 64, 128), nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(self.body(x[:, None]).relu().mean(2))

def pitch():
    return Mean(3)

def speakers():
    return Mean(16)
"""


@pytest.fixture
def here(tmp_path: Path, tiny_bundle: Bundle, tiny_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder with all that the page names; the shipped voice speaks in few steps."""
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_nets

    save_file(my_nets.pitch().state_dict(), tmp_path / "pitch.safetensors")
    (tmp_path / "run").symlink_to(tiny_runs)
    for place, label in (("ann.wav", "low"), ("bob/1.wav", "mid"), ("others/1.wav", "high"), ("others/2.wav", "mid")):
        write_audio(tmp_path / place, np.tile(tone(label, 3), 4), 16000, parents=True)
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.mark.usefixtures("anything_is_speech")
def test_the_commands_and_the_python_work_as_they_stand(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [words[0] for words in COMMANDS] == [*["generate"] * 6, "guide", "generate", "guide", "guide", "generate", "say", "say", "guide"]
    for words in COMMANDS:
        quick = ["--steps", "3"] if words[0] in ("generate", "say") else []
        assert main([*words, *quick]) == 0, (words, capsys.readouterr().err)
    for name in ("g", "quiet", "same", "three", "between", "both", "high", "like_ann", "said", "by_one"):
        assert (here / f"{name}.wav").is_file()
    steering_block, framed_block = [block for kind, block in BLOCKS if kind == "python"]
    scope: dict[str, Any] = {}
    exec(steering_block.replace("n=2", "n=2, steps=3"), scope)
    assert [guide.name for guide in scope["clips"][0].guides] == ["pitch", "brighter", "own"]
    exec(framed_block, scope)
    network, waves = torch.nn.Linear(1024, 3), torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    answers = scope["Framed"](network)(waves)
    assert answers.shape == (2, 47, 3)
    torch.testing.assert_close(answers[1, 5], network(waves[1, 1600:2624]), rtol=1e-4, atol=1e-5)


def test_the_defaults_on_the_page_are_those_of_the_code() -> None:
    said = dict(re.findall(r"^\| `--(\w+)` \| ([^|;]+?)(?:;[^|]*)? \|", PAGE, re.MULTILINE))
    own = dataclasses.asdict(GuideStrength())
    assert said["interval"] == f"{own['low']:g} {own['high']:g}"
    assert [said[name] for name in ("gamma", "cap", "schedule", "at")] == [
        f"{own['gamma']:g}",
        f"{own['cap']:g}",
        own["schedule"],
        own["at"],
    ]
    assert steering.MAX_GUIDES == 16 and "as many as 16" in PAGE


def test_the_public_names_on_the_page_exist() -> None:
    import duovox

    for name in re.findall(r"`duovox\.(\w+)\(", PAGE):
        assert hasattr(duovox, name)
    for name in re.findall(r"`voice\.(\w+)\(", PAGE):
        assert hasattr(Duovox, name)
