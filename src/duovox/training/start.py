"""Starting a training: puts features, recipe, device and the parts already trained together and hands them to the loop.

Takes the arguments of `duovox train`; gives run folders `<out>/<part>/`, where `subnet` finds the classifier it speaks through.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import nn

from duovox.bundle import locate, read_bundle
from duovox.config import Recipe, TrainConfig
from duovox.contracts import TrainingError
from duovox.devices import DeviceName, Precision, choose_autocast, choose_device
from duovox.runs import (
    Part,
    features_for,
    on_base,
    recipe_of_part,
    updates_of,
)
from duovox.training.display import say, speaking
from duovox.training.fit import duration, fitted, measure
from duovox.training.init import in_words, read_init, start_average_at, take_over
from duovox.training.jobs import Job, job_of, student_job
from duovox.training.judge import JudgeTraining
from duovox.training.loop import Outcome, train
from duovox.training.optim import Trainee
from duovox.training.run_folder import recorded_facts
from duovox.training.shares import Shares, shared_job


def start_training(
    part: Part,
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    time_budget: float = math.inf,
    fit: bool = False,
    updates: int | None = None,
    init: str | Path | None = None,
    start: int = 0,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    tensorboard: bool = False,
    network: nn.Module | None = None,
    on: str | Path | None = None,
    teacher: str | Path | None = None,
    trust_code: bool = False,
    accumulate: int = 1,
) -> Outcome:
    """Train one part of a recipe on a feature folder into `<out>/<part>/`; seconds for `time_budget`.

    Started by torchrun, the processes share every update, and the first of them writes; `accumulate` cuts each process's share into
    passes, one after the other, which takes less memory. The run is the same, whatever their numbers.

    A student is trained on a folder of solutions of the bundle `teacher`, whose recipe takes the place of the given one but for the
    student's own settings.

    `updates` takes the place of the recipe's; with `fit` a new run whose schedule is longer than the time budget gets one that it can
    finish. A run that is resumed keeps the schedule that it was started with. `init` gives weights to start from (see `init.read_init`),
    `start` how many updates of the schedule to leave out, their batches and noise included. `on` is the run folder of the classifier that
    a subnet is trained on, if it is not in `out`, or a bundle: then words that it does not know have no label, and all but the settings
    of the subnet and its training are its recipe's. `network` is someone else's, for a recipe with one that only its owner can give
    (`ExternalConfig.source` "object"); `trust_code` runs what a bundle of `on` or `teacher` needs to be opened.

    Raises `DataError` for unfit features, `TrainingError` as `loop.train` does, when a part it builds on is missing, and for weights that
    cannot be started from.
    """
    chosen = choose_device(device)
    with shared_job(chosen, accumulate) as shares, speaking(shares.leads):
        autocast, before, timed = choose_autocast(precision, chosen), recorded_facts(out / part) if resume else {}, time.monotonic()
        if part == "student":
            if teacher is None:
                raise TrainingError("a student needs its teacher; name the bundle that made the solutions with --teacher")
            job = student_job(recipe, data, read_bundle(locate(teacher), trust_code=trust_code), before, chosen, autocast)
        else:
            base = (
                None
                if part != "subnet" or on is None or (Path(on) / "weights.safetensors").is_file()
                else read_bundle(locate(on), trust_code=trust_code)
            )
            recipe = recipe if base is None else on_base(base.config.recipe, recipe)
            job = job_of(part, recipe, features_for(recipe, data), out, base or on, network, chosen, autocast)
        recipe = job.recipe
        budget = time_budget if fit and not start else math.inf
        kept = _kept(before, job, updates, out / part) if before else _schedule(job, updates, budget, shares)
        timed = time.monotonic() - timed
        shaped = fitted(recipe, part, updates_of(kept, recipe, part))
        trainee = job.make(shaped)
        if accumulate > 1 and trainee.whole_batches:
            raise TrainingError(f"the {part} cannot be trained in passes: {trainee.whole_batches}; leave --accumulate out")
        if not before:
            kept |= _begin(trainee, job, init, start, updates_of(kept, recipe, part))
        outcome = train(
            trainee,
            out / part,
            getattr(shaped, f"train_{part}"),
            recipe_of_part(recipe, part),
            job.digest,
            chosen,
            resume=resume,
            time_budget=time_budget - timed,
            tensorboard=tensorboard,
            validates=job.validates,
            facts={**job.facts, **kept},
            first_step=kept.get("start", 0),
            shares=shares,
        )
        if isinstance(trainee, JudgeTraining) and shares.leads:
            trainee.judge().save(out / part / "judge.safetensors", force=True)
        return outcome


def _schedule(job: Job, updates: int | None, budget: float, shares: Shares) -> dict[str, Any]:
    """The schedule of a new run, as a fact of it, where it is not the recipe's: of `updates` updates, or of fewer if that takes longer
    than `budget` seconds here."""
    of: int = getattr(job.recipe, f"train_{job.part}").updates
    wanted = of if updates is None else updates
    if updates is not None and updates < 1:
        raise TrainingError(f"--updates must be at least 1, not {wanted}")
    if 0 < budget < math.inf and wanted and shares.leads:
        recipe = fitted(job.recipe, job.part, wanted)
        train: TrainConfig = getattr(recipe, f"train_{job.part}")
        cost = measure(job.make(recipe), recipe, job.part, budget, job.device, job.validates, shares)
        if cost.of(train) > budget:
            fewer, whole = min(wanted, cost.updates_within(budget, train)), duration(cost.of(train))
            say(f"{job.part}: {wanted} updates would take {whole} here; the schedule is fitted to {duration(budget)}: {fewer} updates")
            wanted = fewer
    wanted = shares.agreed(wanted)
    return {} if wanted == of else {"schedule": {"updates": wanted, "of": of}}


def _kept(before: dict[str, Any], job: Job, updates: int | None, folder: Path) -> dict[str, Any]:
    """What a resumed run keeps of its beginning. Raises `TrainingError` for another number of updates."""
    planned = updates_of(before, job.recipe, job.part)
    if updates not in (None, planned):
        raise TrainingError(f"{folder} was started with {planned} updates, now it is {updates}; leave --updates out, or use another --out")
    return {name: before[name] for name in ("schedule", "init", "start") if name in before}


def _begin(trainee: Trainee, job: Job, init: str | Path | None, start: int, updates: int) -> dict[str, Any]:
    """Give a new run the weights to start from; what was done, as facts of the run."""
    if start and (init is None or not 0 < start < updates):
        raise TrainingError(f"--start {start} needs --init, and must lie between 0 and {updates}, the updates of the schedule")
    if init is None:
        return {}
    taken = take_over(trainee, read_init(init, job.part), tuple(job.facts["labels"]), job.recipe.mel)
    say(in_words(job.part, taken))
    if start:
        start_average_at(trainee, start)
    return {"init": taken, **({"start": start} if start else {})}
