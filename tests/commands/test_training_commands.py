"""commands/training.py: a bundle of what was not trained to its end says so."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from duovox.cli import main
from duovox.config import Recipe, write_recipe
from duovox.training.start import start_training


def bundled(runs: Path, recipe: Recipe, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `duovox bundle` says beside its result."""
    (out.parent / "recipe.toml").write_bytes(write_recipe(recipe).encode())
    assert main(["bundle", str(runs), "--out", str(out), "--recipe", str(out.parent / "recipe.toml")]) == 0
    return capsys.readouterr().err


def test_a_bundle_of_finished_runs_says_nothing(
    tiny_runs: Path, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert bundled(tiny_runs, tiny_recipe, tmp_path / "b", capsys) == ""


def test_a_bundle_of_an_unfinished_run_warns(
    tiny_runs: Path, tiny_features: Path, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path(shutil.copytree(tiny_runs, tmp_path / "runs"))
    shutil.rmtree(runs / "subnet")
    recipe = dataclasses.replace(tiny_recipe, train_subnet=dataclasses.replace(tiny_recipe.train_subnet, updates=7))
    start_training("subnet", recipe, tiny_features, runs, time_budget=0, device="cpu", precision="fp32")
    capsys.readouterr()
    said = bundled(runs, recipe, tmp_path / "b", capsys)
    assert said == "duovox: warning: the subnet was trained for 0 of 7 updates; `duovox train subnet --resume` goes on\n"
    assert (tmp_path / "b" / "config.json").is_file()
