"""training/schedule.py: warm-up, constant rate, cooldown; a schedule that begins later."""

from __future__ import annotations

import math

import pytest
import torch

from duovox.config import TrainConfig
from duovox.training.schedule import learning_rate_factor, step_generator


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


def test_a_later_first_step_warms_up_from_there_and_cools_down_as_ever() -> None:
    train = TrainConfig(updates=100, warmup=10, cooldown=0.2)
    assert [learning_rate_factor(step, train, 40) for step in (40, 44, 49, 79)] == pytest.approx([0.1, 0.5, 1, 1])
    assert learning_rate_factor(90, train, 40) == learning_rate_factor(90, train)


def test_every_step_draws_its_own_numbers_and_dropout_too() -> None:
    def drawn(seed: int, step: int) -> list[float]:
        generator = step_generator(seed, step, torch.device("cpu"))
        return [torch.rand(1, generator=generator).item(), torch.rand(1).item()]

    assert drawn(3, 7) == drawn(3, 7)
    assert len({tuple(drawn(seed, step)) for seed in range(3) for step in range(3)}) == 9
