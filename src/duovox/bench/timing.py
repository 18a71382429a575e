"""Timing: takes tasks, runs them in turn, round after round, and gives each one's median and its ratio to another.

Interleaved, because a machine that others share is slower at one time than at another: within a round all tasks meet the same weather.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def interleaved(
    tasks: Mapping[Name, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, list[float]]:
    """Seconds of every task in each of `repeats` rounds, after one round that is not counted."""
    for task in tasks.values():
        task()
    seconds: dict[Name, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = clock()
            task()
            seconds[name].append(clock() - start)
    return seconds


def times_faster(seconds: Sequence[float], baseline: Sequence[float]) -> float:
    """How many times faster than the baseline: the median over the rounds of the ratio within each."""
    return statistics.median(theirs / ours for ours, theirs in zip(seconds, baseline, strict=True))
