"""training/loop.py: schedule, stops, exact resuming, the log, refusals. A small trainee stands in where the network does not matter."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from duovox.config import Recipe, TrainConfig, write_recipe
from duovox.contracts import OutputError, TrainingError
from duovox.runs import Part
from duovox.training import loop
from duovox.training.classifier import ClassifierTraining
from duovox.training.ema import averaged
from duovox.training.loop import Outcome, learning_rate_factor, stop_requests, train
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining

CPU = torch.device("cpu")
SETTINGS = TrainConfig(updates=40, batch=4, rate=0.05, warmup=5, ema_decay=0.9, validate_every=4, checkpoint_every=10, seed=3)


class Line:
    """A `Trainee` that fits a line with dropout; `before` is called with every step."""

    part = "line"

    def __init__(self, before: Callable[[int], None] = lambda step: None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.3), nn.Linear(5, 1))
        self.average = averaged(self.network, SETTINGS.ema_decay)
        self.modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        self.optimizers = {"adamw": torch.optim.AdamW(self.network.parameters(), lr=SETTINGS.rate)}
        self.before, self.steps, self.rates = before, list[int](), list[float]()

    def update(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.before(step)
        self.steps.append(step)
        self.rates.append(self.optimizers["adamw"].param_groups[0]["lr"])
        x = torch.randn(4, 3, generator=generator)
        loss = (self.network(x)[:, 0] - x.sum(1)).square().mean()
        self.optimizers["adamw"].zero_grad()
        loss.backward()
        self.optimizers["adamw"].step()
        self.average.update_parameters(self.network)
        return {"loss": loss.item()}

    def validate(self) -> dict[str, float]:
        return {"weight": self.average.module[0].weight.sum().item()}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())


def run(trainee: Line, out: Path, settings: TrainConfig = SETTINGS, data: str = "data", **options: bool | float) -> Outcome:
    return train(trainee, out, settings, {"rate": settings.rate}, data, CPU, **options)  # type: ignore[arg-type]


def at(wanted: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Do something before one step."""
    return lambda step: action() if step == wanted else None


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise RuntimeError("power failure")


def tensors(folder: Path) -> dict[str, Tensor]:
    """Everything that a run's checkpoint and weights hold."""
    files = ("checkpoint.safetensors", "weights.safetensors")
    return {f"{file}/{name}": value for file in files for name, value in load_file(folder / file).items()}


def log(folder: Path) -> list[dict[str, float]]:
    """The log without its times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert log(one) == log(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, to hold the others against."""
    out = tmp_path_factory.mktemp("whole")
    assert run(Line(), out) == Outcome(40, True, {"weight": pytest.approx(log(out)[-1]["valid_weight"], abs=1e-6)})
    return out


# the schedule


def test_learning_rate_rises_stays_and_falls() -> None:
    train = TrainConfig(updates=100, warmup=10, cooldown=0.2)
    expected = {0: 0.1, 4: 0.5, 9: 1, 10: 1, 79: 1, 80: 1, 85: (1 + math.sqrt(0.5)) / 2, 90: 0.5, 95: (1 - math.sqrt(0.5)) / 2}
    assert {step: learning_rate_factor(step, train) for step in expected} == pytest.approx(expected)
    assert 0 < learning_rate_factor(99, train) < 0.01


@pytest.mark.parametrize(
    ("warmup", "cooldown", "factors"),
    [(0, 0.0, [1, 1, 1, 1]), (0, 1.0, [1, 0.8535534, 0.5, 0.1464466]), (8, 0.0, [0.125, 0.25, 0.375, 0.5])],
)
def test_learning_rate_at_the_edges_of_the_settings(warmup: int, cooldown: float, factors: list[float]) -> None:
    train = TrainConfig(updates=4, warmup=warmup, cooldown=cooldown)
    assert [learning_rate_factor(step, train) for step in range(4)] == pytest.approx(factors)


