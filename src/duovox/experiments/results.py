"""What an experiment has found so far: takes a bench and the records of its trials, gives `Results` to `claims`, `tables` and `page`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duovox.config import Recipe
from duovox.costs import count_costs
from duovox.evaluation.metrics import wilson_interval
from duovox.experiments.plan import Condition
from duovox.model import build_classifier, build_model

if TYPE_CHECKING:
    from duovox.experiments.runner import Bench


@dataclass(frozen=True)
class Spread:
    """A metric over the sampling seeds: one value each."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def range(self) -> float:
        """Largest minus smallest."""
        return max(self.values) - min(self.values)

    @property
    def known(self) -> bool:
        """Whether there are several values, so that the range says something."""
        return len(self.values) > 1

    def text(self, digits: int = 3) -> str:
        """Mean and range."""
        ends = f" ({min(self.values):.{digits}f} - {max(self.values):.{digits}f})" if self.known else ""
        return f"{self.mean:.{digits}f}{ends}"


@dataclass(frozen=True)
class Result:
    """One system under one condition on one group of labels; `rows` are those of `evaluation.report`, one for each set of seeds."""

    system: str
    kind: str
    regime: str
    condition: Condition
    group: str
    rows: tuple[dict[str, Any], ...]

    def metric(self, name: str) -> Spread | None:
        """None where some set of seeds lacks it."""
        values = [row[name] for row in self.rows]
        return Spread(tuple(values)) if values and None not in values else None

    @property
    def n(self) -> int:
        """Clips in each set."""
        return int(self.rows[0]["n"])

    @property
    def accuracy(self) -> Spread | None:
        return self.metric("accuracy")

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """Wilson's, 95 %, of the clips of all sets together."""
        accuracy = self.accuracy
        total = sum(int(row["n"]) for row in self.rows)
        return wilson_interval(round(accuracy.mean * total), total) if accuracy else None


def group_name(regime: str, group: str) -> str:
    """How a set of labels is called on the page."""
    return f"{regime}, {group}" if regime else group


@dataclass(frozen=True)
class SystemCosts:
    """Millions of parameters: trained, and all that run without and with guidance; GMACs of one evaluation without and with it."""

    trained: float
    unconditional: float
    guided: float
    unconditional_gmacs: float
    guided_gmacs: float


def find(results: Iterable[Result], **wanted: Any) -> Result | None:
    """The first result with these attributes."""
    return next((r for r in results if all(getattr(r, name) == value for name, value in wanted.items())), None)


@dataclass(frozen=True)
class Results:
    """All that is known.

    `results` are in the plan's order; `real` holds the rows of real clips by regime and group; `failures` names the trials of which
    clips ran off to no speech, and why; `costs` are those of each kind of system.
    """

    results: tuple[Result, ...]
    real: dict[str, list[dict[str, Any]]]
    failures: tuple[str, ...]
    costs: dict[str, SystemCosts]


def gather(bench: Bench) -> Results:
    """Read the records of a bench, and count what its systems cost."""
    return Results(_results(bench), _real(bench), _failures(bench), _costs(bench))


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
    records = {trial: bench.record(trial) or {} for trial in bench.plan.trials}
    failed = {trial: f"no clips, {found['failed']}" for trial, found in records.items() if "failed" in found}  # as 0.1.0 left them
    faults = {trial: found["faults"] for trial, found in records.items() if found.get("faults")}
    return tuple(f"{trial.system}, {trial.condition}: {what}" for trial, what in (failed | faults).items())


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
