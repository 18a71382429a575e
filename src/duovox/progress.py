"""How far something has come, on standard error: a bar on a terminal, a line now and then where a log file takes them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

EVERY = 10.0
"""Seconds between two lines in a log."""


@contextmanager
def progress(total: int, doing: str, unit: str, show: bool = True) -> Iterator[Callable[[int], object]]:
    """Gives a function that is told how many more are done. `doing` comes before the figures, `unit` behind them."""
    if not show or sys.stderr is None or sys.stderr.isatty():
        with tqdm(total=total, desc=doing, unit=f" {unit}", disable=not show) as bar:
            yield bar.update
    else:
        yield Log(total, doing, unit).update


class Log:
    """Writes a line every `EVERY` seconds, and one when all is done."""

    def __init__(self, total: int, doing: str, unit: str) -> None:
        self._total, self._doing, self._unit, self._done = total, doing, unit, 0
        self._began = self._said = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._said < EVERY:
            return
        self._said = now
        pace = self._done / max(now - self._began, 1e-9)
        left = f", {_duration((self._total - self._done) / pace)} left" if 0 < self._done < self._total else ""
        say(f"{self._doing}: {self._done} of {self._total} {self._unit}, {pace:.3g} a second{left}")


def say(line: str) -> None:
    """A line on standard error, beside a bar that may be there."""
    tqdm.write(line, file=sys.stderr)


def _duration(seconds: float) -> str:
    """As 45 s, 12 min or 3.5 h."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
