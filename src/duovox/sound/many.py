"""Many sound files at once, by as many processes as there are cores: takes paths, gives what `audio.read_excerpt` gives, in order.

The processes are spawned and load neither torch nor the program that called: a script without `if __name__ == "__main__"` may use this.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from duovox.contracts import AudioError
from duovox.sound.audio import read_excerpt
from duovox.sound.hearing import Excerpt

FEWEST = 100
"""Files that make another process worth its start."""

_TASK = 32  # files
_AHEAD = 3  # tasks for each process that may wait or be done already: more would fill the memory of a slow reader

Decoded = Excerpt | AudioError


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_excerpts(paths: Sequence[Path], rate: int, samples: int, workers: int | None = None) -> Iterator[Decoded]:
    """For each file, in order, its excerpt of `samples` samples at `rate` Hz, or the error why there is none.

    `workers` processes (one for each usable core if left out, fewer for few files); the result is the same for any number of them.
    Raises `AudioError` where a process is killed.
    """
    workers = min(usable_cores() if workers is None else workers, len(paths) // FEWEST)
    if workers < 2:
        return (_read(path, rate, samples) for path in paths)
    return _by_processes([paths[start : start + _TASK] for start in range(0, len(paths), _TASK)], rate, samples, workers)


def _by_processes(tasks: Sequence[Sequence[Path]], rate: int, samples: int, workers: int) -> Iterator[Decoded]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_settle)
    running: deque[Future[list[Decoded]]] = deque()
    try:
        for task in tasks:
            with _without_main():  # a submission may start a process
                running.append(pool.submit(_read_all, task, rate, samples))
            if len(running) >= _AHEAD * workers:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    except BrokenProcessPool:
        raise AudioError("a process that decoded sound files was killed; free some memory, or use one worker (--workers 1)") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _read_all(paths: Sequence[Path], rate: int, samples: int) -> list[Decoded]:
    return [_read(path, rate, samples) for path in paths]


def _read(path: Path, rate: int, samples: int) -> Decoded:
    try:
        return read_excerpt(path, rate, samples)
    except AudioError as error:
        return error


def _settle() -> None:
    """In a process that decodes: leave interruptions to its parent, and end with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program that runs, which a spawned process would else run again up to its `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
