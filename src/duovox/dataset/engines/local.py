"""Processes of this machine, each over a pipe of its own. One that dies is replaced, and its shard made again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from duovox.contracts import DuovoxError, GenerationError
from duovox.dataset.engines.base import DEATHS, Run, too_deadly
from duovox.dataset.plan import Shard
from duovox.dataset.shards import Advance, Job, Maker
from duovox.processes import serve_parent, start_process, usable_cores
from duovox.progress import say


@contextmanager
def local_engine(workers: int | None) -> Iterator[Run]:
    """So many processes, one for each usable core if left out; they end with the context."""
    pool = Pool(usable_cores() if workers is None else workers)
    try:
        yield pool.run
    finally:
        pool.close()


class Worker:
    """A process, and the shard that it has been given, with how many of its clips are made."""

    def __init__(self, job: Job, place: int) -> None:
        self.pipe, self.process = start_process(work, job, place, duplex=True)
        self.shard: Shard | None = None
        self.made = 0

    def give(self, shard: Shard) -> None:
        self.shard, self.made = shard, 0
        with suppress(OSError):  # it is dead: its pipe says so when it is asked
            self.pipe.send(shard)

    def end(self) -> str:
        """End it, if it still runs; how it ended, in words."""
        self.process.terminate()
        self.pipe.close()
        self.process.join()
        code = self.process.exitcode or 0
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class Pool:
    """The worker processes of a run. They start when there is something for them to do."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workers: list[Worker] = []

    def run(self, job: Job, shards: Sequence[Shard], advance: Advance) -> None:
        """Have the shards made. Raises what a worker raises, and `GenerationError` for a shard that ends its workers."""
        waiting, deaths = deque(shards), Counter[int]()
        self.workers += [Worker(job, place) for place in range(len(self.workers), min(self.size, len(shards)))]
        while waiting or any(worker.shard for worker in self.workers):
            for worker in self.workers:
                if waiting and worker.shard is None:
                    worker.give(waiting.popleft())
            busy = {worker.pipe: place for place, worker in enumerate(self.workers) if worker.shard}
            for pipe in wait(list(busy)):
                place = busy[pipe]  # type: ignore[index]
                try:
                    _listen(self.workers[place], advance)
                except (EOFError, OSError):
                    waiting.appendleft(self._replace(job, place, deaths, advance))

    def _replace(self, job: Job, place: int, deaths: Counter[int], advance: Advance) -> Shard:
        """Put a new worker in the place of a dead one; the shard that is to be made again."""
        dead = self.workers[place]
        assert dead.shard is not None
        how, number = dead.end(), dead.shard.number
        advance(-dead.made)
        deaths[number] += 1
        if deaths[number] >= DEATHS:
            dead.shard = None
            raise too_deadly(f"shard {number}", how)
        say(f"a worker ended ({how}); shard {number} is made again")
        self.workers[place] = Worker(job, place)
        return dead.shard

    def close(self) -> None:
        for worker in self.workers:
            worker.end()


def _listen(worker: Worker, advance: Advance) -> None:
    """Take one message of a worker: clips made, the end of its shard, or an error, which is raised."""
    message = worker.pipe.recv()
    if isinstance(message, DuovoxError):
        raise message
    if message is None:
        worker.shard = None
    else:
        worker.made += message
        advance(message)


def work(pipe: Connection, job: Job, place: int) -> None:
    """What runs in a worker process: makes the shards that come, says how far it is."""
    serve_parent()
    with suppress(BrokenPipeError, EOFError):  # nobody listens any more
        try:
            maker = Maker(job, place)
            while True:
                maker.make(pipe.recv(), pipe.send)
                pipe.send(None)
        except (DuovoxError, MemoryError) as error:
            pipe.send(error if isinstance(error, DuovoxError) else GenerationError("out of memory; take fewer --workers"))
