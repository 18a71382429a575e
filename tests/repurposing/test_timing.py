"""timing.py: an estimate is measured, and leaves everything as it was."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from speaking import MEL, WORDS, Plain, fresh, no_export_fixture, snapshot

from duovox.config import Recipe
from duovox.repurposing import repurpose
from duovox.repurposing.timing import Estimate
from duovox.training.optim import Losses
from duovox.training.subnet import SubnetTraining

no_export = no_export_fixture


@pytest.mark.usefixtures("no_export")
def test_a_slow_step_is_measured(tiny_recipe: Recipe, tiny_features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, slower still, does not count; of the whole, validations are a part."""
    real, steps = SubnetTraining.loss, list[int]()

    def slow(self: SubnetTraining, step: int, *given: Any) -> Losses:
        time.sleep(0.2 if steps else 3)
        steps.append(step)
        return real(self, step, *given)

    monkeypatch.setattr(SubnetTraining, "loss", slow)
    made = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe)
    (estimate,) = made.estimate(tiny_features, "cpu")
    assert len(steps) == 4 and 0.2 < estimate.seconds < 0.9
    assert estimate.total > 4 * estimate.seconds
    assert (estimate.part, estimate.updates, estimate.device, estimate.batch) == ("subnet", 4, "cpu", 4)


@pytest.mark.usefixtures("no_export")
def test_each_training_is_estimated_and_nothing_changes(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    made = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe, conditioned=True)
    before: Any = snapshot(made.classifier)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert [estimate.part for estimate in made.estimate(tiny_features, "cpu")] == ["classifier", "subnet"]
    assert torch.rand(3).equal(expected) and snapshot(made.classifier) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "updates", "says"),
    [
        (0.25, 100, "subnet: about 0.25 s a step (cpu, batch 64), 25 s for 100 steps"),
        (0.5, 2000, "0.5 s a step (cpu, batch 64), 17 min for 2,000 steps"),
        (1.234, 20000, "1.2 s a step (cpu, batch 64), 6.9 h for 20,000 steps"),
    ],
)
def test_an_estimate_is_one_line(seconds: float, updates: int, says: str) -> None:
    assert says in str(Estimate("subnet", seconds, seconds * updates, updates, "cpu", 64))
