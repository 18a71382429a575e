"""What a training shows while it runs. A terminal or a pipe that went away stops no training: what cannot be shown is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from tqdm import tqdm


class Display:
    """A bar of steps with the losses behind it."""

    def __init__(self, part: str, total: int, done: int) -> None:
        self._bar = tqdm(total=total, initial=done, desc=part, unit="step", mininterval=2)

    def advance(self, losses: Mapping[str, float]) -> None:
        """One more step is done."""
        with suppress(OSError):
            self._bar.update()
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        with suppress(OSError):
            self._bar.close()


@contextmanager
def display(part: str, total: int, done: int) -> Iterator[Display]:
    """A `Display` of a training that has `done` of its `total` steps behind it."""
    shown = Display(part, total, done)
    try:
        yield shown
    finally:
        shown.close()


def say(line: str) -> None:
    """Write a line on standard output, above the bar."""
    with suppress(OSError):
        tqdm.write(line)
