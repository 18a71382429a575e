"""One update of any network that is trained: gradients, their clipping, the optimiser's step, the moving average.

Takes `Losses` from a `Trainee`; `loop` calls `update` once a step. What is to happen to every network's gradients (their accumulation
over several batches, their mean over several processes) belongs into `Updater.step`, and nowhere else.
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


@dataclass(frozen=True)
class Losses:
    """What one batch gave: `total` is differentiated; `figures`, scalars by name, are logged."""

    total: Tensor
    figures: Mapping[str, Tensor]


class Updater:
    """The updates of one network, whose gradients are clipped to `clip_norm`; `average` follows it where there is one."""

    def __init__(self, network: nn.Module, optimizer: Optimizer, clip_norm: float, average: AveragedModel | None = None) -> None:
        self.network, self.optimizer, self.clip_norm, self.average = network, optimizer, clip_norm, average

    def step(self, loss: Tensor) -> Tensor:
        """Change the network so that `loss` falls; gives the norm of its gradient before it was clipped."""
        self.optimizer.zero_grad()
        loss.backward()
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

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """The losses of batch number `step`, all randomness from `generator`. A network trained against this one is updated here."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, which is not empty; the first one is the one to watch."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The tensors that ship: the averaged network's state."""
        ...


def update(trainee: Trainee, step: int, generator: torch.Generator) -> dict[str, float]:
    """One update on batch number `step`; its losses by name, and the norm of the gradient."""
    losses = trainee.loss(step, generator)
    norm = trainee.updater.step(losses.total)
    return {**{name: value.item() for name, value in losses.figures.items()}, "gradient_norm": norm.item()}


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
