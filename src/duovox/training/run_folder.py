"""One run's folder, held by one process: `run.json` (part, recipe, data), `checkpoint.safetensors`, `log.jsonl`, `weights.safetensors`.

Takes the state of a `Trainee` from `loop`; gives it back on resuming. `weights.safetensors` is what ships: the averages.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from duovox.contracts import OutputError, TrainingError
from duovox.files import claimed, differences, remove_leftovers, write_tensors, write_whole
from duovox.runs import settled
from duovox.training.checkpoint import Progress, load_checkpoint, read_header, save_checkpoint
from duovox.training.display import say
from duovox.training.optim import Trainee

TOLD = ("languages", "speakers")
"""Facts that say more of the same data, for those who read a run; older runs lack them."""


@contextmanager
def held(folder: Path, facts: dict[str, Any], tensorboard: bool) -> Iterator[RunFolder]:
    """A run's folder, made if missing, for this process alone. Raises `OutputError` where another run writes to it."""
    writer = _board_writer() if tensorboard else None
    with claimed(folder, "a training"):
        yield RunFolder(folder, facts, writer(os.fspath(folder / "tensorboard")) if writer else None)


@contextmanager
def followed(folder: Path, facts: dict[str, Any]) -> Iterator[RunFolder]:
    """A run's folder for a process that follows the one that holds it: it reads, and writes nothing."""
    yield FollowedFolder(folder, facts)


class RunFolder:
    """The files of a run. `facts`, plain JSON values, say what the run is."""

    def __init__(self, folder: Path, facts: dict[str, Any], board: Any = None) -> None:
        self.folder, self.facts, self.board = folder, facts, board
        self.checkpoint, self.weights = folder / "checkpoint.safetensors", folder / "weights.safetensors"
        self.log_file = folder / "log.jsonl"

    def begin(self, trainee: Trainee, resume: bool, first_step: int = 0) -> Progress:
        """Start a new run in the folder, or restore the one in it. Raises `TrainingError` where that is not what was asked for."""
        if self.weights.exists() and not self.checkpoint.exists():
            raise TrainingError(f"{self.weights} is there, but no checkpoint to go on from; choose another --out, or move it away")
        remove_leftovers([self.checkpoint, self.weights, self.log_file, self.folder / "run.json"])
        if not self.checkpoint.exists():
            write_whole(self.folder / "run.json", json.dumps(self.facts, indent=2).encode(), force=True)
            write_whole(self.log_file, b"", force=True)
            return Progress(first_step)
        if not resume:
            raise TrainingError(f"{self.folder} already holds a run; add --resume to go on with it, or choose another --out")
        self._compare(read_header(self.checkpoint)["facts"])
        progress = load_checkpoint(self.checkpoint, trainee.modules, trainee.optimizers)
        self._cut_log(progress.step)
        return progress

    def _compare(self, before: dict[str, Any]) -> None:
        """Refuse to resume when the part, the recipe or the data differ, naming the first setting that does."""
        old_facts, facts = (settled({name: value for name, value in each.items() if name not in TOLD}) for each in (before, self.facts))
        for path, old, new in differences(old_facts, facts):
            raise TrainingError(f"{self.folder} was started with {path} = {old!r}, now it is {new!r}; use the old one or another --out")

    def _cut_log(self, step: int) -> None:
        """Drop lines that were logged after the checkpoint, so that the log is that of one uninterrupted run, and damaged ones."""
        try:
            lines = self.log_file.read_bytes().splitlines() if self.log_file.exists() else []
        except OSError as error:
            raise OutputError(f"cannot read {self.log_file}: {error.strerror}; move it away, the run needs it no more") from None
        read = {line: logged_step(line) for line in lines}
        damaged = sum(read[line] is None for line in lines)
        if damaged:
            say(f"{self.log_file}: {damaged} damaged {'lines' if damaged > 1 else 'line'} left out")
        kept = [line + b"\n" for line in lines if (logged := read[line]) is not None and logged <= step]
        write_whole(self.log_file, b"".join(kept), force=True)

    def log(self, line: Mapping[str, float]) -> None:
        """Append one JSON line."""
        try:
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.log_file}: {error.strerror}; --resume goes on from the checkpoint") from None
        if self.board:
            for name, value in line.items():
                self.board.add_scalar(name, value, line["step"])

    def validate(self, trainee: Trainee, progress: Progress) -> dict[str, float]:
        """Validate, log the figures with the prefix `valid_` and say them."""
        figures = trainee.validate()
        self.log({"step": progress.step, "seconds": round(progress.seconds, 2), **{f"valid_{k}": v for k, v in figures.items()}})
        say(f"{trainee.part} step {progress.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        return figures

    def save(self, trainee: Trainee, progress: Progress) -> None:
        """Write the checkpoint, then the weights that ship; refuses to where a weight is not finite."""
        self.require_finite(not_finite(trainee.modules), progress.step)
        save_checkpoint(self.checkpoint, trainee.modules, trainee.optimizers, progress, self.facts)
        facts = {**self.facts, "step": progress.step, "seconds": round(progress.seconds)}
        write_tensors(self.weights, trainee.weights(), {"duovox": json.dumps(facts)})

    def require_finite(self, values: Mapping[str, float], step: int) -> None:
        """Raise `TrainingError` for the first value that is not finite, and say what is left of the run."""
        part = self.facts["part"]
        for name in [name for name, value in values.items() if not math.isfinite(value)][:1]:
            kept = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.exists() else "no checkpoint was written yet"
            raise TrainingError(f"{part}: {name} became non-finite at step {step}; lower train_{part}.rate or use --precision fp32; {kept}")


class FollowedFolder(RunFolder):
    """A run's folder that another process writes."""

    def begin(self, trainee: Trainee, resume: bool, first_step: int = 0) -> Progress:
        if not (resume and self.checkpoint.exists()):
            return Progress(first_step)
        self._compare(read_header(self.checkpoint)["facts"])
        return load_checkpoint(self.checkpoint, trainee.modules, trainee.optimizers)

    def log(self, line: Mapping[str, float]) -> None:
        pass

    def save(self, trainee: Trainee, progress: Progress) -> None:
        pass


def logged_step(line: bytes) -> int | None:
    """The step of a line of `log.jsonl`; None for a line that a crash or a full disk damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None


def recorded_facts(folder: Path) -> dict[str, Any]:
    """The facts of the run that a folder's checkpoint is of; empty where it has none. Raises `TrainingError` as `read_header` does."""
    checkpoint = folder / "checkpoint.safetensors"
    return dict(read_header(checkpoint)["facts"]) if checkpoint.exists() else {}


def not_finite(modules: Mapping[str, nn.Module]) -> dict[str, float]:
    """The parameters of the modules that hold a number that is not finite, as {name: nan}; a buffer may be an infinite mask."""
    learned = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()}
    return {name: math.nan for name, value in learned.items() if not value.isfinite().all()}


def _board_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("--tensorboard needs the package tensorboard: pip install 'duovox[tensorboard]'") from None
    return SummaryWriter
