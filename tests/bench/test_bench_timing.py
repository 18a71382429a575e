"""bench/timing.py: tasks in turn, medians, ratios within a round."""

from __future__ import annotations

from itertools import count

import pytest

from duovox.bench.timing import interleaved, times_faster


def test_tasks_take_turns_after_a_round_that_does_not_count() -> None:
    done: list[str] = []
    seconds = interleaved({name: lambda name=name: done.append(name) for name in ("a", "b")}, repeats=3)  # type: ignore[misc]
    assert done == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_each_round_has_the_time_of_its_own_run() -> None:
    """A clock that ticks 1, 2, 3, ... seconds at each look."""
    ticks = count()
    looks = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0, 30.0, 34.0])
    seconds = interleaved({"a": lambda: next(ticks), "b": lambda: next(ticks)}, repeats=2, clock=lambda: next(looks))
    assert seconds == {"a": [1.0, 2.0], "b": [3.0, 4.0]} and next(ticks) == 6


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that was ten times slower in the second round changes nothing."""
    assert times_faster([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 2.0
    assert times_faster([1.0, 1.0, 4.0], [3.0, 2.0, 4.0]) == 2.0
    assert times_faster([1.0, 5.0], [1.0, 5.0]) == 1.0
    with pytest.raises(ValueError, match="zip"):
        times_faster([1.0], [1.0, 2.0])
