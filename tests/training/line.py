"""What the tests of the loop and of run folders share: a `Trainee` that fits a line, and how to look at its run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from duovox.config import TrainConfig
from duovox.training.ema import averaged
from duovox.training.loop import Outcome, train
from duovox.training.optim import Losses, Updater
from duovox.training.shares import Part

CPU = torch.device("cpu")
SETTINGS = TrainConfig(updates=40, batch=4, rate=0.05, warmup=5, ema_decay=0.9, validate_every=4, checkpoint_every=10, seed=3)


class Line:
    """A `Trainee` that fits a line with dropout; `before` is called with every step."""

    part = "line"
    whole_batches = ""

    def __init__(self, before: Callable[[int], None] = lambda step: None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.3), nn.Linear(5, 1))
        self.average = averaged(self.network, SETTINGS.ema_decay)
        self.modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        self.optimizers = {"adamw": torch.optim.AdamW(self.network.parameters(), lr=SETTINGS.rate)}
        self.updater = Updater(self.network, self.optimizers["adamw"], SETTINGS.clip_norm, self.average)
        self.before, self.steps, self.rates = before, list[int](), list[float]()

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"x": torch.randn(4, 3, generator=generator)}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        self.before(step)
        self.steps.append(step)
        self.rates.append(self.optimizers["adamw"].param_groups[0]["lr"])
        x = drawn["x"]
        loss = (self.network(x)[:, 0] - x.sum(1)).square().mean()
        return Losses(loss, {"loss": loss})

    def validate(self) -> dict[str, float]:
        return {"weight": self.average.module[0].weight.sum().item()}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())


def run(trainee: Line, out: Path, settings: TrainConfig = SETTINGS, data: str = "data", **options: Any) -> Outcome:
    return train(trainee, out, settings, {"rate": settings.rate}, data, CPU, **options)


def at(wanted: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Do something before one step."""
    return lambda step: action() if step == wanted else None


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise RuntimeError("power failure")


def tensors(folder: Path) -> dict[str, Tensor]:
    """Everything that a run's checkpoint and weights hold."""
    files = ("checkpoint.safetensors", "weights.safetensors")
    return {f"{file}/{name}": value for file in files for name, value in load_file(folder / file).items()}


def log(folder: Path) -> list[dict[str, float]]:
    """The log without its times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert log(one) == log(other)
