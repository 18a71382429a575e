"""What an experiment consists of: takes its name, a recipe and the labels, gives systems to train and trials to sample. Pure.

The systems of a plan share recipe name, data, seed and order of the data, number of updates and batch: an equal budget.
Systems and trials are named by what they are, so that experiments in one folder share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from duovox.config import Recipe, SeenConfig, TrainConfig, with_updates
from duovox.contracts import ConfigError

Experiment = Literal["table1", "regimes", "gamma", "shift"]
Schedule = Literal["constant", "early", "late"]
Shift = Literal["", "noise", "words"]
Group = tuple[str, tuple[str, ...]]

DRAW = 100_000
"""Draw s of a trial takes the sampling seeds s * DRAW, s * DRAW + 1, ..."""

GUIDED = 3.0
"""The paper's gamma."""

REGIME_KINDS, REGIME_GAMMAS = ("unet", "subnet_logsumexp"), (1.0, 3.0, 6.0)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
INTERVALS = ((0.2, math.inf), (0.2, 10.0), (0.5, 5.0))
SCHEDULES: tuple[tuple[float, Schedule], ...] = ((3.0, "early"), (6.0, "early"), (3.0, "late"), (6.0, "late"))
SHIFTS: tuple[Shift, ...] = ("noise", "words")
TRAIN_SNR = 10.0
"""dB, of the noisy recordings that a score model of the shift experiment sees."""

SHARE = 0.03
EVERYTHING: Group = ("all", ())

_ABOUT = {
    "unet": "U-Net, which knows nothing of the classifier; guided by it",
    "subnet_logsumexp": "Score Subnet, the paper's form: gradient taps d logsumexp / d h",
    "subnet_none": "Score Subnet without gradient taps",
    "subnet_label": "Score Subnet with label-aware gradient taps: d logit_label / d h",
    "subnet_random": (
        "Score Subnet, the paper's form, on a classifier that was never trained; unconditional only, as that classifier cannot guide"
    ),
}


@dataclass(frozen=True)
class System:
    """One score model to train. `kind` is its form; `groups` are the sets of labels that its clips are scored on (none named: all);
    `shift` names the other data that it sees instead of its classifier's.
    """

    name: str
    kind: str
    about: str
    recipe: Recipe
    regime: str = ""
    groups: tuple[Group, ...] = (EVERYTHING,)
    shift: Shift = ""

    @property
    def random_classifier(self) -> bool:
        """Whether it stands on an untrained classifier of its own."""
        return self.kind == "subnet_random"


@dataclass(frozen=True)
class Condition:
    """How clips are made: unconditional (gamma None), or guided at low <= sigma <= high, its strength constant or by a schedule."""

    gamma: float | None
    low: float = 0.0
    high: float = math.inf
    schedule: Schedule = "constant"

    @property
    def name(self) -> str:
        return str(self).replace("gamma ", "gamma").replace(", sigma ", "_").replace(", ", "_").replace(" ", "_")

    @property
    def varied(self) -> bool:
        """Whether the strength depends on sigma."""
        return self.limited or self.schedule != "constant"

    @property
    def limited(self) -> bool:
        """Whether guidance stops somewhere."""
        return (self.low, self.high) != (0.0, math.inf)

    def __str__(self) -> str:
        if self.gamma is None:
            return "unconditional"
        interval = f", sigma {self.low:g} to {self.high:g}" if self.limited else ""
        return f"gamma {self.gamma:g}{interval}" + (f", {self.schedule}" if self.schedule != "constant" else "")


UNCONDITIONAL = Condition(None)


@dataclass(frozen=True)
class Trial:
    """The clips of one system under one condition, from one set of sampling seeds."""

    system: str
    condition: Condition
    draw: int

    @property
    def name(self) -> str:
        return f"{self.condition.name}_s{self.draw}"

    @property
    def first_seed(self) -> int:
        return self.draw * DRAW


@dataclass(frozen=True)
class Plan:
    """Everything that belongs to an experiment; `n` clips a label in each trial."""

    experiment: Experiment
    labels: tuple[str, ...]
    systems: tuple[System, ...]
    trials: tuple[Trial, ...]
    n: int
    draws: int

    @property
    def training(self) -> TrainConfig:
        """The budget that all systems share."""
        return self.systems[0].recipe.train_subnet

    def system(self, name: str) -> System:
        """Raises `ConfigError` for a name that is not in the plan."""
        for system in self.systems:
            if system.name == name:
                return system
        raise ConfigError(f"{self.experiment} has no system {name!r}; it has {', '.join(s.name for s in self.systems)}")

    def conditions(self, system: str) -> tuple[Condition, ...]:
        """Those of one system, in order."""
        return tuple(dict.fromkeys(trial.condition for trial in self.trials if trial.system == system))


