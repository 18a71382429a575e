"""Processes beside this one: how many there may be, how they start and when they end. Standard library only.

Says which of torchrun's processes this is, and gives `sound.many` and `dataset.engines` processes that run no program of the caller's
again, and that outlive nobody.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranks() -> int:
    """How many processes torchrun started, this one among them; 1 where it was not torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Whether torchrun started this process to follow another, which speaks and writes."""
    return os.environ.get("RANK", "0") != "0"


def start_process(work: Callable[..., None], *arguments: Any, duplex: bool = False) -> tuple[Connection, BaseProcess]:
    """A spawned process that runs `work(pipe, *arguments)`, and our end of its pipe, which ends with the process. It loads only what
    `work` does, not the program that called."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=duplex)
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    with _without_main():
        process.start()
    theirs.close()  # or the pipe would not end with the process
    return ours, process


def serve_parent() -> None:
    """To be called first in such a process: interruptions are left to its parent; it ends with it, however that ends."""
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
