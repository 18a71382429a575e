"""provenance.py: digests that follow their files, and the machines of a run, each once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from duovox import __version__, provenance
from duovox.provenance import digest_of, git_revision, machine, machines, note_machine, versions

CPU = torch.device("cpu")


def test_a_digest_is_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for number, content in enumerate((b"one", b"two")):
        path.write_bytes(content)
        os.utime(path, ns=(number, number))
        assert digest_of(path) == hashlib.sha256(content).hexdigest() == digest_of(path)


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and found["duovox"] == __version__ and found.keys() == {"duovox", "python", "torch", "numpy"}


def test_the_machine_is_a_class_of_machines() -> None:
    assert "torch" in machine(CPU) and "cores" in machine(CPU)


def test_machines_are_noted_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "machines.json"
    assert machines(path) == []
    for name in ("small", "large", "small"):
        monkeypatch.setattr(provenance, "machine", lambda _, name=name: name)
        note_machine(path, CPU)
    assert machines(path) == ["small", "large"]


def test_the_revision_is_one_word() -> None:
    assert len(git_revision().split()) == 1
