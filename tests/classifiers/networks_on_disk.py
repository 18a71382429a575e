"""A network and its files of every kind, for the tests of the loaders."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duovox.config import ExternalConfig, WaveInput

PROBE = torch.randn(3, 1, 8, 6, generator=torch.Generator().manual_seed(0))

CODE = """
import torch
from torch import nn

def build(width=4, labels=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, labels))

def number():
    return 7

def broken():
    raise RuntimeError("no such file\\nsecond line")

def tied():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network

constant = 3
"""


class Net(nn.Module):
    """With batch norm and dropout, which eval mode must hold still, and layers inside layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        nn.init.uniform_(self.body[1].running_mean)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x).mean((2, 3))))


class Trap:
    """Opening a pickle of it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


def save_program(network: nn.Module, path: Path, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(network, (PROBE,), dynamic_shapes=shapes, strict=False), path)
    return path


def external(**settings: Any) -> ExternalConfig:
    return ExternalConfig(wave_input=WaveInput(), labels=("yes", "no", "stop"), **settings)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_pickle(path: Path, how: str) -> Path:
    """A pickle that leaves a mark beside it when it is opened."""
    trap = {"weights": Trap(path.with_name("mark"))}
    if how == "bare":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=how == "zip")
    return path


def save_script(how: str, path: Path) -> Path:
    """`Net` as a TorchScript file, by "script" or by "trace"."""
    network = Net().eval()
    program = torch.jit.script(network) if how == "script" else torch.jit.trace(network, PROBE)
    program.save(str(path))
    return path


def go_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make it the current folder, with a module `nets_for_loading` in it that is not imported yet, and two that fail."""
    (folder / "nets_for_loading.py").write_text(CODE)
    (folder / "nets_that_fail.py").write_text("import missing_package_of_theirs\n")
    (folder / "nets_that_leave.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "nets_for_loading", raising=False)
    return folder
