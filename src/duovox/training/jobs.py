"""What a training is made of: takes a part, a recipe and data, and what the part builds on; gives a `Job`, from which trainees are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from duovox.bundle import Bundle
from duovox.classifiers.frozen import fingerprint
from duovox.config import MelScale, Recipe, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, relabelled, restricted
from duovox.networks.base import TappedClassifier
from duovox.runs import Part, classifier_folder, load_classifier, read_weights, scale_of, scale_of_data
from duovox.training.classifier import ClassifierTraining
from duovox.training.judge import JudgeTraining
from duovox.training.optim import Trainee
from duovox.training.solutions import open_solutions
from duovox.training.speaker import SpeakerTraining
from duovox.training.student import StudentTraining
from duovox.training.subnet import SubnetTraining
from duovox.training.vocoder import VocoderTraining


@dataclass(frozen=True)
class Job:
    """A part, its recipe and data, what is to be known of its run, and its making: a fresh `Trainee` at every call."""

    part: Part
    recipe: Recipe
    digest: str
    validates: bool
    device: torch.device
    facts: dict[str, Any]
    make: Callable[[Recipe], Trainee]


def job_of(
    part: Part,
    recipe: Recipe,
    features: Features,
    out: Path,
    on: Bundle | str | Path | None,
    network: nn.Module | None,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Job:
    scale = scale_of_data(recipe, features)
    facts: dict[str, Any] = {"labels": list(features.labels), "mel_scale": to_dict(scale), "clips": len(features.indices("train"))}
    facts |= {name: value for name, value in (("languages", dict(features.languages)), ("speakers", features.speaker_note)) if value}
    if part == "subnet":
        if isinstance(on, Bundle):
            classifier, scale = on.model.classifier.network, on.config.mel_scale
            features = relabelled(features, on.config.labels, unknown="unlabelled")
        else:
            folder = Path(on) if on else classifier_folder(out, recipe)
            scale, features = _seen_by(folder, features) if recipe.subnet_sees.other_data else (scale, features)
            classifier = load_classifier(folder, recipe, features, network, scale)
        features = restricted(features, recipe.subnet_sees.share, recipe.subnet_sees.labels)
        facts |= {"labels": list(features.labels), "mel_scale": to_dict(scale)}
        facts |= {"clips": len(features.indices("train")), "classifier": fingerprint(classifier)}

    def make(recipe: Recipe) -> Trainee:
        if part == "classifier":
            return ClassifierTraining(recipe, features, scale, device, autocast, _to_tune(out, recipe, features, network))
        if part == "subnet":
            return SubnetTraining(recipe, features, scale, classifier, device, autocast)
        if part == "speaker":
            return SpeakerTraining(recipe, features, scale, device, autocast)
        return (VocoderTraining if part == "vocoder" else JudgeTraining)(recipe, features, device, autocast)

    return Job(part, recipe, features.digest, len(features.indices("validation")) > 0, device, facts, make)


def student_job(
    recipe: Recipe, data: Path, teacher: Bundle, before: dict[str, Any], device: torch.device, autocast: torch.dtype | None
) -> Job:
    """A run that was begun stays with the solutions it was begun with, though there may be more by now."""
    solutions = open_solutions(data, before.get("shards"))
    whole = replace(teacher.config.recipe, student=recipe.student, train_student=recipe.train_student)
    facts = {
        "labels": list(solutions.labels),
        "mel_scale": to_dict(teacher.config.mel_scale),
        "clips": len(solutions.numbers("train")),
        "shards": solutions.shards,
        "classifier": solutions.facts["classifier"],
        "teacher": teacher.config.digest,
        "schooling": to_dict(solutions.schooling),
    }

    def make(recipe: Recipe) -> Trainee:
        return StudentTraining(recipe, solutions, teacher, device, autocast)

    return Job("student", whole, solutions.digest, len(solutions.numbers("validation")) > 0, device, facts, make)


def _to_tune(out: Path, recipe: Recipe, features: Features, network: nn.Module | None) -> TappedClassifier | None:
    """The copy of someone else's classifier that a training makes familiar with noise; None where the classifier is ours."""
    if recipe.external is None:
        return None
    if not recipe.external.conditioned:
        raise TrainingError(
            f"recipe {recipe.name} uses its classifier unmodified; it is trained on noise only with external.conditioned = true"
        )
    classifier = load_classifier(out / "original", recipe, features, network)
    parameters = [parameter for parameter in classifier.get_submodule("network").parameters() if parameter.is_floating_point()]
    if not any(parameter.requires_grad for parameter in parameters):  # its owner had frozen it
        for parameter in parameters:
            parameter.requires_grad_()
    return classifier


def _seen_by(folder: Path, features: Features) -> tuple[MelScale, Features]:
    """The mel scale of a classifier's run, and other data than it was trained on as it would number them."""
    facts, _ = read_weights(folder)
    return scale_of(facts), relabelled(features, facts["labels"], unknown="unlabelled")