def make_plan(
    experiment: Experiment, recipe: Recipe, labels: tuple[str, ...], n: int = 50, draws: int | None = None, updates: int | None = None
) -> Plan:
    """The systems and trials of an experiment; `draws` sets of sampling seeds each, `updates` for every score model instead of the
    recipe's. Raises `ConfigError` for a recipe with someone else's classifier, and for numbers that make no sense.
    """
    if recipe.external is not None:
        raise ConfigError(f"experiments train a classifier of their own; recipe {recipe.name} has someone else's")
    draws = draws if draws is not None else {"table1": 3, "regimes": 3, "gamma": 1, "shift": 3}[experiment]
    if draws < 1 or not 1 <= n * len(labels) <= DRAW or (updates is not None and updates < 1):
        raise ConfigError(f"draws, updates and clips must be at least 1, and clips of a trial at most {DRAW}")
    shared = recipe if updates is None else replace(recipe, train_subnet=with_updates(recipe.train_subnet, updates))
    systems, conditions = _PARTS[experiment](shared, labels)
    if any(n * len(seen or labels) < 2 for system in systems for _, seen in system.groups):
        raise ConfigError(f"{n} clips a label are too few: each set that is scored needs two clips at least")
    trials = [Trial(s.name, condition, draw) for s in systems for condition in conditions[s.name] for draw in range(draws)]
    return Plan(experiment, labels, tuple(systems), tuple(trials), n, draws)


def make_system(kind: str, recipe: Recipe) -> System:
    """A score model of one form: `unet`, or `subnet_` and its gradient taps, or `subnet_random`."""
    if kind == "unet":
        return System(kind, kind, _ABOUT[kind], replace(recipe, score_model="unet"))
    taps = "logsumexp" if kind == "subnet_random" else kind.removeprefix("subnet_")
    made = replace(recipe, score_model="subnet", subnet=replace(recipe.subnet, gradient_taps=taps))  # type: ignore[arg-type]
    if kind == "subnet_random":
        made = replace(made, train_classifier=replace(made.train_classifier, updates=0))
    return System(kind, kind, _ABOUT[kind], made)


Parts = tuple[list[System], dict[str, list[Condition]]]


def _table1(recipe: Recipe, labels: tuple[str, ...]) -> Parts:
    systems = [make_system(kind, recipe) for kind in _ABOUT]
    conditions = {s.name: [UNCONDITIONAL, *[Condition(GUIDED)] * (not s.random_classifier)] for s in systems}
    conditions["subnet_label"].insert(1, Condition(0.0))
    return systems, conditions


def _gamma(recipe: Recipe, labels: tuple[str, ...]) -> Parts:
    kind = "unet" if recipe.score_model == "unet" else f"subnet_{recipe.subnet.gradient_taps}"
    system = make_system(kind, recipe)
    intervals = [Condition(GUIDED, low, high) for low, high in INTERVALS]
    schedules = [Condition(gamma, schedule=schedule) for gamma, schedule in SCHEDULES]
    return [system], {system.name: [*map(Condition, GAMMAS), *intervals, *schedules]}


def _shift(recipe: Recipe, labels: tuple[str, ...]) -> Parts:
    base = make_system("subnet_logsumexp", replace(recipe, subnet_sees=SeenConfig(other_data=True)))
    systems = [replace(base, name=f"{base.kind}_{shift}", regime=shift, shift=shift) for shift in SHIFTS]
    return systems, {system.name: [UNCONDITIONAL, Condition(GUIDED)] for system in systems}


def _regimes(recipe: Recipe, labels: tuple[str, ...]) -> Parts:
    systems, conditions = [], {}
    for regime, seen in regimes(labels).items():
        limited = replace(recipe, subnet_sees=seen)
        for kind in REGIME_KINDS:
            base, name = make_system(kind, limited), f"{kind}_{regime}"
            systems.append(replace(base, name=name, regime=regime, groups=_groups(labels, seen.labels)))
            conditions[name] = list(map(Condition, REGIME_GAMMAS))
    return systems, conditions


def regimes(labels: tuple[str, ...]) -> dict[str, SeenConfig]:
    """What the score models of each regime see. Raises `ConfigError` for a single label, of which none can be left unseen."""
    if len(labels) < 2:
        raise ConfigError("regimes need at least two labels, so that one can stay unseen")
    few = ("three", "five", "two")
    some = few if set(few) < set(labels) else labels[: len(labels) // 2]
    one = "four" if "four" in labels else labels[-1]
    return {"share": SeenConfig(SHARE), "few": SeenConfig(1.0, some), "one": SeenConfig(1.0, (one,))}


def _groups(labels: tuple[str, ...], seen: tuple[str, ...]) -> tuple[Group, ...]:
    """All labels together where all are seen, else the seen and the unseen apart."""
    if not seen:
        return (EVERYTHING,)
    return ("seen", seen), ("unseen", tuple(label for label in labels if label not in seen))


_PARTS: dict[Experiment, Callable[[Recipe, tuple[str, ...]], Parts]] = {
    "table1": _table1,
    "regimes": _regimes,
    "gamma": _gamma,
    "shift": _shift,
}
