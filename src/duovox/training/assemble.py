"""From finished runs to a bundle: takes the run folders of `loop`, gives a `Bundle` to `bundle.write_bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from duovox.bundle import FORMAT, Bundle, BundleConfig, git_revision
from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe, from_dict
from duovox.contracts import BundleError
from duovox.model import build_classifier, build_model
from duovox.training.loop import differences
from duovox.training.start import read_weights, scale_of
from duovox.vocoder.istft_net import ISTFTNet


def assemble(out: Path, scores: dict[str, Any] | None = None, card: str = "") -> Bundle:
    """Put `<out>/classifier`, `<out>/subnet` and, if there is one, `<out>/vocoder` together.

    Raises `TrainingError` for a missing run and `BundleError` if the subnet was not trained on this classifier.
    """
    facts, tensors = _by_part(out, "classifier")
    subnet_facts, subnet_tensors = _by_part(out, "subnet")
    has_vocoder = (out / "vocoder").is_dir()
    vocoder_facts, vocoder_tensors = _by_part(out, "vocoder") if has_vocoder else ({}, {})
    settings = {**vocoder_facts.get("recipe", {}), **subnet_facts["recipe"]}
    for path, old, new in differences(vocoder_facts.get("recipe", {}).get("mel"), settings["mel"] if has_vocoder else None, "mel"):
        raise BundleError(f"{out}/vocoder was trained with {path} = {old!r}, the subnet with {new!r}; train the vocoder on this mel")
    recipe = from_dict(Recipe, settings)
    model = build_model(recipe, build_classifier(recipe, len(facts["labels"])))
    model.classifier.network.load_state_dict(tensors, strict=True)
    model.classifier.freeze()
    if fingerprint(model.classifier.network) != subnet_facts["classifier"]:
        raise BundleError(f"{out}/subnet was trained on another classifier than the one in {out}/classifier; train the subnet again")
    model.subnet.load_state_dict(subnet_tensors, strict=True)
    vocoder = ISTFTNet(recipe.vocoder, recipe.mel) if has_vocoder else None
    if vocoder is not None:
        vocoder.load_state_dict(vocoder_tensors, strict=True)
    runs = {"classifier": facts, "subnet": subnet_facts} | ({"vocoder": vocoder_facts} if has_vocoder else {})
    origin = {part: {key: run[key] for key in ("step", "seconds", "clips", "data") if key in run} for part, run in runs.items()}
    config = BundleConfig(FORMAT, tuple(facts["labels"]), recipe, scale_of(facts), git_revision(), origin, scores or {})
    return Bundle(config, model, vocoder, card)


def _by_part(out: Path, part: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_weights(out / part)
