"""The training loop, one for every network: steps, validation, log, checkpoints, clean stops, exact resuming.

Takes a `Trainee` (what is trained and what a step loses); gives a run folder (`run_folder`).

All randomness of step n comes from (seed, n), so a resumed run is the same run with no random state to carry over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from duovox.config import TrainConfig
from duovox.training.checkpoint import Progress
from duovox.training.display import Display, display
from duovox.training.optim import Trainee, set_rates, update
from duovox.training.run_folder import RunFolder, followed, held
from duovox.training.schedule import learning_rate_factor, step_generator
from duovox.training.shares import ALONE, Shares, require_same_step
from duovox.training.stops import stop_requests


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: steps done in all, whether the run is complete, the last validation's figures; and of how many steps."""

    step: int
    complete: bool
    figures: dict[str, float]
    updates: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Course:
    """How a call of `train` goes: until `time_budget` seconds are over; `first_step` is where a new run begins its schedule."""

    settings: TrainConfig
    device: torch.device
    time_budget: float = math.inf
    validates: bool = True
    first_step: int = 0
    shares: Shares = ALONE


def train(
    trainee: Trainee,
    out: Path,
    settings: TrainConfig,
    recipe: Mapping[str, Any],
    data_digest: str,
    device: torch.device,
    *,
    resume: bool = False,
    time_budget: float = math.inf,
    tensorboard: bool = False,
    validates: bool = True,
    facts: Mapping[str, Any] | None = None,
    first_step: int = 0,
    shares: Shares = ALONE,
) -> Outcome:
    """Train until `settings.updates`, the time budget (seconds of this call) or a stop signal; write the run folder.

    `recipe` and `facts` are plain JSON values that say what the run is; they are kept with it and compared on resuming.
    `validates` off leaves validation out, for data without a validation split. A new run starts at `first_step` of its schedule. Of
    several processes (`shares`) each computes its share of every update, and the leading one validates and writes.
    Raises `TrainingError` if the folder holds a run and `resume` is not set, if it was started with another recipe or data,
    and when a loss or a weight is no longer finite (the last good checkpoint stays); `OutputError` where another run writes to it.
    """
    facts = {"part": trainee.part, "recipe": dict(recipe), "data": data_digest, **(facts or {})}
    course = Course(settings, device, time_budget, validates and shares.leads, first_step, shares)
    with held(out, facts, tensorboard) if shares.leads else followed(out, facts) as run:
        progress = run.begin(trainee, resume, first_step)
        require_same_step(progress.step, shares)
        with display(trainee.part, settings.updates, progress.step) as shown:
            return _go_on(trainee, run, progress, course, shown)


def _go_on(trainee: Trainee, run: RunFolder, progress: Progress, course: Course, shown: Display) -> Outcome:
    """The steps from `progress` on, and a checkpoint at their end."""
    settings, step, started = course.settings, progress.step, time.monotonic()
    figures: dict[str, float] = {}

    def over() -> bool:
        return time.monotonic() - started >= course.time_budget

    def here() -> Progress:
        return Progress(step, progress.seconds + time.monotonic() - started)

    with stop_requests() as stop_requested:
        while step < settings.updates and not course.shares.any(stop_requested() or over(), course.device):
            set_rates(trainee.optimizers, learning_rate_factor(step, settings, course.first_step))
            losses = update(trainee, step, step_generator(settings.seed, step, course.device), course.shares)
            run.require_finite(losses, step)
            step += 1
            shown.advance(losses)
            if step % 10 == 0:
                run.log({"step": step, "seconds": round(here().seconds, 2), **losses})
            if course.validates and (step % settings.validate_every == 0 or step == settings.updates):
                figures = run.validate(trainee, here())
            if step % settings.checkpoint_every == 0:
                run.save(trainee, here())
        run.save(trainee, here())
    return Outcome(step, step >= settings.updates, figures, settings.updates)
