"""What an experiment has found so far: takes a bench and the records of its trials, gives `Findings` to `page` and `tables`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from duovox.config import Recipe
from duovox.costs import count_costs
from duovox.experiments.records import Result, SystemCosts, group_name
from duovox.experiments.runner import Bench
from duovox.model import build_classifier, build_model


@dataclass(frozen=True)
class Findings:
    """All that is known.

    `results` are in the plan's order; `real` holds the rows of real clips by regime and group; `failures` names the trials that gave
    no sound, and why; `costs` are those of each kind of system.
    """

    results: tuple[Result, ...]
    real: dict[str, list[dict[str, Any]]]
    failures: tuple[str, ...]
    costs: dict[str, SystemCosts]


def gather(bench: Bench) -> Findings:
    """Read the records of a bench, and count what its systems cost."""
    return Findings(_results(bench), _real(bench), _failures(bench), _costs(bench))


def _results(bench: Bench) -> tuple[Result, ...]:
    found = []
    for system in bench.plan.systems:
        records = {trial: bench.record(trial) for trial in bench.trials(system)}
        records = {trial: record for trial, record in records.items() if record and "groups" in record}
        for condition in bench.plan.conditions(system.name):
            known = [record for trial, record in records.items() if record and trial.condition == condition]
            for name, _ in system.groups if known else ():
                rows = tuple(record["groups"][name][0] | {"shifted_fid": record.get("shifted_fid")} for record in known)
                found.append(Result(system.name, system.kind, system.regime, condition, name, rows))
    return tuple(found)


def _real(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """For each regime and group the last trial's (a guided one, so labels are as many each)."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for trial in bench.plan.trials:
        system, record = bench.plan.system(trial.system), bench.record(trial)
        if record and "groups" in record and trial.condition.gamma is not None:
            regime = "" if system.shift else system.regime  # other data is what it sees, not what its clips stand beside
            rows |= {group_name(regime, name): record["groups"][name][1:] for name, _ in system.groups}
    return rows


def _failures(bench: Bench) -> tuple[str, ...]:
    records = {trial: bench.record(trial) for trial in bench.plan.trials}
    failed = {trial: found["failed"] for trial, found in records.items() if found and "failed" in found}
    return tuple(f"{trial.system}, {trial.condition}: {reason}" for trial, reason in failed.items())


def _costs(bench: Bench) -> dict[str, SystemCosts]:
    recipes = {system.kind: system.recipe for system in bench.plan.systems}
    return {kind: costs_of(recipe, len(bench.plan.labels)) for kind, recipe in recipes.items()}


def costs_of(recipe: Recipe, labels: int) -> SystemCosts:
    """Counted on fresh weights. An unguided U-Net runs without the classifier."""
    counted = count_costs(build_model(recipe, build_classifier(recipe, labels)), recipe.sample.guide_at)
    both = (counted.classifier_parameters + counted.subnet_parameters) / 1e6
    trained = counted.subnet_parameters / 1e6
    free = trained if recipe.score_model == "unet" else both
    return SystemCosts(trained, free, both, counted.unconditional_gmacs, counted.guided_gmacs)
