"""training/run_folder.py: one process a folder, refusals, a damaged log, what a killed run left, a full disk."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from line import SETTINGS, Line, at, contents, log, run, stop

from duovox.config import Recipe
from duovox.contracts import OutputError, TrainingError
from duovox.files import claimed
from duovox.training.run_folder import logged_step, recorded_facts
from duovox.training.start import start_training

# refusals


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path: Path) -> None:
    run(Line(at(5, stop)), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(TrainingError, match=r"already holds a run; add --resume"):
        run(Line(), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_finished_weights_without_a_checkpoint_are_never_overwritten(tmp_path: Path, resume: bool) -> None:
    run(Line(at(5, stop)), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    before = contents(tmp_path)
    with pytest.raises(TrainingError, match=r"weights\.safetensors"):
        run(Line(), tmp_path, resume=resume)
    assert contents(tmp_path) == before


def test_a_resume_with_other_settings_or_data_is_refused(tmp_path: Path) -> None:
    run(Line(at(5, stop)), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(TrainingError, match=r"recipe\.rate = 0\.05, now it is 0\.01"):
        run(Line(), tmp_path, dataclasses.replace(SETTINGS, rate=0.01), resume=True)
    with pytest.raises(TrainingError, match=r"data = 'data', now it is 'other'"):
        run(Line(), tmp_path, data="other", resume=True)
    assert contents(tmp_path) == before


def test_a_real_resume_with_another_recipe_names_the_setting(
    tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path
) -> None:
    other = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, rate=0.125))
    with pytest.raises(TrainingError, match=r"recipe\.train_classifier\.rate = 0\.002, now it is 0\.125"):
        start_training("classifier", other, tiny_features, tiny_runs, resume=True, device="cpu")


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    run(Line(at(5, stop)), tmp_path)
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors is no readable checkpoint"):
        run(Line(), tmp_path, resume=True)


def test_a_full_disk_is_one_error_of_ours(tmp_path: Path) -> None:
    def fill() -> None:
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").mkdir()

    with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl"):
        run(Line(at(3, fill)), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write a training to .*file"):
        run(Line(), tmp_path / "file" / "run")


def test_missing_tensorboard_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'duovox\[tensorboard\]'"):
        run(Line(), tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


# one process


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_another_run_writes_to_is_refused(resume: bool, tmp_path: Path) -> None:
    """Whichever of the two would resume; before anything in it is changed, and before a run that goes on loses its log."""

    def second() -> None:
        before = contents(tmp_path)
        with pytest.raises(OutputError, match=r"another run is writing a training to .*; wait for it or choose another folder"):
            run(Line(), tmp_path, resume=resume, tensorboard=False)
        assert contents(tmp_path) == before

    assert run(Line(at(13, second)), tmp_path).complete
    assert [line["step"] for line in log(tmp_path) if "loss" in line] == [10, 20, 30, 40]


def test_a_killed_run_leaves_its_folder_free(tmp_path: Path) -> None:
    claim = "import os, pathlib, sys; from duovox.files import claimed"
    code = f"{claim}\nwith claimed(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert run(Line(), tmp_path).complete


def test_the_folder_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        run(nan_line(), tmp_path)
    with claimed(tmp_path):
        pass


def nan_line() -> Line:
    trainee = Line()
    trainee.network[0].weight.data.fill_(float("nan"))
    return trainee


# what was left behind

DAMAGED = {
    "half a line": b'{"step": 3, "lo',
    "NUL bytes": b"\0" * 64,
    "no JSON": b"loss went up",
    "no object": b"[3]",
    "no step": b'{"loss": 1.0}',
    "a step in words": b'{"step": "three"}',
    "no UTF-8": b'{"step": 3, "loss": "\xff"}',
    "an empty line": b"",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_lines_of_the_log_do_not_stop_a_resume(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Line(at(12, stop)), tmp_path)
    good = (tmp_path / "log.jsonl").read_bytes().splitlines()
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([good[0], damage, *good[1:], damage]))
    capsys.readouterr()
    assert run(Line(), tmp_path, resume=True).complete
    lines = 1 if not damage else 2  # an empty last line is none
    assert f"log.jsonl: {lines} damaged {'line' if lines == 1 else 'lines'} left out" in capsys.readouterr().out
    kept = (tmp_path / "log.jsonl").read_bytes().splitlines()
    assert kept[: len(good)] == good and all(logged_step(line) for line in kept)


def test_a_log_that_is_gone_does_not_stop_a_resume(tmp_path: Path) -> None:
    run(Line(at(12, stop)), tmp_path)
    (tmp_path / "log.jsonl").unlink()
    assert run(Line(), tmp_path, resume=True).complete
    assert [line["step"] for line in log(tmp_path) if "loss" in line] == [20, 30, 40]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [f".checkpoint.safetensors.{dead.pid}.tmp", f".weights.safetensors.{dead.pid}.tmp", f".log.jsonl.{dead.pid}.partial"]
    left += [f".weights.safetensors.{os.getpid()}.tmp"]  # a container gives every run the same number
    kept = [f".weights.safetensors.{os.getppid()}.tmp", f".notes.txt.{dead.pid}.partial", ".weights.safetensors.mine.tmp"]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"half")
    run(Line(), tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set(kept)


def test_the_facts_of_a_run_are_in_its_checkpoint(tmp_path: Path) -> None:
    assert recorded_facts(tmp_path) == {}
    run(Line(at(5, stop)), tmp_path, facts={"clips": 3})
    assert recorded_facts(tmp_path) == {"part": "line", "recipe": {"rate": 0.05}, "data": "data", "clips": 3}
    assert json.loads((tmp_path / "run.json").read_text()) == recorded_facts(tmp_path)
