"""How an update is shared out: over the processes of a job, and over passes one after the other. Takes tensors, gives slices and sums.

Every process draws the whole batch of an update and all that is random about it from (seed, step), and computes on rows of its own; what
is a mean over the batch becomes a sum of means, weighed by rows. So any number of processes and passes gives the run of one process, to
rounding.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.nn.functional import all_reduce

from duovox.contracts import TrainingError
from duovox.processes import ranks

SAID, PATIENCE = "duovox/said", timedelta(seconds=3)
"""What the first process leaves for the second where it ends by an error, which it says; and how long the second waits for that."""


class LostProcessError(TrainingError):
    """Another process of the job is gone; that one knows why. `unsaid` where that is the first, for which the second speaks."""

    unsaid = False


@dataclass(frozen=True)
class Shares:
    """Process `rank` of `processes`, which takes its rows in `passes` passes."""

    rank: int = 0
    processes: int = 1
    passes: int = 1
    joined: bool = True
    """Whether sums go over the processes; off to time one process alone."""

    @property
    def together(self) -> bool:
        """Whether sums go over several processes."""
        return self.processes > 1 and self.joined

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def slices(self, rows: int) -> list[slice]:
        """This process's rows of so many, a slice a pass; all slices of all processes differ by a row at most."""
        parts = self.processes * self.passes
        if rows < parts:
            raise TrainingError(f"a batch of {rows} cannot be shared by {self.processes} processes in {self.passes} passes; take fewer")
        bounds = [rows * part // parts for part in range(parts + 1)]
        return [slice(bounds[part], bounds[part + 1]) for part in range(self.rank * self.passes, (self.rank + 1) * self.passes)]

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over the processes, outside of the graph."""
        value = value.detach().clone()
        if self.together:
            with lost_processes():
                dist.all_reduce(value)
        return value

    def add_gradients(self, network: nn.Module) -> None:
        """Replace every gradient of a network by its sum over the processes."""
        if not self.together:
            return
        taught = [parameter for parameter in network.parameters() if parameter.grad is not None]  # the same in all processes
        summed = self.total(torch.cat([parameter.grad.reshape(-1) for parameter in taught if parameter.grad is not None]))
        for parameter, part in zip(taught, summed.split([p.numel() for p in taught]), strict=True):
            parameter.grad = part.view_as(parameter)

    def agreed(self, value: Any) -> Any:
        """What the leading process says."""
        if not self.together:
            return value
        said = [value]
        with lost_processes():
            dist.broadcast_object_list(said, src=0)
        return said[0]

    def told(self, value: Any) -> list[Any]:
        """What every process says, in their order."""
        if not self.together:
            return [value]
        said: list[Any] = [None] * self.processes
        with lost_processes():
            dist.all_gather_object(said, value)
        return said

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether some process says yes."""
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0) if self.together else flag


ALONE = Shares()


@dataclass(frozen=True)
class Part:
    """The rows of an update that a loss is asked for: `weight` is their share of all rows."""

    weight: float = 1.0
    shares: Shares = ALONE

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the whole batch of what has this mean over the part; outside of the graph."""
        return value.detach() if self.weight == 1.0 else self.shares.total(self.weight * value)


WHOLE = Part()


def require_same_step(step: int, shares: Shares) -> None:
    """Raise `TrainingError`, in all processes, where they do not begin at one step: they see different folders."""
    steps = shares.told(step)
    if len(set(steps)) > 1:
        raise TrainingError(f"the processes begin at steps {', '.join(map(str, steps))}; give all the same --out, on a shared disk")


@contextmanager
def shared_job(device: torch.device, passes: int = 1) -> Iterator[Shares]:
    """The shares of this process in the job that `torchrun` started it for, or alone. Joins the other processes, unless that was done
    before, and leaves them, all at once: what the first has written is there for the others.

    Raises `TrainingError` where they cannot be reached, or fewer than one pass is asked for.
    """
    if passes < 1:
        raise TrainingError(f"--accumulate must be at least 1, not {passes}")
    if ranks() == 1:
        yield Shares(passes=passes)
        return
    joined = dist.is_initialized()
    if not joined:
        _join(device)
    try:
        yield Shares(dist.get_rank(), dist.get_world_size(), passes)
        with lost_processes():
            dist.barrier()
    except BaseException as error:
        if dist.get_rank() == 0:
            with suppress(RuntimeError):  # the store may be gone as well
                _store().set(SAID, "")
        elif isinstance(error, LostProcessError):
            error.unsaid = dist.get_rank() == 1 and not _first_says()
        raise
    finally:
        if not joined:
            dist.destroy_process_group()


def _store() -> Any:
    """What the processes keep in common, with the agent that started them."""
    return dist.distributed_c10d._get_default_store()


def _first_says() -> bool:
    """Whether the first process was there to say what happened."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which all are told to end, which this one is about to
    try:
        _store().wait([SAID], PATIENCE)
    except RuntimeError:
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    return True


def says_first(line: str) -> bool:
    """Whether this process is the first of its job to say this; always where it is alone, or the others cannot be asked."""
    if ranks() == 1:
        return True
    try:
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=PATIENCE)
        count: int = store.add(f"duovox/{hashlib.sha256(line.encode()).hexdigest()}", 1)
        return count == 1
    except (KeyError, ValueError, RuntimeError):
        return True


def _join(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the other processes of this job cannot be reached ({_first_line(error)}); start it with torchrun") from None


@contextmanager
def lost_processes() -> Iterator[None]:
    """Say in one line that another process is gone, where torch says it in many."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"another process of this job ended ({_first_line(error)}); --resume goes on from the last checkpoint"
        ) from None


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*\]\s*", "", line)[:120]  # where in torch it happened


def sliced(drawn: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in drawn.items()}


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the rows of all processes of a job; torch's own of this kind works on CUDA alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        values = x.float()
        count = _over_processes(values.new_tensor(float(values[:, 0].numel())))
        mean = _over_processes(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shaped: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return shaped.to(x.dtype)


def _over_processes(value: Tensor) -> Tensor:
    """The sum over the processes, in the graph of all of them."""
    with lost_processes():
        summed: Tensor = all_reduce(value)
        return summed


def share_batch_norms(modules: Iterable[nn.Module]) -> None:
    """Let the batch normalisations among these modules be of whole batches."""
    for module in modules:
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
