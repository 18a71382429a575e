"""A run folder as data: the facts of a training, its weights, the classifier in it; and which settings decide which part.

Takes folders that `training` or `repurposing` wrote; gives checked weights to `assemble` and to the trainings that build on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from duovox.bundle import CODE_FILES
from duovox.classifiers.copies import copy_network
from duovox.classifiers.loading import rebuild_network
from duovox.config import MelScale, Recipe, SeenConfig, SpeakerConfig, from_dict, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, open_features, relabelled
from duovox.files import differences
from duovox.model import build_classifier, build_external
from duovox.networks.base import TappedClassifier
from duovox.sound.mel import fit_scale

Part = Literal["classifier", "subnet", "student", "vocoder", "judge", "speaker"]

SPEAKER_DIMENSIONS = 64
"""The length of the embedding that each network of the part `speaker` gives."""

LATER_SETTINGS: dict[str, Any] = {"output_kind": "logits", "output_axes": "BK"} | dict.fromkeys(
    ("gain_db", "stretch_mel", "colour_db", "balance"), 0.0
)
"""Settings of a classifier made elsewhere and of trainings that came after the first run folders, and their defaults."""


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
        "student": (*common, "classifier" if recipe.external is None else "external", "subnet", "student", "train_student"),
        "vocoder": ("mel", "vocoder", "train_vocoder"),
        "judge": (*["judge"] * (recipe.judge != Recipe.judge), "train_judge"),
        "speaker": (*common, "classifier", *["speaker"] * (recipe.speaker != SpeakerConfig()), "train_speaker"),
    }[part]
    settings = to_dict(recipe)
    return settled({"name": recipe.name, **{name: settings[name] for name in needed}})


def on_base(base: Recipe, recipe: Recipe) -> Recipe:
    """The recipe of a bundle with the score model, the data it sees and its training from another recipe."""
    ours = ("score_model", "subnet", "unet", "subnet_sees", "train_subnet")
    return replace(base, **{name: getattr(recipe, name) for name in ours})


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain values, without those of `LATER_SETTINGS` that are at their defaults: an older run knows nothing of them."""
    kept = {name: value for name, value in settings.items() if name not in LATER_SETTINGS or value != LATER_SETTINGS[name]}
    return {name: settled(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def classifier_folder(out: Path, recipe: Recipe) -> Path:
    """Where a recipe's frozen classifier lies: `original` for someone else's unmodified one, else `classifier`."""
    return out / ("original" if recipe.external and not recipe.external.conditioned else "classifier")


def read_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts and the tensors of a run's `weights.safetensors`. Raises `TrainingError` where there is no such run."""
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise TrainingError(_nothing_in(folder))
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["duovox"])
            facts["recipe"] = settled(facts["recipe"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        again = "run `duovox repurpose` with another --out" if folder.name == "original" else "train this part again"
        raise TrainingError(f"{path} cannot be read ({error}); {again}") from None


def updates_of(facts: Mapping[str, Any], recipe: Recipe, part: Part) -> int:
    """How many updates make a run complete: those of its recipe, or of the shorter or longer schedule it was given."""
    return int(facts.get("schedule", {}).get("updates", getattr(recipe, f"train_{part}").updates))


def _nothing_in(folder: Path) -> str:
    """What a folder without weights is told, with the command that fills it."""
    if folder.name == "original":
        return f"{folder} holds no classifier; run `duovox repurpose` with the same --out first"
    if folder.name in get_args(Part):
        return f"{folder} holds no trained {folder.name}; run `duovox train {folder.name}` with the same --out first"
    return f"{folder} holds no trained classifier; name a run folder of `duovox train classifier`, as OUT/classifier"


def load_classifier(
    folder: Path, recipe: Recipe, features: Features, network: nn.Module | None = None, scale: MelScale | None = None
) -> TappedClassifier:
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
) -> TappedClassifier:
    """The recipe's classifier with the weights `tensors`; the program of someone else's lies in the run's folder `original`."""
    if recipe.external is None:
        ours = build_classifier(recipe, labels)
        ours.load_state_dict(tensors, strict=True)
        return ours
    file = CODE_FILES.get(recipe.external.source)
    code = folder.parent / "original" / file if file else None
    rebuilt = rebuild_network(recipe.external, None, code, trust_code=True) if network is None else copy_network(network)
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
