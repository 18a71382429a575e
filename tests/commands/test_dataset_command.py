"""commands/dataset.py: from the command line, and what its help loads."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duovox.cli import main
from duovox.commands import dataset as command
from duovox.dataset.shards import Maker
from duovox.voice import Duovox


def test_from_the_command_line(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset", "--words", "low", "--per-word", "2", "--out", str(tmp_path / "set"), "--bundle", str(bundle_folder)]
    assert main([*words, "--dry-run"]) == 0 and not (tmp_path / "set").exists()
    said = capsys.readouterr().out
    assert "2 clips of 1 words, seeds 0 to 1; 0.000133 h of sound, about" in said and "0 clips are there, 2 to make" in said
    assert main([*words, "--keep-faulty", "--steps", "2", "--workers", "1"]) == 0
    assert "2 clips of 1 words, all of them in manifest." in capsys.readouterr().out
    assert main([*words, "--keep-faulty", "--steps", "3"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_word_of_which_no_clip_was_kept_is_an_error(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = Duovox.generate_batch

    def silent(self: Duovox, *given: Any, **others: Any) -> Any:
        return [replace(clip, fault="it is silent" * (clip.label == "low")) for clip in generate(self, *given, **others)]

    monkeypatch.setattr(Duovox, "generate_batch", silent)
    out, words = tmp_path / "set", ["--words", "low", "high", "--per-word", "2", "--tries", "2", "--bundle", str(bundle_folder)]

    def run(job: Any, shards: Any, advance: Any) -> None:
        maker = Maker(job)
        for shard in shards:
            maker.make(shard, advance)

    monkeypatch.setattr(command, "_engine", lambda options: nullcontext(run))
    assert main(["dataset", *words, "--out", str(out), "--manifest", "jsonl"]) == 1
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0].startswith("note: low: 0 of 2 after 4 tries")
    assert (
        lines[1] == "duovox: no clip of low was kept (why, says the manifest); take another --preset or a lower --threshold in a new folder"
    )
    assert sum(json.loads(line)["kept"] for line in (out / "manifest.jsonl").read_text().splitlines()) == 2


def test_processes_of_torchrun_that_nobody_asked_for_are_refused(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["dataset", "--per-word", "2", "--out", str(tmp_path / "set"), "--bundle", str(bundle_folder)]) == 1
    assert "torchrun started 2 processes; give --engine torchrun" in capsys.readouterr().err


def test_the_help_loads_neither_torch_nor_ray() -> None:
    import subprocess

    code = "import sys, duovox.commands.dataset; print(*{'torch', 'ray', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
