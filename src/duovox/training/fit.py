"""A schedule that fits a time budget: takes a part's recipe and its `Trainee`, times a few updates, gives how many there is time for.

A shorter run keeps the shape of its schedule: warm-up, averaging, cooldown and the vocoder's phases shrink with the updates.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from duovox.config import Recipe, TrainConfig, with_updates
from duovox.runs import Part
from duovox.training.optim import Trainee, update
from duovox.training.schedule import step_generator
from duovox.training.shares import ALONE, Shares

TIMED = 3
"""Fewest updates that are timed in each phase, after one that pays for what is done once."""

SHARE_TIMED = 0.02
"""Share of the budget that may be spent on timing, beyond the fewest."""

MOST_TIMED = 300.0
"""Seconds that may be spent on it at most: other processes of the job wait, and give up in the end."""

RESERVE = 0.05
"""Share of the budget that is left for checkpoints and for a machine that slows down."""


@dataclass(frozen=True)
class Cost:
    """Seconds of an update, mean over a whole schedule, and of a validation."""

    update: float
    validation: float = 0.0

    def updates_within(self, seconds: float, train: TrainConfig) -> int:
        """How many updates of a training fit into `seconds`, its validations included: one at the end, and one each so often."""
        usable = seconds * (1 - RESERVE) - self.validation
        return max(1, int(usable / (self.update + self.validation / train.validate_every)))

    def of(self, train: TrainConfig) -> float:
        """Seconds that a whole training takes."""
        return train.updates * self.update + self.validation * (1 + train.updates // train.validate_every)


def fitted(recipe: Recipe, part: Part, updates: int) -> Recipe:
    """The recipe with another number of updates for a part, and all that is counted in its updates changed with it."""
    train: TrainConfig = getattr(recipe, f"train_{part}")
    if updates == train.updates:
        return recipe
    share = min(1.0, updates / max(1, train.updates))
    vocoder = recipe.vocoder
    if part == "vocoder":
        vocoder = replace(
            vocoder, pitch_updates=round(vocoder.pitch_updates * share), adversarial_after=round(vocoder.adversarial_after * share)
        )
    changed = {f"train_{part}": with_updates(train, updates), "vocoder": vocoder}
    return replace(recipe, **changed)  # type: ignore[arg-type]


def phases(recipe: Recipe, part: Part) -> list[tuple[int, float]]:
    """The stretches of a training in which an update costs the same: first step of each, and its share of all updates."""
    updates: int = getattr(recipe, f"train_{part}").updates
    starts = {0, *((recipe.vocoder.pitch_updates, recipe.vocoder.adversarial_after) if part == "vocoder" else ())}
    bounds = [*sorted(start for start in starts if start < updates), updates]
    return [(first, (last - first) / updates) for first, last in itertools.pairwise(bounds)]


def measure(
    trainee: Trainee, recipe: Recipe, part: Part, budget: float, device: torch.device, validates: bool, shares: Shares = ALONE
) -> Cost:
    """Time updates of every phase, on this process's share alone, and a validation. The trainee is worn out by it: train another one."""
    alone = replace(shares, joined=False)
    seed: int = getattr(recipe, f"train_{part}").seed
    stretches = phases(recipe, part)
    allowed = min(budget * SHARE_TIMED, MOST_TIMED) / len(stretches)

    def one(step: int) -> float:
        return _seconds(lambda: update(trainee, step, step_generator(seed, step, device), alone))

    mean = sum(share * _mean_seconds(lambda step=first: one(step), allowed) for first, share in stretches)  # type: ignore[misc]
    return Cost(mean, _seconds(trainee.validate) if validates else 0.0)


def duration(seconds: float) -> str:
    """Seconds in words: 90 s, 20 min, 2.5 h."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _mean_seconds(work: Callable[[], float], allowed: float) -> float:
    """The mean time of `work` over `TIMED` calls, or as many as `allowed` seconds bear."""
    work()
    seconds: list[float] = []
    while len(seconds) < TIMED or sum(seconds) * (1 + 1 / len(seconds)) < allowed:
        seconds.append(work())
    return sum(seconds) / len(seconds)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
