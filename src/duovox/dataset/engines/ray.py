"""A Ray cluster, there or started on this machine: plan -> Ray Data's `map_batches` with an actor class -> shards written by the actors.

A row of the plan is a shard, for Ray Data neither keeps an order nor the size of a batch. An actor that dies is started again by Ray, and
its shard made again. On a cluster of several machines the folder and the bundle must be where all see them.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duovox.contracts import ConfigError, DuovoxError, GenerationError, OutputError
from duovox.dataset.engines.base import DEATHS, Run, too_deadly
from duovox.dataset.plan import Shard
from duovox.dataset.records import FOLDER, require_folder
from duovox.dataset.shards import Advance, Job, Maker
from duovox.processes import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""What Ray is told where the user says nothing else: no report to its makers, workers as eager as other processes, no notes of its own."""

STORE = 128 * 2**20
"""Bytes of the object store of a cluster of our own: plans and counts alone go through it."""

PATIENCE = 5.0
"""Seconds to wait for the port of a cluster; Ray itself waits for minutes, and then ends the process."""


@contextmanager
def ray_engine(workers: int | None, address: str | None) -> Iterator[Run]:
    """So many actors, one for each CPU if left out. Raises `GenerationError` where Ray or the cluster is missing, `ConfigError` for more
    workers than it has CPUs."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray = _import_ray()
    with _signals_kept():
        _connect(ray, workers, address)
    try:
        yield partial(_run, choose_workers(workers, int(ray.cluster_resources().get("CPU", 0))))
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """What SIGTERM and SIGINT do is what they did before: Ray puts a handler of its own in their place, and leaves it there."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    kept = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise GenerationError(f"{error.name} is not installed: pip install 'duovox[ray]', or take --engine local") from None
    return ray


def _connect(ray: Any, workers: int | None, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is None:
            cores = usable_cores() if workers is None else workers
            ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=STORE, **quiet)
        else:
            _require_port(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        where = "cannot be started here" if address is None else f"at {address} cannot be reached"
        raise GenerationError(f"a Ray cluster {where} ({_first_line(error)}); see `ray status`, or take --engine local") from None


def choose_workers(asked: int | None, cores: int) -> int:
    """How many actors: one for each CPU if left out. Raises `ConfigError` for more than a cluster has, which Ray would wait for."""
    if cores < (asked or 1):
        raise ConfigError(f"--workers {asked or 1}: the Ray cluster has {cores} CPUs; take fewer, or start more nodes")
    return asked or cores


def _require_port(address: str) -> None:
    """Raise `OSError` where nobody listens at host:port. Other forms of an address are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


class ShardActor:
    """What Ray Data runs: a worker that takes rows of the plan and gives rows of how it went."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.maker: Maker | None = None

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        told = [self._make(pickle.loads(bytes(row))) for row in rows["shard"]]
        return {"clips": [clips for clips, _ in told], "error": [error for _, error in told]}

    def _make(self, shard: Shard) -> tuple[int, bytes]:
        """Clips made, and the error there was, pickled; none is empty."""
        try:
            require_folder(self.job.out)
            begun = note_beginning(self.job.out, shard.number)
            self.maker = self.maker or Maker(self.job)
            self.maker.make(shard)
            begun.unlink(missing_ok=True)
        except DuovoxError as error:
            return 0, pickle.dumps(error)
        except OSError as error:
            return 0, pickle.dumps(OutputError(f"cannot write to {self.job.out}: {error.strerror or error}; the same command goes on"))
        return len(shard.items), b""


def note_beginning(out: Path, shard: int) -> Path:
    """Leave a note that a worker begins with a shard; its name is one of those that are removed in the end. Ray starts dead actors again
    without end, so the notes count. Raises `GenerationError` for a shard that has ended its workers too often."""
    for attempt in range(DEATHS):
        note = out / FOLDER / f".begun-{shard}.{attempt}.partial"
        if not note.exists():
            note.touch()
            return note
    raise too_deadly(f"shard {shard}", "as Ray tells")


def _run(workers: int, job: Job, shards: Sequence[Shard], advance: Advance) -> None:
    """Raises what a worker raises, and `GenerationError` where Ray gives up."""
    import ray

    if not shards:
        return
    _silence()
    plan = ray.data.from_items([{"shard": pickle.dumps(shard)} for shard in shards], override_num_blocks=len(shards))
    made = plan.map_batches(
        ShardActor,
        batch_size=1,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards)), max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=1 if job.device == "cuda" else None,
    )
    try:
        for row in made.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            advance(row["clips"])
    except ray.exceptions.RayError as error:
        raise GenerationError(f"Ray ended the run ({_last_line(error)}); the same command goes on") from None


def _silence() -> None:
    """No bars and notes of Ray's own between ours."""
    import logging

    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    with suppress(AttributeError):  # a setting that not every version has
        context.execution_options.verbose_progress = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _first_line(error: Exception) -> str:
    return _lines(error)[0][:200]


def _last_line(error: Exception) -> str:
    """The cause of an error in a task: Ray writes the whole trace before it."""
    return _lines(error)[-1][:200]


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
