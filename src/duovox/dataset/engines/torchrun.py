"""The ranks of a job that torchrun started: the first plans, counts and speaks, all make shards, in turn, over a shared folder.

A rank that dies takes the job with it; the same command goes on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import torch

from duovox.contracts import DuovoxError, GenerationError
from duovox.dataset.engines.base import Run
from duovox.dataset.plan import Shard
from duovox.dataset.shards import Advance, Job, Maker
from duovox.training.shares import LostProcessError, Shares, shared_job

LOST = "another process of this job ended; the same command goes on with what is there"


@contextmanager
def torchrun_engine() -> Iterator[Run]:
    """For the first rank: all ranks make shards, until the context ends."""
    with _joined() as shares:
        ranks = _Ranks(shares)
        try:
            yield ranks.run
        except LostProcessError:
            raise GenerationError(LOST) from None
        except BaseException:
            with suppress(LostProcessError):
                ranks.dismiss()
            raise
        ranks.dismiss()


def follow() -> None:
    """For all other ranks: make one's part of what the first asks for, until it asks no more."""
    with _joined() as shares:
        ranks = _Ranks(shares)
        while ranks.take_part():
            pass


@contextmanager
def _joined() -> Iterator[Shares]:
    """The job; torchrun ends the ranks that are left by SIGTERM where one has died."""
    before = signal.signal(signal.SIGTERM, _raise_lost)
    try:
        with shared_job(torch.device("cpu")) as shares:
            yield shares
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_lost(_signal: int, _frame: FrameType | None) -> None:
    raise LostProcessError(LOST)


class _Ranks:
    """This rank among the others. Everyone makes its share of what the first says, shard by shard, and tells how it went."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.maker: Maker | None = None

    def run(self, job: Job, shards: Sequence[Shard], advance: Advance) -> None:
        """Raises the first error that one of the ranks met."""
        self.shares.agreed((job, list(shards)))
        if error := self._make(job, shards, advance):
            raise error

    def take_part(self) -> bool:
        """Do what the first rank says next; False where that is nothing more."""
        asked = self.shares.agreed(None)
        if asked is not None:
            job, shards = asked
            self._make(job, shards, lambda clips: None)  # the first rank says what went wrong
        return asked is not None

    def dismiss(self) -> None:
        """Tell the others that there is nothing more to do."""
        self.shares.agreed(None)

    def _make(self, job: Job, shards: Sequence[Shard], advance: Advance) -> DuovoxError | None:
        """All ranks end where one of them has met an error, the first of which is given."""
        step = self.shares.processes
        for start in range(0, len(shards), step):
            turn = shards[start : start + step]
            told = self.shares.told(self._make_one(job, turn[self.shares.rank]) if self.shares.rank < len(turn) else None)
            if errors := [error for error in told if error is not None]:
                return errors[0]
            advance(sum(len(shard.items) for shard in turn))
        return None

    def _make_one(self, job: Job, shard: Shard) -> DuovoxError | None:
        try:
            self.maker = self.maker or Maker(job, int(os.environ.get("LOCAL_RANK", "0")))
            self.maker.make(shard)
        except LostProcessError:
            raise
        except DuovoxError as error:
            return error
        return None
