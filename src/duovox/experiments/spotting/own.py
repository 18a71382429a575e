"""A generator that heard nothing but some real clips: takes a feature folder of them, trains classifier and Score Subnet, gives a bundle.

So what its clips teach comes from these clips alone (and from the bundle of other words that its weights started from, where one did).
Griffin-Lim makes the sound, unless a bundle lends its vocoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duovox.assemble import assemble
from duovox.bundle import write_bundle
from duovox.config import Recipe
from duovox.contracts import TrainingError
from duovox.data import read_manifest
from duovox.devices import DeviceName, Precision
from duovox.runs import Part
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.start import start_training

SHARE = 1 / 3
"""Of the time, for the classifier; it learns faster than the subnet."""


@dataclass(frozen=True)
class OwnTraining:
    """How own generators are trained: the seconds for each, and the bundle that they start from, if any."""

    recipe: Recipe
    seconds: float
    init: str | None
    vocoder: ISTFTNet | None
    device: DeviceName
    precision: Precision


def own_bundle(folder: Path, training: OwnTraining) -> Path | None:
    """The bundle <folder>/bundle of a generator trained on the features <folder>/features, made if it is not there: what was interrupted
    goes on. None where a signal stopped it. Raises `TrainingError` where the one there was trained in another way or on other clips, and
    what trainings raise."""
    bundle = folder / "bundle"
    if not (bundle / "config.json").is_file():
        seconds: dict[Part, float] = {"classifier": SHARE * training.seconds, "subnet": (1 - SHARE) * training.seconds}
        for part, budget in seconds.items():
            if not _trained(part, folder, budget, training):
                return None
        write_bundle(assemble(folder, training.recipe, vocoder=training.vocoder), bundle)
    _require_same(folder, bundle, training)
    return bundle


def updates_of_bundle(bundle: Path) -> dict[str, Any]:
    """How many updates classifier and subnet of a bundle saw."""
    return {part: run["step"] for part, run in _origin(bundle).items() if part in ("classifier", "subnet")}


def _trained(part: Part, folder: Path, seconds: float, training: OwnTraining) -> bool:
    """Whether a part is complete now. Its schedule is fitted to the time it is given at first."""
    resume = (folder / part / "checkpoint.safetensors").is_file()
    outcome = start_training(
        part,
        training.recipe,
        folder / "features",
        folder,
        resume=resume,
        time_budget=seconds,
        fit=True,
        init=None if resume else training.init,
        device=training.device,
        precision=training.precision,
    )
    return outcome.complete


def _require_same(folder: Path, bundle: Path, training: OwnTraining) -> None:
    origin = _origin(bundle)["classifier"]
    started = bool(origin.get("init"))
    if origin["data"] != read_manifest(folder / "features").digest or started != bool(training.init):
        raise TrainingError(f"{bundle} was trained on other clips, or from other weights; use the old options or another --out")


def _origin(bundle: Path) -> dict[str, dict[str, Any]]:
    return json.loads((bundle / "config.json").read_text(encoding="utf-8"))["origin"]
