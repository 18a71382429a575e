"""Workers that die, run in processes of their own by tests/dataset/test_engines.py."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from duovox.dataset.engines.local import work
from duovox.dataset.plan import Shard
from duovox.dataset.shards import Advance, Job, Maker

DEADLY = 1
"""The shard in the middle of which a worker is killed: once, or every time where the file `always` lies beside the data set."""


def kill_once(out: Path, shard: Shard) -> None:
    note = out.with_name("killed")
    if shard.number == DEADLY and (out.with_name("always").exists() or not note.exists()):
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def dying_work(pipe: Connection, job: Job, place: int) -> None:
    """As `work`, by makers that are killed behind the first clip of the deadly shard."""
    make = Maker.make

    def make_or_die(self: Maker, shard: Shard, advance: Advance = lambda clips: None) -> None:
        def counted(clips: int) -> None:
            advance(clips)
            kill_once(job.out, shard)

        make(self, shard, counted)

    Maker.make = make_or_die  # type: ignore[method-assign]
    work(pipe, job, place)