def test_the_optimiser_gets_the_schedule_also_after_resuming(tmp_path: Path) -> None:
    first, second = Line(at(7, stop)), Line()
    run(first, tmp_path)
    run(second, tmp_path, resume=True)
    assert first.rates + second.rates == pytest.approx([SETTINGS.rate * learning_rate_factor(step, SETTINGS) for step in range(40)])


# resuming


def test_a_run_that_was_stopped_and_resumed_is_the_uninterrupted_run(tmp_path: Path, uninterrupted: Path) -> None:
    assert run(Line(at(12, stop)), tmp_path) == Outcome(13, False, {"weight": pytest.approx(log(tmp_path)[-1]["valid_weight"], abs=1e-6)})
    assert run(Line(at(29, stop)), tmp_path, resume=True).step == 30
    last = Line()
    assert run(last, tmp_path, resume=True).complete
    assert last.steps == list(range(30, 40))
    assert_same_run(tmp_path, uninterrupted)


def test_a_run_that_crashed_is_the_uninterrupted_run_once_resumed(tmp_path: Path, uninterrupted: Path) -> None:
    with pytest.raises(RuntimeError, match="power failure"):
        run(Line(at(29, crash)), tmp_path)
    assert log(tmp_path)[-1]["step"] == 28  # eight steps after the last checkpoint
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 29, "lo')
    last = Line()
    run(last, tmp_path, resume=True)
    assert last.steps == list(range(20, 40))
    assert_same_run(tmp_path, uninterrupted)


