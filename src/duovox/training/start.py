"""Starting a training: puts features, recipe, device and the parts already trained together and hands them to the loop.

Takes the arguments of `duovox train`; gives run folders `<out>/<part>/`, where `subnet` finds the classifier it speaks through.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from duovox.bundle import CODE_FILES
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.frozen import fingerprint
from duovox.classifiers.loading import rebuild_network
from duovox.config import MelScale, Recipe, SeenConfig, from_dict, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, open_features, relabelled, restricted
from duovox.mel import fit_scale
from duovox.model import AnyClassifier, build_classifier, build_external
from duovox.training.classifier import ClassifierTraining
from duovox.training.judge import JudgeTraining
from duovox.training.loop import Outcome, Trainee, differences, train
from duovox.training.subnet import SubnetTraining
from duovox.training.vocoder import VocoderTraining

Part = Literal["classifier", "subnet", "vocoder", "judge"]
DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: DeviceName) -> torch.device:
    """`auto` takes CUDA where there is one. Raises `TrainingError` where `cuda` is asked for and missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_autocast(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type: `auto` takes bf16 on CUDA and on processors with AMX, where it is faster, else none (fp32)."""
    processor: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch we take
    fast = device.type == "cuda" or bool(processor.get("amx_bf16"))
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and fast) else None


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


def features_for(recipe: Recipe, data: Path) -> Features:
    """The features of a folder, numbered by the classifier's own labels where it is someone else's. Raises `DataError`."""
    features = open_features(data, recipe.mel)
    unknown: Literal["refused", "unlabelled"] = "unlabelled" if recipe.subnet_sees.other_data else "refused"
    return relabelled(features, recipe.external.labels, unknown) if recipe.external else features


def recipe_of_part(recipe: Recipe, part: Part | Literal["original"]) -> dict[str, Any]:
    """The settings that decide a part: another part's may change between its runs without making them different runs."""
    common = ("mel", "mel_scale", "noise")
    if recipe.external is None:
        classifier: tuple[str, ...] = (*common, "classifier", "train_classifier")
    else:
        classifier = (*common, "external", *["train_classifier"] * recipe.external.conditioned)
    score = ("score_model", "unet") if recipe.score_model == "unet" else ("subnet",)
    seen = ("subnet_sees",) if recipe.subnet_sees != SeenConfig() else ()
    needed = {
        "original": (*common, "external"),
        "classifier": classifier,
        "subnet": (*classifier, *seen, *score, "train_subnet"),
        "vocoder": ("mel", "vocoder", "train_vocoder"),
        "judge": (*["judge"] * (recipe.judge != Recipe.judge), "train_judge"),
    }[part]
    settings = to_dict(recipe)
    return {"name": recipe.name, **{name: settings[name] for name in needed}}


def classifier_folder(out: Path, recipe: Recipe) -> Path:
    """Where a recipe's frozen classifier lies: `original` for someone else's as it came, else `classifier`."""
    return out / ("original" if recipe.external and not recipe.external.conditioned else "classifier")


def _to_tune(out: Path, recipe: Recipe, features: Features, network: nn.Module | None) -> ExternalClassifier | None:
    """The copy of someone else's classifier that a training makes familiar with noise; None where the classifier is ours."""
    if recipe.external is None:
        return None
    if not recipe.external.conditioned:
        raise TrainingError(
            f"recipe {recipe.name} uses its classifier as it came; it is trained on noise only with external.conditioned = true"
        )
    classifier = load_classifier(out / "original", recipe, features, network)
    assert isinstance(classifier, ExternalClassifier)
    parameters = [parameter for parameter in classifier.network.parameters() if parameter.is_floating_point()]
    if not any(parameter.requires_grad for parameter in parameters):  # its owner had frozen it
        for parameter in parameters:
            parameter.requires_grad_()
    return classifier


def read_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts and the tensors of a run's `weights.safetensors`. Raises `TrainingError` where there is no such run."""
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise TrainingError(f"{folder} holds no trained {folder.name}; run `duovox train {folder.name}` with the same --out first")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["duovox"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); train this part again") from None


def _seen_by(folder: Path, features: Features) -> tuple[MelScale, Features]:
    """The mel scale of a classifier's run, and other data than it was trained on as it would number them."""
    facts, _ = read_weights(folder)
    return scale_of(facts), relabelled(features, facts["labels"], unknown="unlabelled")


def load_classifier(
    folder: Path, recipe: Recipe, features: Features, network: nn.Module | None = None, scale: MelScale | None = None
) -> AnyClassifier:
    """The classifier of a run folder, for the same recipe, labels and mel scale (that of the features if left out). Raises
    `TrainingError`."""
    facts, tensors = read_weights(folder)
    for path, old, new in differences(facts["recipe"], recipe_of_part(recipe, "original" if folder.name == "original" else "classifier")):
        raise TrainingError(f"{folder} was trained with {path} = {old!r}, this recipe has {new!r}; use the recipe it was trained with")
    if facts["labels"] != list(features.labels):
        raise TrainingError(f"{folder} knows the labels {', '.join(facts['labels'])}, the data has {', '.join(features.labels)}")
    for path, old, new in differences(facts["mel_scale"], to_dict(scale or scale_of_data(recipe, features)), "mel_scale"):
        raise TrainingError(f"{folder} was trained with {path} = {old!r}, this data has {new!r}; use the data it was trained on")
    return fill_classifier(folder, recipe, scale_of(facts), len(features.labels), tensors, network)


def fill_classifier(
    folder: Path, recipe: Recipe, scale: MelScale, labels: int, tensors: dict[str, Tensor], network: nn.Module | None = None
) -> AnyClassifier:
    """The recipe's classifier with the weights `tensors`; the program of someone else's lies in the run's folder `original`."""
    if recipe.external is None:
        ours = build_classifier(recipe, labels)
        ours.load_state_dict(tensors, strict=True)
        return ours
    file = CODE_FILES.get(recipe.external.source)
    code = folder.parent / "original" / file if file else None
    rebuilt = rebuild_network(recipe.external, None, code, trust_code=True) if network is None else copy.deepcopy(network)
    classifier = build_external(recipe, rebuilt.eval(), scale)
    classifier.load_state_dict(tensors, strict=True)
    classifier.code = code.read_bytes() if code else None
    return classifier


def scale_of_data(recipe: Recipe, features: Features) -> MelScale:
    """The mel scale that a training of this recipe on these features uses."""
    statistics = features.statistics
    return fit_scale(statistics.low, statistics.high, statistics.mean, statistics.std, recipe.mel_scale)


def scale_of(facts: dict[str, Any]) -> MelScale:
    """The mel scale a run was trained with."""
    return from_dict(MelScale, facts["mel_scale"])
