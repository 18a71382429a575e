"""Training a student: it learns to jump along its teacher's solutions. Takes solutions and a teacher; gives a `Trainee` to the loop.

Only the student's network trains; it begins as the teacher's subnet. For two nodes of a solution, x at sigma and x_s at s < sigma, the
jump between them has one right estimate G (`flow_map.estimate_between`), so this is a regression, with no network that bootstraps itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.bundle import Bundle
from duovox.config import NoiseConfig, Recipe, StudentConfig
from duovox.contracts import TrainingError, expand_to
from duovox.diffusion.flow_map import estimate_between, follow
from duovox.diffusion.noise import precondition
from duovox.student import Student, begin_as, build_student
from duovox.training.ema import averaged
from duovox.training.optim import Losses, Updater, adamw
from duovox.training.shares import Part
from duovox.training.solutions import Batch, Solutions

VALIDATED = 64
"""Held-out solutions that a validation looks at, at most."""


def jump_loss(estimate: Tensor, wanted: Tensor, sigma: Tensor, noise: NoiseConfig, huber: float) -> Tensor:
    """Pseudo-Huber loss (B,) of an item's root mean square error, in units of the network's output (the error over c_out)."""
    scale = expand_to(precondition(sigma, noise).c_out.reciprocal(), estimate)
    square = (scale * (estimate - wanted)).square().mean(dim=(1, 2, 3))
    return (square + huber**2).sqrt() - huber


def draw_jumps(config: StudentConfig, steps: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The nodes (count,) from which to jump, and those to reach, later ones of `steps` + 1: of the grids, and any, by `grid_share`."""
    device = generator.device
    taught = torch.tensor([jump for grid in config.grids for jump in pairwise((*grid, steps))], device=device)
    ours = taught[torch.randint(len(taught), (count,), generator=generator, device=device)]
    first = torch.randint(steps, (count,), generator=generator, device=device)
    last = first + 1 + (torch.rand(count, generator=generator, device=device) * (steps - first)).long()
    kept = torch.rand(count, generator=generator, device=device) < config.grid_share
    return torch.where(kept, ours[:, 0], first), torch.where(kept, ours[:, 1], last)


class StudentTraining:
    """A `Trainee`: the student's regression on its teacher's jumps, with moving average.

    Raises `TrainingError` for solutions of another teacher, or with fewer nodes than the student's grids have.
    """

    part = "student"
    whole_batches = ""

    def __init__(self, recipe: Recipe, solutions: Solutions, teacher: Bundle, device: torch.device, autocast: torch.dtype | None) -> None:
        _check(recipe, solutions, teacher)
        self.train, self.noise, self.config = recipe.train_student, recipe.noise, recipe.student
        self.solutions, self.device, self.autocast = solutions, device, autocast
        self.sigmas = torch.tensor(solutions.facts["sigmas"], device=device)
        torch.manual_seed(self.train.seed)
        classifier = teacher.model.classifier.network
        self.student: Student = build_student(recipe, classifier, len(solutions.labels), solutions.schooling).to(device)
        begin_as(self.student, teacher.model.score_network.state_dict())
        self.student.model.to_channels_last()
        self.network = self.student.network
        self.average = averaged(self.network, self.train.ema_decay)
        self.numbers = solutions.numbers("train")
        self.modules: dict[str, nn.Module] = {"student": self.network, "average": self.average}
        self.updater = Updater(self.network, adamw(self.network, self.train, second=0.99), self.train.clip_norm, self.average)
        self.optimizers: dict[str, Optimizer] = {"adamw": self.updater.optimizer}

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Jumps of random solutions, one each."""
        picked = torch.randint(len(self.numbers), (self.train.batch,), generator=generator, device=generator.device)
        batch = self.solutions.batch([self.numbers[place] for place in picked.tolist()], self.device)
        nodes, rows = batch.nodes, torch.arange(len(batch.nodes), device=self.device)
        first, last = draw_jumps(self.config, len(self.sigmas) - 1, len(rows), generator)
        told = {"label": batch.label, "gamma": batch.gamma}
        return {"here": nodes[rows, first], "there": nodes[rows, last], "sigma": self.sigmas[first], "to": self.sigmas[last], **told}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """The mean loss of the jumps."""
        self.network.train()
        here, there, sigma, to = (drawn[name] for name in ("here", "there", "sigma", "to"))
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            estimate = self.student(here, sigma, to, drawn["label"], drawn["gamma"])
        loss = jump_loss(estimate, estimate_between(here, there, sigma, to), sigma, self.noise, self.config.huber).mean()
        return Losses(loss, {"loss": loss})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How far the averaged student's clean mels are from its teacher's, of held-out seeds, for each number of evaluations: root mean
        square, in scaled mels. The first is that of the most evaluations."""
        held_out = self.solutions.batch(self.solutions.numbers("validation")[:VALIDATED], self.device)
        trained, self.student.model.score_network = self.student.network, self.average.module.eval()  # type: ignore[assignment]
        try:
            return {f"distance_in_{n}": self._distance(held_out, n) for n in reversed(self.student.evaluations)}
        finally:
            self.student.model.score_network = trained

    def _distance(self, batch: Batch, evaluations: int) -> float:
        nodes, label, gamma = batch.nodes, batch.label, batch.gamma

        def flow_map(noised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
            estimate: Tensor = self.student(noised, sigma, to, label, gamma)
            return estimate

        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            reached = follow(flow_map, nodes[:, 0], self.student.levels(evaluations))
        return (reached - nodes[:, -1]).square().mean().sqrt().item()

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())


def _check(recipe: Recipe, solutions: Solutions, teacher: Bundle) -> None:
    if solutions.facts["teacher"] != teacher.config.digest:
        raise TrainingError(
            f"{solutions.folder} holds solutions of another teacher ({solutions.facts['teacher'][:12]}) than {teacher.config.digest[:12]}"
        )
    if recipe.score_model == "unet":
        raise TrainingError("a student jumps with a Score Subnet, this teacher's score model is a U-Net; take a teacher with a subnet")
