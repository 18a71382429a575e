"""One update of any network that is trained: gradients, their clipping, the optimiser's step, the moving average.

Takes `Losses` from a `Trainee`; `loop` calls `update` once a step. What happens to every network's gradients (their accumulation over
several passes, their sum over several processes) is in `Updater`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from duovox.config import TrainConfig
from duovox.training.shares import ALONE, WHOLE, Part, Shares, sliced


@dataclass(frozen=True)
class Losses:
    """What one batch gave: `total` is differentiated; `figures`, scalars by name, are logged."""

    total: Tensor
    figures: Mapping[str, Tensor]


class Updater:
    """The updates of one network, whose gradients are clipped to `clip_norm`; `average` follows it where there is one."""

    def __init__(self, network: nn.Module, optimizer: Optimizer, clip_norm: float, average: AveragedModel | None = None) -> None:
        self.network, self.optimizer, self.clip_norm, self.average = network, optimizer, clip_norm, average

    def step(self, loss: Tensor, part: Part = WHOLE) -> Tensor:
        """Change the network so that `loss`, of one part in every process, falls; gives the norm of its gradient before it was clipped."""
        self.begin()
        self.add(loss, part)
        return self.finish(part.shares)

    def begin(self) -> None:
        self.optimizer.zero_grad()

    def add(self, loss: Tensor, part: Part = WHOLE) -> None:
        """Add the gradient of a part's loss, a mean over its rows."""
        (loss if part.weight == 1.0 else part.weight * loss).backward()

    def finish(self, shares: Shares = ALONE) -> Tensor:
        """Change the network by the gradients that all processes have added."""
        shares.add_gradients(self.network)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return norm


class Trainee(Protocol):
    """What the loop trains. `modules` (learned networks and their averages) and `optimizers` are saved and restored."""

    part: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    updater: Updater
    """Of the network whose average ships."""

    whole_batches: str
    """Why its batches cannot be cut into passes; empty where they can."""

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch number `step` and all that is random about it, from `generator` alone: tensors with a row an item."""
        ...

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """The losses of some rows of what was drawn, means over them. A network trained against this one is updated here."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, which is not empty; the first one is the one to watch."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The tensors that ship: the averaged network's state."""
        ...


def update(trainee: Trainee, step: int, generator: torch.Generator, shares: Shares = ALONE) -> dict[str, float]:
    """One update on batch number `step`; its losses by name, and the norm of the gradient."""
    drawn = trainee.draw(step, generator)
    rows = len(next(iter(drawn.values())))
    figures: dict[str, Tensor] = {}
    trainee.updater.begin()
    for own in shares.slices(rows):
        part = Part((own.stop - own.start) / rows, shares)
        losses = trainee.loss(step, drawn if part.weight == 1.0 else sliced(drawn, own), part)
        trainee.updater.add(losses.total, part)
        for name, value in losses.figures.items():
            figures[name] = figures.get(name, 0) + part.weight * value.detach().float()
    norm = trainee.updater.finish(shares)
    summed = shares.total(torch.stack(list(figures.values())))
    return {**dict(zip(figures, summed.tolist(), strict=True)), "gradient_norm": norm.item()}


def adamw(network: nn.Module, train: TrainConfig, second: float = 0.98) -> AdamW:
    """AdamW over what is learned of a network; `second` is the decay of its second moments."""
    return AdamW(decayed_groups(network, train), lr=train.rate, betas=(0.9, second))


def decayed_groups(module: nn.Module, train: TrainConfig) -> list[dict[str, object]]:
    """Parameter groups for AdamW: weight decay on matrices and kernels, none on biases, norms and gains."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1 and p.numel() > max(p.shape)]
    vectors = [p for p in trained if not (p.ndim > 1 and p.numel() > max(p.shape))]
    return [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def set_rates(optimizers: Mapping[str, Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times the one its optimiser began with."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
