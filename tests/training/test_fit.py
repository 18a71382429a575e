"""training/fit.py: schedules that fit a budget, by a clock of our own; `--updates`; what a resumed run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from line import assert_same_run

from duovox.config import Recipe, TrainConfig
from duovox.contracts import TrainingError
from duovox.runs import read_weights, recipe_of_part, updates_of
from duovox.training import fit
from duovox.training.classifier import ClassifierTraining
from duovox.training.fit import Cost, duration, fitted, measure, phases
from duovox.training.loop import Outcome
from duovox.training.optim import Losses
from duovox.training.start import start_training

CPU = torch.device("cpu")
LONG = TrainConfig(updates=1000, batch=4, warmup=100, ema_decay=0.999, validate_every=50, checkpoint_every=20, cooldown=0.25)


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    vocoder = replace(tiny_recipe.vocoder, pitch_updates=100, adversarial_after=300)
    return replace(tiny_recipe, train_classifier=LONG, train_vocoder=LONG, vocoder=vocoder)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that pass: nothing takes time but what says so."""
    now = [1000.0]
    monkeypatch.setattr(fit.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def ticking(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A classifier's updates take a second each, its validations 10; gives the steps that were asked for."""
    loss, validate, steps = ClassifierTraining.loss, ClassifierTraining.validate, list[int]()

    def slow_loss(self: ClassifierTraining, step: int, *given: Any) -> Losses:
        clock[0] += 1
        steps.append(step)
        return loss(self, step, *given)

    def slow_validate(self: ClassifierTraining) -> dict[str, float]:
        clock[0] += 10
        return validate(self)

    monkeypatch.setattr(ClassifierTraining, "loss", slow_loss)
    monkeypatch.setattr(ClassifierTraining, "validate", slow_validate)
    return steps


def at_step(wanted: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    loss = ClassifierTraining.loss

    def acting(self: ClassifierTraining, step: int, *given: Any) -> Losses:
        if step == wanted:
            action()
        return loss(self, step, *given)

    monkeypatch.setattr(ClassifierTraining, "loss", acting)


def test_a_shorter_schedule_keeps_its_shape(recipe: Recipe) -> None:
    short = fitted(recipe, "vocoder", 100)
    train = short.train_vocoder
    assert (train.updates, train.warmup, train.cooldown, train.ema_decay) == (100, 10, 0.25, pytest.approx(0.99))
    assert (short.vocoder.pitch_updates, short.vocoder.adversarial_after) == (10, 30)
    assert short.train_classifier == recipe.train_classifier
    assert fitted(recipe, "classifier", 100).vocoder == recipe.vocoder
    assert fitted(recipe, "vocoder", 1000) is recipe, "no figure is rounded on the way"
    longer = fitted(recipe, "vocoder", 5000)
    assert (longer.train_vocoder.updates, longer.train_vocoder.warmup, longer.vocoder) == (5000, 100, recipe.vocoder)


def test_phases_of_a_training(recipe: Recipe) -> None:
    assert phases(recipe, "classifier") == [(0, 1.0)]
    assert phases(recipe, "vocoder") == [(0, 0.1), (100, pytest.approx(0.2)), (300, pytest.approx(0.7))]
    assert phases(fitted(recipe, "vocoder", 10), "vocoder") == [(0, 0.1), (1, pytest.approx(0.2)), (3, pytest.approx(0.7))]
    never = replace(recipe, vocoder=replace(recipe.vocoder, adversarial_after=5000))
    assert phases(never, "vocoder") == [(0, 0.1), (100, 0.9)]


def test_costs_in_updates_and_seconds() -> None:
    """Of 1000 s, 950 are used: 10 for the last validation, and 1.2 for each update with its share of those on the way."""
    cost = Cost(update=1.0, validation=10.0)
    assert cost.updates_within(1000, LONG) == int(940 / 1.2) == 783
    assert cost.of(LONG) == 1000 + 21 * 10
    assert cost.of(replace(LONG, updates=783)) <= 1000
    assert Cost(2.0).updates_within(1, LONG) == 1
    assert [duration(seconds) for seconds in (90, 1200, 9000)] == ["90 s", "20 min", "2.5 h"]


def test_every_phase_is_timed_at_its_own_price(recipe: Recipe, clock: list[float]) -> None:
    prices, steps = {0: 1.0, 100: 2.0, 300: 5.0}, list[int]()

    class Priced:
        def validate(self) -> dict[str, float]:
            clock[0] += 7
            return {}

    def pay(_trainee: object, step: int, *_others: object) -> dict[str, float]:
        clock[0] += prices[step]
        steps.append(step)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "update", pay)
        cost = measure(Priced(), recipe, "vocoder", 300.0, CPU, validates=True)  # type: ignore[arg-type]
    assert cost == Cost(pytest.approx(0.1 * 1 + 0.2 * 2 + 0.7 * 5), 7.0)
    assert steps == [0] * 4 + [100] * 4 + [300] * 4


def test_a_budget_shorter_than_the_schedule_fits_it(
    recipe: Recipe, tiny_features: Path, tmp_path: Path, clock: list[float], ticking: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cooldown is trained to the end, and the run is the one that so many updates would have given."""
    started = clock[0]
    outcome = start_training("classifier", recipe, tiny_features, tmp_path / "a", time_budget=120, fit=True, device="cpu", precision="fp32")
    updates = int((120 * 0.95 - 10) / 1.2)
    assert (outcome.step, outcome.complete, outcome.updates) == (updates, True, updates) and clock[0] - started <= 120
    assert "classifier: 1000 updates would take 20 min here; the schedule is fitted to 2 min: 86 updates" in capsys.readouterr().out
    facts, _ = read_weights(tmp_path / "a" / "classifier")
    assert facts["schedule"] == {"updates": 86, "of": 1000} and facts["step"] == updates == 86
    assert facts["recipe"] == recipe_of_part(recipe, "classifier"), "so that a subnet of this recipe finds its classifier"
    assert updates_of(facts, recipe, "classifier") == 86 and updates_of({}, recipe, "classifier") == 1000
    start_training("classifier", recipe, tiny_features, tmp_path / "b", updates=86, device="cpu", precision="fp32")
    assert_same_run(tmp_path / "a" / "classifier", tmp_path / "b" / "classifier")


def go(recipe: Recipe, data: Path, out: Path, **options: Any) -> Outcome:
    return start_training("classifier", recipe, data, out, device="cpu", precision="fp32", **options)


def test_a_resumed_run_keeps_its_fitted_schedule(
    recipe: Recipe, tiny_features: Path, tmp_path: Path, clock: list[float], ticking: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command with --resume, though the machine has become faster; and it is the run that was not stopped."""
    go(recipe, tiny_features, tmp_path / "whole", time_budget=120, fit=True)
    with monkeypatch.context() as patch:
        at_step(40, lambda: clock.__setitem__(0, clock[0] + 500), patch)
        assert go(recipe, tiny_features, tmp_path / "parts", time_budget=120, fit=True).step == 41
    ticking.clear()
    outcome = go(recipe, tiny_features, tmp_path / "parts", time_budget=120, fit=True, resume=True)
    assert (outcome.step, outcome.complete) == (86, True) and ticking == list(range(41, 86)), "nothing is timed again"
    assert_same_run(tmp_path / "whole" / "classifier", tmp_path / "parts" / "classifier")


def test_a_budget_that_is_long_enough_and_one_that_is_not_to_be_fitted_change_nothing(
    recipe: Recipe, tiny_features: Path, tmp_path: Path, ticking: list[int]
) -> None:
    short = replace(recipe, train_classifier=replace(LONG, updates=20))
    assert go(short, tiny_features, tmp_path / "enough", time_budget=1000, fit=True).complete
    outcome = go(recipe, tiny_features, tmp_path / "cut", time_budget=15, fit=False)
    assert (outcome.step, outcome.complete, outcome.updates) == (15, False, 1000)
    for folder in ("enough", "cut"):
        assert "schedule" not in json.loads((tmp_path / folder / "classifier" / "run.json").read_text())


def test_updates_are_those_of_the_run(recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    outcome = go(recipe, tiny_features, tmp_path, updates=6)
    assert (outcome.step, outcome.complete, outcome.updates) == (6, True, 6)
    assert go(recipe, tiny_features, tmp_path, resume=True).step == 6
    assert go(recipe, tiny_features, tmp_path, resume=True, updates=6).complete
    with pytest.raises(TrainingError, match=r"was started with 6 updates, now it is 7; leave --updates out, or use another --out"):
        go(recipe, tiny_features, tmp_path, resume=True, updates=7)
    with pytest.raises(TrainingError, match="--updates must be at least 1, not 0"):
        go(recipe, tiny_features, tmp_path / "none", updates=0)
    assert not (tmp_path / "none").exists()
