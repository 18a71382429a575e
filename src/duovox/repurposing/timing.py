"""How long a training will take: takes a classifier, a recipe and features, times a few updates, gives an `Estimate`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from duovox.classifiers.copies import copy_network
from duovox.classifiers.external import ExternalClassifier
from duovox.config import Recipe
from duovox.data import Features
from duovox.runs import scale_of_data
from duovox.training.classifier import ClassifierTraining
from duovox.training.fit import duration
from duovox.training.optim import update
from duovox.training.schedule import step_generator
from duovox.training.subnet import SubnetTraining

TIMED = 2
"""Updates that are timed, after one that pays for what is done once."""


@dataclass(frozen=True)
class Estimate:
    """How long the training of a part takes on this machine: seconds an update, measured, and how many updates there are."""

    part: str
    seconds: float
    updates: int
    device: str
    batch: int

    def __str__(self) -> str:
        whole = duration(self.seconds * self.updates)
        return f"{self.part}: about {self.seconds:.2g} s a step ({self.device}, batch {self.batch}), {whole} for {self.updates:,} steps"


@torch.random.fork_rng(devices=[])
def estimate(
    part: str, recipe: Recipe, classifier: ExternalClassifier, features: Features, device: torch.device, autocast: torch.dtype | None
) -> Estimate:
    """Time a few updates of a part's training, on a copy of the classifier."""
    settings, trainee = getattr(recipe, f"train_{part}"), _trainee(part, recipe, classifier, features, device, autocast)
    seconds = []
    for step in range(1 + TIMED):
        started = time.perf_counter()
        update(trainee, step, step_generator(settings.seed, step, device))
        seconds.append(time.perf_counter() - started)
    return Estimate(part, sum(seconds[1:]) / TIMED, settings.updates, device.type, settings.batch)


def _trainee(
    part: str, recipe: Recipe, classifier: ExternalClassifier, features: Features, device: torch.device, autocast: torch.dtype | None
) -> ClassifierTraining | SubnetTraining:
    """The training of a copy of the classifier, as `start_training` would begin it."""
    scale, copied = scale_of_data(recipe, features), copy_network(classifier)
    copied.scale = scale
    if part == "subnet":
        return SubnetTraining(recipe, features, scale, copied, device, autocast)
    for parameter in copied.network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return ClassifierTraining(recipe, features, scale, device, autocast, copied)
