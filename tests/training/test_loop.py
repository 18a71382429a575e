"""training/loop.py: exact resuming, stops, numbers that are not finite. A small trainee stands in where the network does not matter."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from pathlib import Path

import pytest
import torch
from line import CPU, SETTINGS, Line, assert_same_run, at, contents, crash, log, run, stop, tensors
from torch import Tensor

from duovox.config import Recipe, TrainConfig
from duovox.contracts import TrainingError
from duovox.runs import Part
from duovox.training import loop
from duovox.training.checkpoint import read_header
from duovox.training.classifier import ClassifierTraining
from duovox.training.loop import Outcome
from duovox.training.optim import Losses, set_rates, update
from duovox.training.schedule import learning_rate_factor, step_generator
from duovox.training.shares import Shares
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, to hold the others against."""
    out = tmp_path_factory.mktemp("whole")
    assert run(Line(), out) == Outcome(40, True, {"weight": pytest.approx(log(out)[-1]["valid_weight"], abs=1e-6)})
    return out


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
    loss = trainee.loss  # type: ignore[attr-defined]

    def stopping(self: object, number: int, *given: object) -> Losses:
        if number == step:
            stop()
        return loss(self, number, *given)

    monkeypatch.setattr(trainee, "loss", stopping)


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


def validated_after(steps: int) -> float:
    """What the log says of a validation after so many steps, found without the loop."""
    trainee = Line()
    for step in range(steps):
        set_rates(trainee.optimizers, learning_rate_factor(step, SETTINGS))
        update(trainee, step, step_generator(SETTINGS.seed, step, CPU))
    return round(trainee.validate()["weight"], 6)


def test_the_time_budget_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a second of a clock of our own."""
    clock = [1000.0]

    def tick(step: int) -> None:
        clock[0] += 1

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    assert run(Line(tick), tmp_path, time_budget=2.5) == Outcome(3, False, {})
    assert run(Line(tick), tmp_path, time_budget=4, resume=True).step == 7
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first == {"step": 4, "seconds": 4.0, "valid_weight": validated_after(4)}
    assert run(Line(tick), tmp_path, time_budget=0, resume=True).step == 7
    assert run(Line(tick), tmp_path, resume=True).step == 40


def test_training_runs_outside_the_main_thread(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(Line(), tmp_path)))
    thread.start()
    thread.join(30)
    assert [outcome.step for outcome in outcomes] == [40]


# bad numbers


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    run(Line(at(24, stop)), tmp_path)
    before = contents(tmp_path)
    trainee = Line()
    trainee.before = at(31, lambda: trainee.network[0].weight.data.fill_(math.nan))
    with pytest.raises(TrainingError, match=r"line: loss became non-finite at step 31; lower train_line\.rate .*checkpoint\.safetensors"):
        run(trainee, tmp_path, resume=True)
    after = contents(tmp_path)
    assert read_header(tmp_path / "checkpoint.safetensors")["step"] == 30
    assert all(value.isfinite().all() for value in tensors(tmp_path).values())
    assert after.keys() == before.keys()
    assert run(Line(), tmp_path, resume=True).complete


def test_weights_that_are_not_finite_never_reach_the_checkpoint(tmp_path: Path) -> None:
    """A gradient can overflow where the loss is still finite, in the very step before a checkpoint."""
    trainee = Line()
    finish = trainee.updater.finish

    def broken(shares: Shares) -> Tensor:
        norm = finish(shares)
        if trainee.steps[-1] == 19:
            trainee.network[0].weight.data[0, 0] = math.inf
        return norm

    trainee.updater.finish = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"step 20"):
        run(trainee, tmp_path)
    assert read_header(tmp_path / "checkpoint.safetensors")["step"] == 10
    assert all(value.isfinite().all() for value in tensors(tmp_path).values())


def test_a_first_step_that_is_not_finite_says_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    trainee = Line()
    trainee.network[0].weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"step 0; .*no checkpoint was written yet"):
        run(trainee, tmp_path)


def test_without_a_validation_split_nothing_is_validated(tmp_path: Path) -> None:
    outcome = run(Line(), tmp_path, validates=False)
    assert outcome == Outcome(40, True, {})
    assert [line["step"] for line in log(tmp_path)] == [10, 20, 30, 40]
