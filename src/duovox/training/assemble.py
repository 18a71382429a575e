"""From finished runs to a bundle: takes the run folders of `loop`, gives a `Bundle` to `bundle.write_bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from duovox.bundle import FORMAT, Bundle, BundleConfig, git_revision
from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe
from duovox.contracts import BundleError
from duovox.model import build_classifier, build_model
from duovox.training.loop import differences
from duovox.training.start import Part, read_weights, recipe_of_part, scale_of
from duovox.vocoder.istft_net import ISTFTNet


def assemble(out: Path, recipe: Recipe, scores: dict[str, Any] | None = None, card: str = "") -> Bundle:
    """Put `<out>/classifier`, `<out>/subnet` and, if there is one, `<out>/vocoder` together.

    Raises `TrainingError` for a missing run, and `BundleError` for a part of another recipe or a subnet that was trained on
    another classifier.
    """
    facts, tensors = _part_of(out, "classifier", recipe)
    subnet_facts, subnet_tensors = _part_of(out, "subnet", recipe)
    model = build_model(recipe, build_classifier(recipe, len(facts["labels"])))
    model.classifier.network.load_state_dict(tensors, strict=True)
    model.classifier.freeze()
    if fingerprint(model.classifier.network) != subnet_facts["classifier"]:
        raise BundleError(f"{out}/subnet was trained on another classifier than the one in {out}/classifier; train the subnet again")
    model.subnet.load_state_dict(subnet_tensors, strict=True)
    runs, vocoder = {"classifier": facts, "subnet": subnet_facts}, None
    if (out / "vocoder").is_dir():
        runs["vocoder"], vocoder_tensors = _part_of(out, "vocoder", recipe)
        vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
        vocoder.load_state_dict(vocoder_tensors, strict=True)
    origin = {part: {key: run[key] for key in ("step", "seconds", "clips", "data")} for part, run in runs.items()}
    config = BundleConfig(FORMAT, tuple(facts["labels"]), recipe, scale_of(facts), git_revision(), origin, scores or {})
    return Bundle(config, model, vocoder, card)


def _part_of(out: Path, part: Part, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and weights of one run, which must have been trained with this recipe."""
    facts, tensors = read_weights(out / part)
    for path, old, new in differences(facts["recipe"], recipe_of_part(recipe, part)):
        raise BundleError(
            f"{out / part} was trained with {path} = {old!r}, recipe {recipe.name} has {new!r}; name the recipe it was trained with"
        )
    return facts, tensors
