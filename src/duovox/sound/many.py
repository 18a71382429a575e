"""Many sound files at once, by as many processes as there are cores: takes paths, gives what `audio.read_excerpt` gives, in order.

The processes are spawned and load neither torch nor the program that called: a script without `if __name__ == "__main__"` may use
this. Each has its share of the files and a pipe of its own, so that one that is killed is noticed at once and blocks nobody.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import Queue

from duovox.contracts import AudioError
from duovox.sound.audio import read_excerpt
from duovox.sound.hearing import Excerpt

FEWEST = 100
"""Files that make another process worth its start."""

_TASK = 32  # files that are decoded and sent together
_AHEAD = 8  # tasks of a process that may wait to be taken: more would fill the memory where the taker is slow

Result = Excerpt | AudioError


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_excerpts(paths: Sequence[Path], rate: int, samples: int, workers: int | None = None) -> Iterator[Result]:
    """For each file, in order, its excerpt of `samples` samples at `rate` Hz, or the error why there is none.

    `workers` processes (one for each usable core if left out, fewer for few files); the result is the same for any number of them.
    Raises `AudioError` where a process is killed.
    """
    workers = min(usable_cores() if workers is None else workers, len(paths) // FEWEST)
    if workers < 2:
        return (_read(path, rate, samples) for path in paths)
    return _by_processes([paths[start : start + _TASK] for start in range(0, len(paths), _TASK)], rate, samples, workers)


def _by_processes(tasks: Sequence[Sequence[Path]], rate: int, samples: int, workers: int) -> Iterator[Result]:
    """Task n is done by process n modulo `workers`."""
    started: list[tuple[SpawnProcess, Connection]] = []
    try:
        for number in range(workers):
            started.append(_start(tasks[number::workers], rate, samples))
        for number in range(len(tasks)):
            yield from _received(started[number % workers][1])
    finally:
        for process, _ in started:
            process.terminate()
        for process, results in started:
            process.join()
            results.close()


def _start(tasks: Sequence[Sequence[Path]], rate: int, samples: int) -> tuple[SpawnProcess, Connection]:
    """A process that does these tasks, and where its results come out."""
    context = multiprocessing.get_context("spawn")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, tasks, rate, samples), daemon=True)
    with _without_main():
        process.start()
    sender.close()  # the process alone holds it now: its end is the pipe's end
    return process, results


def _received(results: Connection) -> list[Result]:
    try:
        done: list[Result] = results.recv()
    except (EOFError, OSError):
        raise AudioError("a process that decoded sound files was killed; free some memory, or use one worker (--workers 1)") from None
    return done


def _work(sender: Connection, tasks: Sequence[Sequence[Path]], rate: int, samples: int) -> None:
    """In a process of its own: decode, while another thread sends what is done. Interruptions are for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ready: Queue[list[Result] | None] = Queue(_AHEAD)
    thread = threading.Thread(target=_send, args=(sender, ready))
    thread.start()
    for task in tasks:
        ready.put([_read(path, rate, samples) for path in task])
    ready.put(None)
    thread.join()


def _send(sender: Connection, ready: Queue[list[Result] | None]) -> None:
    """Send until there is nothing more; end the process where nobody takes it any longer, because the parent is gone."""
    try:
        while (results := ready.get()) is not None:
            sender.send(results)
    except OSError:
        os._exit(1)


def _read(path: Path, rate: int, samples: int) -> Result:
    try:
        return read_excerpt(path, rate, samples)
    except AudioError as error:
        return error


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program that runs, which a spawned process would else run again up to its `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
