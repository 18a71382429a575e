"""One thread owns the voice; everybody else puts jobs into its queue and waits for their futures.

Takes tasks and their items from `app`; runs what may run together, one batch at a time; gives results or a `RefusedError`. Knows
nothing of HTTP beyond that, and nothing of sound.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from duovox.contracts import DuovoxError
from duovox.serve.jobs import AbandonedError, Job, JobBatch, Task
from duovox.serve.metrics import Metrics
from duovox.serve.refusals import RefusedError, internal_error, mended_by_the_caller

if TYPE_CHECKING:
    from duovox.voice import Duovox

log = logging.getLogger(__name__)

FIRST_PACE = 1.0
"""Seconds for an item, as long as nothing has been measured."""

LONGEST_WAIT = 600
"""The most seconds a client is told to wait."""


class Worker:
    """The thread that owns the voice, and its queue.

    `load` is called in the thread. At most `max_batch` items make a batch; the first of them waits `wait` seconds for others. With
    `queue` items waiting, further jobs are refused. A job whose future is cancelled is dropped; a batch in which nobody's is left stops
    at its next `check`. `on_failure` is called if the thread ends otherwise than by `stop`; `failure` then says why.
    """

    def __init__(self, load: Callable[[], Duovox], metrics: Metrics, *, max_batch: int, wait: float, queue: int) -> None:
        self._load, self._metrics = load, metrics
        self._max_batch, self._wait, self._room = max_batch, wait, queue
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._voice: Duovox | None = None
        self._closing = self._hurry = False
        self._pace: float | None = None
        self._thread = threading.Thread(target=self._run, name="voice", daemon=True)
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        metrics.watch_queue(lambda: self.waiting)

    def start(self) -> None:
        self._thread.start()

    @property
    def voice(self) -> Duovox:
        """The voice, for reading what never changes. Raises `RefusedError` (503) before it is loaded and after the end has begun."""
        if self._closing or self._voice is None:
            raise _unready(self._closing)
        return self._voice

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        with self._changed:
            return sum(job.left for job in self._jobs)

    def submit(self, task: Task, items: Sequence[Any]) -> Future[list[Any]]:
        """Queue one job; its future gets a result for each item. Raises `RefusedError`: 429 with a full queue, 503 near the end."""
        with self._changed:
            if self._closing:
                raise _unready(closing=True)
            self._drop_unwanted()
            if self.waiting >= self._room:
                self._metrics.refused.inc()
                raise _busy(self.waiting, FIRST_PACE if self._pace is None else self._pace)
            job = Job(task, items)
            self._jobs.append(job)
            self._changed.notify_all()
        return job.future

    def stop(self, seconds: float) -> None:
        """Take no more jobs; finish those there are, within so many seconds, or fail them. Returns when the thread has ended, or at
        the latest when as many seconds have passed again."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        self._hurry = True
        self._thread.join(seconds)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            voice = self._load()
            log.info("the model is loaded after %.1f s", time.monotonic() - began)
            with self._changed:
                self._voice = voice
            while (batch := self._next_batch()) is not None:
                self._perform(voice, batch)
        except BaseException as error:
            self.failure = error
            self.on_failure()
        finally:
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._closing = True
            for job in self._jobs:
                job.fail(_unready(closing=True))
            self._jobs.clear()

    def _next_batch(self) -> JobBatch | None:
        """Waits for one; None when it is time to end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                self._drop_unwanted()
                if self._hurry or (self._closing and not self._jobs):
                    return None
                if self._jobs:
                    self._gather(self._jobs[0].task)
                if self._jobs:
                    return self._cut(self._jobs[0].task)

    def _gather(self, task: Task) -> None:
        """Give others a moment to come, unless the batch is full already."""
        self._changed.wait_for(lambda: self._closing or self._count(task) >= self._max_batch, self._wait)
        self._drop_unwanted()

    def _count(self, task: Task) -> int:
        return sum(job.left for job in self._jobs if job.task == task)

    def _cut(self, task: Task) -> JobBatch:
        """Take a batch of this task off the queue, the oldest jobs first; what does not fit stays where it was."""
        parts, room = [], self._max_batch
        for job in self._jobs:
            if job.task == task and room:
                items = job.take(room)
                room -= len(items)
                parts.append((job, items))
        self._jobs = [job for job in self._jobs if job.left]
        return JobBatch(task, parts)

    def _drop_unwanted(self) -> None:
        self._jobs = [job for job in self._jobs if job.wanted()]

    def _perform(self, voice: Duovox, batch: JobBatch) -> None:
        """Run a batch; whatever happens in it happens to its own jobs alone."""
        try:
            results = self._run_task(voice, batch)
        except AbandonedError:
            batch.fail(lambda: _unready(closing=True))
        except DuovoxError as error:
            self._perform_apart(voice, batch, error)
        except Exception:
            log.exception("a batch of %d failed", len(batch.items))
            batch.fail(internal_error)
        else:
            batch.deliver(results)

    def _run_task(self, voice: Duovox, batch: JobBatch) -> list[Any]:
        """The task's results, measured."""
        began, items = time.monotonic(), batch.items
        self._metrics.batch.observe(len(items))
        try:
            results = batch.task.run(voice, items, lambda: self._check(batch))
            pace = (time.monotonic() - began) / len(items)
            self._pace = pace if self._pace is None else 0.8 * self._pace + 0.2 * pace
            return results
        finally:
            self._metrics.computing.inc(time.monotonic() - began)

    def _perform_apart(self, voice: Duovox, batch: JobBatch, error: DuovoxError) -> None:
        """The error is one job's: with others in the batch, find out whose by running each alone."""
        if len(batch.parts) == 1:
            return batch.fail(lambda: mended_by_the_caller(error))
        for part in batch.parts:
            if part[0].wanted():
                self._perform(voice, JobBatch(batch.task, [part]))

    def _check(self, batch: JobBatch) -> None:
        if self._hurry or not batch.wanted():
            raise AbandonedError


def _busy(waiting: int, pace: float) -> RefusedError:
    seconds = min(max(math.ceil(waiting * pace), 1), LONGEST_WAIT)
    return RefusedError(429, "busy", f"{waiting} clips are waiting already; try again in {seconds} s", seconds)


def _unready(closing: bool) -> RefusedError:
    if closing:
        return RefusedError(503, "shutting_down", "the server is shutting down", 5)
    return RefusedError(503, "loading", "the model is still being loaded; try again in a moment", 2)
