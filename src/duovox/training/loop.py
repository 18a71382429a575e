"""The training loop, one for every network: steps, validation, log, checkpoints, clean stops, exact resuming.

Takes a `Trainee` (what is trained and how one step goes); gives a run folder:
`run.json` (part, recipe, data), `checkpoint.safetensors`, `log.jsonl`, `weights.safetensors` (what ships: the averages).

All randomness of step n comes from (seed, n), so a resumed run is the same run with no random state to carry over.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from duovox.config import TrainConfig
from duovox.contracts import OutputError, TrainingError
from duovox.files import differences, write_tensors
from duovox.training.checkpoint import Progress, load_checkpoint, read_header, save_checkpoint

TOLD = ("languages", "speakers")
"""Facts that say more of the same data, for those who read a run; older runs lack them."""


class Trainee(Protocol):
    """What the loop trains. `modules` (learned networks and their averages) and `optimizers` are saved and restored."""

    part: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]

    def update(self, step: int, generator: torch.Generator) -> dict[str, float]:
        """One optimiser step on batch number `step`, all randomness from `generator`; returns losses by name."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, which is not empty; the first one is the one to watch."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The tensors that ship: the averaged network's state."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: steps done in all, whether the run is complete, the last validation's figures."""

    step: int
    complete: bool
    figures: dict[str, float]


def learning_rate_factor(step: int, train: TrainConfig) -> float:
    """Share of the full rate at `step`: linear warm-up, constant, then a cosine fall to 0 over the cooldown."""
    rise = min(1.0, (step + 1) / max(1, train.warmup))
    cooling = train.cooldown * train.updates
    past = step - (train.updates - cooling)
    return rise if past <= 0 else rise * 0.5 * (1 + math.cos(math.pi * min(1.0, past / cooling)))


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of step `step`; also seeds the global ones, from which dropout draws."""
    mixed = (seed * 1_000_003 + step) % 2**63
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the context SIGINT and SIGTERM are noted, not obeyed; yields a function that says whether one came.

    Python delivers signals to the main thread alone; in another one none is ever noted.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    trainee: Trainee,
    out: Path,
    settings: TrainConfig,
    recipe: Mapping[str, Any],
    data_digest: str,
    device: torch.device,
    *,
    resume: bool = False,
    time_budget: float = math.inf,
    tensorboard: bool = False,
    validates: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train until `settings.updates`, the time budget (seconds of this call) or a stop signal; write the run folder.

    `recipe` and `facts` are plain JSON values that say what the run is; they are kept with it and compared on resuming.
    `validates` off leaves validation out, for data without a validation split.
    Raises `TrainingError` if the folder holds a run and `resume` is not set, if it was started with another recipe or data,
    and when a loss or a weight is no longer finite (the last good checkpoint stays).
    """
    run = Run(out, {"part": trainee.part, "recipe": dict(recipe), "data": data_digest, **(facts or {})}, tensorboard)
    progress = run.begin(trainee, resume)
    started, figures = time.monotonic(), {}
    with (
        stop_requests() as stop_requested,
        tqdm(total=settings.updates, initial=progress.step, desc=trainee.part, unit="step", mininterval=2) as bar,
    ):
        step = progress.step

        def here() -> Progress:
            return Progress(step, progress.seconds + time.monotonic() - started)

        while step < settings.updates and not stop_requested() and time.monotonic() - started < time_budget:
            _set_rates(trainee, learning_rate_factor(step, settings))
            losses = trainee.update(step, step_generator(settings.seed, step, device))
            _require_finite(losses, step, trainee.part, run.checkpoint)
            step += 1
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            if step % 10 == 0:
                run.log({"step": step, "seconds": round(here().seconds, 2), **losses})
            if validates and (step % settings.validate_every == 0 or step == settings.updates):
                figures = run.validate(trainee, here())
            if step % settings.checkpoint_every == 0:
                run.save(trainee, here())
        run.save(trainee, here())
    return Outcome(step, step >= settings.updates, figures)


def _set_rates(trainee: Trainee, factor: float) -> None:
    for optimizer in trainee.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _require_finite(losses: dict[str, float], step: int, part: str, checkpoint: Path) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
        raise TrainingError(f"{part}: {bad[0]} became non-finite at step {step}; lower train_{part}.rate or use --precision fp32; {kept}")


def _not_finite(modules: Mapping[str, nn.Module]) -> dict[str, float]:
    """The parameters of the modules that hold a number that is not finite, as {name: nan}; a buffer may be an infinite mask."""
    learned = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()}
    return {name: math.nan for name, value in learned.items() if not value.isfinite().all()}


class Run:
    """One run's folder and its files."""

    def __init__(self, folder: Path, facts: dict[str, Any], tensorboard: bool) -> None:
        self.folder, self.facts = folder, facts
        self.checkpoint, self.weights = folder / "checkpoint.safetensors", folder / "weights.safetensors"
        self.board = _open_board(folder) if tensorboard else None

    def begin(self, trainee: Trainee, resume: bool) -> Progress:
        """Claim the folder for a new run, or restore the one in it."""
        if self.weights.exists() and not self.checkpoint.exists():
            raise TrainingError(f"{self.weights} is there, but no checkpoint to go on from; choose another --out, or move it away")
        if not self.checkpoint.exists():
            self._claim()
            return Progress()
        if not resume:
            raise TrainingError(f"{self.folder} already holds a run; add --resume to go on with it, or choose another --out")
        self._compare(read_header(self.checkpoint)["facts"])
        progress = load_checkpoint(self.checkpoint, trainee.modules, trainee.optimizers)
        self._cut_log(progress.step)
        return progress

    def _claim(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "run.json").write_text(json.dumps(self.facts, indent=2), encoding="utf-8")
            (self.folder / "log.jsonl").write_text("", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write the run folder {self.folder}: {error.strerror}") from None

    def _compare(self, before: dict[str, Any]) -> None:
        """Refuse to resume when the part, the recipe or the data differ, naming the first setting that does."""
        old_facts, facts = ({name: value for name, value in each.items() if name not in TOLD} for each in (before, self.facts))
        for path, old, new in differences(old_facts, facts):
            raise TrainingError(f"{self.folder} was started with {path} = {old!r}, now it is {new!r}; use the old one or another --out")

    def _cut_log(self, step: int) -> None:
        """Drop lines that were logged after the checkpoint, so that the log is that of one uninterrupted run."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def log(self, line: dict[str, float]) -> None:
        """Append one JSON line."""
        try:
            with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / 'log.jsonl'}: {error.strerror}; --resume goes on from the checkpoint") from None
        if self.board:
            for name, value in line.items():
                self.board.add_scalar(name, value, line["step"])

    def validate(self, trainee: Trainee, progress: Progress) -> dict[str, float]:
        """Validate, log the figures with the prefix `valid_` and say them."""
        figures = trainee.validate()
        self.log({"step": progress.step, "seconds": round(progress.seconds, 2), **{f"valid_{k}": v for k, v in figures.items()}})
        tqdm.write(f"{trainee.part} step {progress.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        return figures

    def save(self, trainee: Trainee, progress: Progress) -> None:
        """Write the checkpoint, then the weights that ship; refuses to where a weight is not finite."""
        _require_finite(_not_finite(trainee.modules), progress.step, trainee.part, self.checkpoint)
        save_checkpoint(self.checkpoint, trainee.modules, trainee.optimizers, progress, self.facts)
        facts = {**self.facts, "step": progress.step, "seconds": round(progress.seconds)}
        write_tensors(self.weights, trainee.weights(), {"duovox": json.dumps(facts)})


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("--tensorboard needs the package tensorboard: pip install 'duovox[tensorboard]'") from None
    return SummaryWriter(os.fspath(folder / "tensorboard"))
