"""Starting a training: puts features, recipe, device and the parts already trained together and hands them to the loop.

Takes the arguments of `duovox train`; gives run folders `<out>/<part>/`, where `subnet` finds the classifier it speaks through.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from duovox.classifiers.encoder import EncoderClassifier
from duovox.classifiers.frozen import fingerprint
from duovox.config import MelScale, Recipe, from_dict, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, open_features
from duovox.mel import fit_scale
from duovox.model import build_classifier
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
) -> Outcome:
    """Train one part of a recipe on a feature folder into `<out>/<part>/`; seconds for `time_budget`.

    Raises `DataError` for unfit features, `TrainingError` as `loop.train` does and when a part it builds on is missing.
    """
    chosen, features = choose_device(device), open_features(data, recipe.mel)
    autocast = choose_autocast(precision, chosen)
    scale = scale_of_data(recipe, features)
    facts: dict[str, Any] = {"labels": list(features.labels), "mel_scale": to_dict(scale), "clips": len(features.indices("train"))}
    trainee: Trainee
    if part == "classifier":
        trainee = ClassifierTraining(recipe, features, scale, chosen, autocast)
    elif part == "subnet":
        classifier = load_classifier(out / "classifier", recipe, features)
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


def recipe_of_part(recipe: Recipe, part: Part) -> dict[str, Any]:
    """The settings that decide a part: another part's may change between its runs without making them different runs."""
    needed = {
        "classifier": ("mel", "mel_scale", "noise", "classifier", "train_classifier"),
        "subnet": ("mel", "mel_scale", "noise", "classifier", "train_classifier", "subnet", "train_subnet"),
        "vocoder": ("mel", "vocoder", "train_vocoder"),
        "judge": ("train_judge",),
    }[part]
    settings = to_dict(recipe)
    return {"name": recipe.name, **{name: settings[name] for name in needed}}


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


def load_classifier(folder: Path, recipe: Recipe, features: Features) -> EncoderClassifier:
    """The trained classifier of a run folder, for the same recipe, labels and mel scale. Raises `TrainingError`."""
    facts, tensors = read_weights(folder)
    for path, old, new in differences(facts["recipe"], recipe_of_part(recipe, "classifier")):
        raise TrainingError(f"{folder} was trained with {path} = {old!r}, this recipe has {new!r}; use the recipe it was trained with")
    if facts["labels"] != list(features.labels):
        raise TrainingError(f"{folder} knows the labels {', '.join(facts['labels'])}, the data has {', '.join(features.labels)}")
    for path, old, new in differences(facts["mel_scale"], to_dict(scale_of_data(recipe, features)), "mel_scale"):
        raise TrainingError(f"{folder} was trained with {path} = {old!r}, this data has {new!r}; use the data it was trained on")
    classifier = build_classifier(recipe, len(features.labels))
    classifier.load_state_dict(tensors, strict=True)
    return classifier


def scale_of_data(recipe: Recipe, features: Features) -> MelScale:
    """The mel scale that a training of this recipe on these features uses."""
    statistics = features.statistics
    return fit_scale(statistics.low, statistics.high, statistics.mean, statistics.std, recipe.mel_scale)


def scale_of(facts: dict[str, Any]) -> MelScale:
    """The mel scale a run was trained with."""
    return from_dict(MelScale, facts["mel_scale"])
