"""What a bundle or a recipe is, as plain facts: for `duovox inspect` and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from duovox.bundle import Bundle, BundleConfig, locate, packaged, read_bundle
from duovox.classifiers.loading import needs
from duovox.config import Recipe, read_recipe, to_dict
from duovox.contracts import BundleError, ConfigError, GuideAt
from duovox.costs import count_costs, parameters
from duovox.labels import counting, shown
from duovox.model import ScoreModel, build_classifier, build_model
from duovox.runs import features_for
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.classifier import REPORT_SIGMAS, accuracy_by_sigma


def describe(what: str, data: Path | None = None, trust_code: bool = False) -> dict[str, Any]:
    """Facts about a bundle (name, folder or hub id) or a recipe (name or TOML file); `data` adds accuracies to a bundle's.

    `trust_code` runs the code that a bundle of someone else's classifier needs.

    Raises `BundleError`, `ConfigError` or `DataError`.
    """
    recipe = _recipe_or_none(what)
    if recipe is not None and data is not None:
        raise ConfigError(f"{what} is a recipe; accuracies need a trained bundle")
    if recipe is not None:
        if recipe.external is not None:
            raise ConfigError(f"{what} stands around a classifier made elsewhere; make a bundle of it and inspect that")
        model = build_model(recipe, build_classifier(recipe, 10))
        return {
            "recipe": recipe.name,
            "about": recipe.about,
            "labels": 10,
            **_costs(model, ISTFTNet(recipe.vocoder, recipe.mel), recipe.sample.guide_at),
            "settings": to_dict(recipe),
        }
    bundle = _open(what, trust_code)
    facts = _bundle_facts(bundle.config) | _costs(bundle.model, bundle.vocoder, bundle.config.recipe.sample.guide_at)
    if data is not None:
        config = bundle.config
        features = features_for(config.recipe, data)
        if features.labels != config.labels:
            raise ConfigError(f"{data} has the labels {', '.join(features.labels)}, the bundle {', '.join(config.labels)}")
        table = accuracy_by_sigma(bundle.model.classifier, features, "test", config.mel_scale, config.recipe.noise, torch.device("cpu"))
        facts["accuracy by sigma (test split)"] = {f"{sigma:g}": round(value, 4) for sigma, value in zip(REPORT_SIGMAS, table, strict=True)}
    return facts | {"settings": to_dict(bundle.config.recipe)}


def _recipe_or_none(what: str) -> Recipe | None:
    """The recipe of that name or file, unless a bundle in the package has the name."""
    if what in packaged():
        return None
    try:
        return read_recipe(what)
    except ConfigError:
        if what.endswith(".toml"):
            raise
        return None


def _open(what: str, trust_code: bool) -> Bundle:
    try:
        return read_bundle(locate(what), trust_code=trust_code)
    except BundleError as error:
        shipped = "" if Path(what).exists() else "; nor is it a recipe that ships with duovox or a .toml file"
        raise BundleError(f"{error}{shipped}") from None


def _bundle_facts(config: BundleConfig) -> dict[str, Any]:
    return {
        "bundle": config.digest,
        "labels": [shown(label, config.languages) for label in counting(config.labels)],
        "recipe": config.recipe.name,
        **({"to load it": needs(config.recipe.external)} if config.recipe.external else {}),
        "revision": config.revision,
        "origin": config.origin,
        "scores": config.scores,
        "mel_scale": to_dict(config.mel_scale),
    }


def _costs(model: ScoreModel, vocoder: ISTFTNet | None, guide_at: GuideAt) -> dict[str, Any]:
    costs = count_costs(model, guide_at)
    return {
        "parameters": {
            "classifier (frozen)": costs.classifier_parameters,
            "subnet (trained)": costs.subnet_parameters,
            "vocoder": parameters(vocoder) if vocoder is not None else 0,
        },
        "GMACs": {
            "classifier forward": round(costs.classifier_gmacs, 3),
            "unconditional step": round(costs.unconditional_gmacs, 3),
            "guided step": round(costs.guided_gmacs, 3),
        },
    }


def describe_text(facts: dict[str, Any], indent: str = "") -> str:
    """Facts as indented lines."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", describe_text(value, indent + "  ")] if value else []
        else:
            number = isinstance(value, int) and not isinstance(value, bool)
            shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}" if number else value
            lines.append(f"{indent}{name}: {shown}")
    return "\n".join(lines)
