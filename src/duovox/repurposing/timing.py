"""How long a training will take: takes a classifier, a recipe and features, times a few updates, gives an `Estimate`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from duovox.classifiers.copies import copy_network
from duovox.classifiers.external import ExternalClassifier
from duovox.config import Recipe
from duovox.data import Features
from duovox.runs import Part, scale_of_data
from duovox.training.classifier import ClassifierTraining
from duovox.training.fit import duration, measure
from duovox.training.subnet import SubnetTraining


@dataclass(frozen=True)
class Estimate:
    """How long the training of a part takes on this machine: seconds an update and in all (validations included), and how many updates."""

    part: str
    seconds: float
    total: float
    updates: int
    device: str
    batch: int

    def __str__(self) -> str:
        whole = duration(self.total)
        return f"{self.part}: about {self.seconds:.2g} s a step ({self.device}, batch {self.batch}), {whole} for {self.updates:,} steps"


@torch.random.fork_rng(devices=[])
def estimate(
    part: Part, recipe: Recipe, classifier: ExternalClassifier, features: Features, device: torch.device, autocast: torch.dtype | None
) -> Estimate:
    """Time a few updates of a part's training, on a copy of the classifier."""
    settings, trainee = getattr(recipe, f"train_{part}"), _trainee(part, recipe, classifier, features, device, autocast)
    cost = measure(trainee, recipe, part, 0.0, device, validates=len(features.indices("validation")) > 0)
    return Estimate(part, cost.update, cost.of(settings), settings.updates, device.type, settings.batch)


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
