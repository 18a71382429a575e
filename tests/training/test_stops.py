"""training/stops.py: signals, a terminal that closes, and the command that is stopped by them."""

from __future__ import annotations

import dataclasses
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from duovox.config import Recipe, write_recipe
from duovox.training.checkpoint import read_header
from duovox.training.stops import SIGNALS, stop_requests


def as_from_a_terminal() -> None:
    """Nothing is ignored, as it is in what a shell runs in the background."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_are_noted_inside_and_handled_as_before_outside(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_requests() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under `nohup`: the terminal may go, the training stays."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_requests() as stop_requested:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_requested()


@pytest.fixture
def command(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> list[str]:
    """A training of a million updates without a checkpoint but that at its end, to be run in `tmp_path`."""
    settings = dataclasses.replace(tiny_recipe.train_classifier, updates=10**6, checkpoint_every=10**6)
    (tmp_path / "tiny.toml").write_text(write_recipe(dataclasses.replace(tiny_recipe, train_classifier=settings)))
    words = ["train", "classifier", "--data", str(tiny_features), "--out", "runs", "--recipe", "tiny.toml", "--device", "cpu"]
    return [sys.executable, "-m", "duovox", *words]


def wait_for_ten_steps(process: subprocess.Popen[str], run: Path) -> None:
    deadline = time.monotonic() + 240
    while not ((run / "log.jsonl").exists() and '"step": 10,' in (run / "log.jsonl").read_text()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (run / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_command_cleanly(number: int, command: list[str], tmp_path: Path) -> None:
    run, streams = tmp_path / "runs" / "classifier", {"stdout": PIPE, "stderr": PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, preexec_fn=as_from_a_terminal, **streams)  # type: ignore[call-overload]
    wait_for_ten_steps(process, run)
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    step = int(output.split("at step ")[1].split()[0])
    assert step >= 10 and "--resume" in output
    assert read_header(run / "checkpoint.safetensors")["step"] == step


def test_a_terminal_that_closes_stops_a_training_as_cleanly(command: list[str], tmp_path: Path) -> None:
    """Nothing can be written to it any more, least of all the bar."""
    (ours, theirs), run = pty.openpty(), tmp_path / "runs" / "classifier"
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, preexec_fn=as_from_a_terminal, **streams)  # type: ignore[call-overload]
    os.close(theirs)
    wait_for_ten_steps(process, run)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # as the kernel does to those whose terminal it is
    process.wait(240)
    assert read_header(run / "checkpoint.safetensors")["step"] >= 10
    assert (run / "weights.safetensors").exists()
