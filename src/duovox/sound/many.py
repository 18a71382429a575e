"""Many sound files at once, by as many processes as there are cores: takes paths, gives what `audio.read_excerpt` gives, in order.

The processes are spawned and load neither torch nor the program that called: a script without `if __name__ == "__main__"` may use this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from duovox.contracts import AudioError
from duovox.processes import serve_parent, start_process, usable_cores
from duovox.sound.audio import read_excerpt
from duovox.sound.hearing import Excerpt

FEWEST = 100
"""Files that make another process worth its start."""

_TASK = 32  # files

Decoded = Excerpt | AudioError


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
    """Task i is done by process i mod `workers`, each over a pipe of its own: a process that is killed ends its pipe and holds no lock.

    A process that is ahead waits until its results are taken, so that a slow reader's memory stays small.
    """
    pipes, processes = zip(*(start_process(_send_all, tasks[number::workers], rate, samples) for number in range(workers)), strict=True)
    try:
        for number in range(len(tasks)):
            yield from pipes[number % workers].recv()
    except (EOFError, OSError):
        raise AudioError("a process that decoded sound files was killed; free some memory, or use one worker (--workers 1)") from None
    finally:
        for process in processes:
            process.terminate()
        for pipe, process in zip(pipes, processes, strict=True):
            process.join()
            pipe.close()


def _send_all(pipe: Connection, tasks: Sequence[Sequence[Path]], rate: int, samples: int) -> None:
    """What runs in a process that decodes."""
    serve_parent()
    with suppress(BrokenPipeError):  # nobody listens any more
        for task in tasks:
            pipe.send([_read(path, rate, samples) for path in task])


def _read(path: Path, rate: int, samples: int) -> Decoded:
    try:
        return read_excerpt(path, rate, samples)
    except AudioError as error:
        return error
