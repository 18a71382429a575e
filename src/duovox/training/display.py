"""What a training shows while it runs. A terminal or a pipe that went away stops no training: what cannot be shown is left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

from tqdm import tqdm


class Lenient:
    """A stream that takes every write, whether or not the one behind it does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # the one is gone, or closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Display:
    """A bar of steps with the losses behind it."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def advance(self, losses: Mapping[str, float]) -> None:
        """One more step is done."""
        self._bar.update()
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)


@contextmanager
def display(part: str, total: int, done: int) -> Iterator[Display]:
    """A `Display` of a training that has `done` of its `total` steps behind it."""
    with tqdm(total=total, initial=done, desc=part, unit="step", mininterval=2, file=Lenient(sys.stderr)) as bar:
        yield Display(bar)


@contextmanager
def speaking(aloud: bool) -> Iterator[None]:
    """Show nothing within the context, unless `aloud`: of several processes one speaks."""
    if aloud:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def say(line: str) -> None:
    """Write a line on standard output, above the bar."""
    tqdm.write(line, file=Lenient(sys.stdout))
