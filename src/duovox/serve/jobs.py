"""What the queue of the server holds: tasks, jobs of one request each, and the batches they are run in.

`api` cancels a job's future when its client disconnects; `worker` runs what is left. Knows nothing of threads but that a future may
be cancelled any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from duovox.voice import Duovox


class Task(Protocol):
    """What to do with items. Jobs whose tasks are equal may share a batch."""

    def run(self, voice: Duovox, items: Sequence[Any], check: Callable[[], None]) -> list[Any]:
        """One result for each item, in order; calls `check` now and then, and lets what it raises pass."""
        ...


class AbandonedError(Exception):
    """Nobody waits for the batch any more."""


@dataclass(eq=False)
class Job:
    """Items of one request; `future` gets their results, or is cancelled by whoever lost interest or patience."""

    task: Task
    items: Sequence[Any]
    future: Future[list[Any]] = field(default_factory=Future)
    results: list[Any] = field(default_factory=list)
    taken: int = 0

    @property
    def left(self) -> int:
        """Items that no batch has taken yet."""
        return len(self.items) - self.taken

    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.future.done()

    def take(self, room: int) -> Sequence[Any]:
        """The next items, at most `room`."""
        start, self.taken = self.taken, min(len(self.items), self.taken + room)
        return self.items[start : self.taken]

    def add(self, results: list[Any]) -> None:
        """Results of items in the order they were taken; the last ones finish the job."""
        self.results += results
        if len(self.results) == len(self.items):
            with contextlib.suppress(InvalidStateError):  # cancelled at this very moment
                self.future.set_result(self.results)

    def fail(self, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class JobBatch:
    """Parts of jobs that are run together."""

    task: Task
    parts: list[tuple[Job, Sequence[Any]]]

    @property
    def items(self) -> list[Any]:
        return [item for _, items in self.parts for item in items]

    def wanted(self) -> bool:
        return any(job.wanted() for job, _ in self.parts)

    def deliver(self, results: list[Any]) -> None:
        start = 0
        for job, items in self.parts:
            job.add(results[start : start + len(items)])
            start += len(items)

    def fail(self, make: Callable[[], Exception]) -> None:
        for job, _ in self.parts:
            job.fail(make())
