"""Starting a training: puts features, recipe, device and the parts already trained together and hands them to the loop.

Takes the arguments of `duovox train`; gives run folders `<out>/<part>/`, where `subnet` finds the classifier it speaks through.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from duovox.classifiers.frozen import fingerprint
from duovox.config import MelScale, Recipe, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, relabelled, restricted
from duovox.devices import DeviceName, Precision, choose_autocast, choose_device
from duovox.networks.base import TappedClassifier
from duovox.runs import Part, classifier_folder, features_for, load_classifier, read_weights, recipe_of_part, scale_of, scale_of_data
from duovox.training.classifier import ClassifierTraining
from duovox.training.judge import JudgeTraining
from duovox.training.loop import Outcome, Trainee, train
from duovox.training.subnet import SubnetTraining
from duovox.training.vocoder import VocoderTraining


def start_training(
    part: Part,
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    time_budget: float = math.inf,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    tensorboard: bool = False,
    network: nn.Module | None = None,
    on: Path | None = None,
) -> Outcome:
    """Train one part of a recipe on a feature folder into `<out>/<part>/`; seconds for `time_budget`.

    `on` is the run folder of the classifier that a subnet is trained on, if it is not in `out`. `network` is someone else's, for a
    recipe with one that only its owner can give (`ExternalConfig.source` "object"). Raises `DataError` for unfit features,
    `TrainingError` as `loop.train` does and when a part it builds on is missing.
    """
    chosen, features = choose_device(device), features_for(recipe, data)
    autocast = choose_autocast(precision, chosen)
    scale = scale_of_data(recipe, features)
    facts: dict[str, Any] = {"labels": list(features.labels), "mel_scale": to_dict(scale), "clips": len(features.indices("train"))}
    facts |= {name: value for name, value in (("languages", dict(features.languages)), ("speakers", features.speaker_note)) if value}
    trainee: Trainee
    if part == "classifier":
        trainee = ClassifierTraining(recipe, features, scale, chosen, autocast, _to_tune(out, recipe, features, network))
    elif part == "subnet":
        folder = on or classifier_folder(out, recipe)
        if recipe.subnet_sees.other_data:
            scale, features = _seen_by(folder, features)
            facts |= {"labels": list(features.labels), "mel_scale": to_dict(scale)}
        classifier = load_classifier(folder, recipe, features, network, scale)
        features = restricted(features, recipe.subnet_sees.share, recipe.subnet_sees.labels)
        facts["clips"] = len(features.indices("train"))
        facts["classifier"] = fingerprint(classifier)
        trainee = SubnetTraining(recipe, features, scale, classifier, chosen, autocast)
    elif part == "vocoder":
        trainee = VocoderTraining(recipe, features, chosen, autocast)
    else:
        trainee = JudgeTraining(recipe, features, chosen, autocast)
    settings = getattr(recipe, f"train_{part}")
    outcome = train(
        trainee,
        out / part,
        settings,
        recipe_of_part(recipe, part),
        features.digest,
        chosen,
        resume=resume,
        time_budget=time_budget,
        tensorboard=tensorboard,
        validates=len(features.indices("validation")) > 0,
        facts=facts,
    )
    if isinstance(trainee, JudgeTraining):
        trainee.judge().save(out / part / "judge.safetensors", force=True)
    return outcome


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
