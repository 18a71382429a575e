"""What an experiment has found so far: figures of every trial, gathered over the sampling seeds. Takes JSON rows of the
`runner`, gives `Result`s to `findings`, `claims` and `page`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from duovox.evaluation.metrics import wilson_interval
from duovox.experiments.plan import Condition

FIGURES = ("fid", "inception", "modified_inception", "am", "ndb", "nearest_own", "quality", "shifted_fid")
"""Figures of a row that are gathered as mean and range; accuracy has an interval instead."""


@dataclass(frozen=True)
class Spread:
    """A figure over the sampling seeds: one value each."""

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

    def figure(self, name: str) -> Spread | None:
        """None where some set of seeds lacks it."""
        values = [row[name] for row in self.rows]
        return Spread(tuple(values)) if values and None not in values else None

    @property
    def n(self) -> int:
        """Clips in each set."""
        return int(self.rows[0]["n"])

    @property
    def accuracy(self) -> Spread | None:
        return self.figure("accuracy")

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