def test_a_crash_before_the_first_checkpoint_needs_no_resume(tmp_path: Path, uninterrupted: Path) -> None:
    with pytest.raises(RuntimeError):
        run(Line(at(9, crash)), tmp_path)
    run(Line(), tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_resuming_a_complete_run_changes_nothing(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, updates=10)  # the last validation is not at a multiple of validate_every
    outcome = run(Line(), tmp_path, settings)
    assert [line["step"] for line in log(tmp_path) if "valid_weight" in line] == [4, 8, 10]
    assert outcome.figures == {"weight": pytest.approx(log(tmp_path)[-1]["valid_weight"], abs=1e-6)}
    before, lines = tensors(tmp_path), log(tmp_path)
    again = Line()
    assert run(again, tmp_path, settings, resume=True).complete
    assert again.steps == []
    assert log(tmp_path) == lines
    assert all(torch.equal(value, before[name]) for name, value in tensors(tmp_path).items())


def stop_at(step: int, trainee: type, monkeypatch: pytest.MonkeyPatch) -> None:
    update = trainee.update

    def stopping(self: object, number: int, generator: torch.Generator) -> dict[str, float]:
        if number == step:
            stop()
        return update(self, number, generator)

    monkeypatch.setattr(trainee, "update", stopping)


@pytest.mark.parametrize(("part", "trainee"), [("classifier", ClassifierTraining), ("subnet", SubnetTraining)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_real_parts_resume_bit_for_bit(
    part: Part,
    trainee: type,
    precision: str,
    tiny_recipe: Recipe,
    tiny_features: Path,
    tiny_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With dropout, shifted frames, noise, labels left out and channels-last kernels: all that a run draws or lays out."""
    settings = TrainConfig(updates=14, batch=5, warmup=2, ema_decay=0.5, shift_frames=2, validate_every=6, checkpoint_every=4)
    recipe = dataclasses.replace(
        tiny_recipe,
        classifier=dataclasses.replace(tiny_recipe.classifier, dropout=0.2),
        subnet=dataclasses.replace(tiny_recipe.subnet, dropout=0.2, label_share=0.5),
        train_classifier=settings,
        train_subnet=settings,
    )
    if part == "subnet":
        quick = dataclasses.replace(recipe, train_classifier=settings)
        for out in (tmp_path / "whole", tmp_path / "parts"):
            start_training("classifier", quick, tiny_features, out, device="cpu", precision="fp32", time_budget=0)

    def go(out: str, resume: bool = False) -> Outcome:
        return start_training(part, recipe, tiny_features, tmp_path / out, resume=resume, device="cpu", precision=precision)  # type: ignore[arg-type]

    assert go("whole").complete
    with monkeypatch.context() as patch:
        stop_at(5, trainee, patch)
        assert go("parts").step == 6
    assert go("parts", resume=True).complete
    assert_same_run(tmp_path / "whole" / part, tmp_path / "parts" / part)


# stopping


def test_the_time_budget_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a second of a clock of our own."""
    clock = [1000.0]

    def tick(step: int) -> None:
        clock[0] += 1

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    assert run(Line(tick), tmp_path, time_budget=2.5) == Outcome(3, False, {})
    assert run(Line(tick), tmp_path, time_budget=4, resume=True).step == 7
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0]) == {
        "step": 4,
        "seconds": 4.0,
        "valid_weight": pytest.approx(0, abs=9),
    }
    assert run(Line(tick), tmp_path, time_budget=0, resume=True).step == 7
    assert run(Line(tick), tmp_path, resume=True).step == 40


def test_signals_are_noted_inside_and_handled_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_requested()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_runs_outside_the_main_thread(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(Line(), tmp_path)))
    thread.start()
    thread.join(30)
    assert [outcome.step for outcome in outcomes] == [40]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_cleanly(number: int, tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=10**6))
    (tmp_path / "tiny.toml").write_text(write_recipe(recipe))
    words = ["train", "classifier", "--data", str(tiny_features), "--out", "runs", "--recipe", "tiny.toml", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "duovox", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint, deadline = tmp_path / "runs" / "classifier" / "checkpoint.safetensors", time.monotonic() + 240
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    step = int(output.split("at step ")[1].split()[0])
    assert step > 0 and "--resume" in output
    assert loop.read_header(checkpoint)["step"] == step


# bad numbers


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    run(Line(at(24, stop)), tmp_path)
    before = contents(tmp_path)
    trainee = Line()
    trainee.before = at(31, lambda: trainee.network[0].weight.data.fill_(math.nan))
    with pytest.raises(TrainingError, match=r"line: loss became non-finite at step 31; lower train_line\.rate .*checkpoint\.safetensors"):
        run(trainee, tmp_path, resume=True)
    after = contents(tmp_path)
    assert loop.read_header(tmp_path / "checkpoint.safetensors")["step"] == 30
    assert all(value.isfinite().all() for value in tensors(tmp_path).values())
    assert after.keys() == before.keys()
    assert run(Line(), tmp_path, resume=True).complete


def test_weights_that_are_not_finite_never_reach_the_checkpoint(tmp_path: Path) -> None:
    """A gradient can overflow where the loss is still finite, in the very step before a checkpoint."""
    trainee = Line()
    update = trainee.update

    def broken(step: int, generator: torch.Generator) -> dict[str, float]:
        losses = update(step, generator)
        if step == 19:
            trainee.network[0].weight.data[0, 0] = math.inf
        return losses

    trainee.update = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"step 20"):
        run(trainee, tmp_path)
    assert loop.read_header(tmp_path / "checkpoint.safetensors")["step"] == 10
    assert all(value.isfinite().all() for value in tensors(tmp_path).values())


def test_a_first_step_that_is_not_finite_says_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    trainee = Line()
    trainee.network[0].weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"step 0; .*no checkpoint was written yet"):
        run(trainee, tmp_path)


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
    with pytest.raises(OutputError, match="cannot write the run folder"):
        run(Line(), tmp_path / "file" / "run")


def test_missing_tensorboard_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'duovox\[tensorboard\]'"):
        run(Line(), tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_without_a_validation_split_nothing_is_validated(tmp_path: Path) -> None:
    outcome = run(Line(), tmp_path, validates=False)
    assert outcome == Outcome(40, True, {})
    assert [line["step"] for line in log(tmp_path)] == [10, 20, 30, 40]
