"""From a repurposed classifier to a speaking one: takes the `Repurposed` that `building` made, writes it, trains its score network."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from duovox.assemble import assemble
from duovox.bundle import CODE_FILES
from duovox.classifiers.discovery import Candidate
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe, write_recipe
from duovox.contracts import TrainingError
from duovox.data import Features
from duovox.devices import DeviceName, Precision, choose_autocast, choose_device
from duovox.files import differences, write_tensors, write_whole
from duovox.repurposing.table import cost, layers_table
from duovox.repurposing.timing import Estimate, estimate
from duovox.runs import Part, features_for, read_weights, recipe_of_part, scale_of_data
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.start import start_training
from duovox.voice import Duovox


@dataclass(frozen=True)
class Repurposed:
    """Someone else's classifier, ready to be trained to speak: the recipe it stands in, our copy of it, and all its layers.

    `notes` says in one sentence each what was done to the network or its outputs that its owner may not expect.
    """

    recipe: Recipe
    classifier: ExternalClassifier
    layers: tuple[Candidate, ...]
    vocoder: ISTFTNet | None
    notes: tuple[str, ...] = ()

    @property
    def taps(self) -> tuple[str, ...]:
        """The names of the layers that are tapped."""
        assert self.recipe.external is not None
        return tuple(tap.name for tap in self.recipe.external.taps)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is trained, in order."""
        return ("classifier", "subnet") if self.classifier.config.conditioned else ("subnet",)

    def train(
        self,
        data: str | Path,
        out: str | Path,
        *,
        updates: int | None = None,
        resume: bool = False,
        time_budget: float = math.inf,
        device: DeviceName = "auto",
        precision: Precision = "auto",
    ) -> Duovox:
        """Train on a feature folder into run folders below `out`: for a noise-conditioned copy its fine-tuning, then the subnet.

        Gives the speaking model, its temperatures fitted where the data has clips to fit and to measure them on. `time_budget` is in
        seconds, for each of the trainings. Raises what `start_training` and `assemble` raise, and `TrainingError` after a stop signal
        and where the budget ends before the fine-tuning does, for a subnet can only be trained on a finished classifier.
        """
        data, out = Path(data), Path(out)
        recipe = self.recipe
        if updates is not None:
            recipe = replace(recipe, train_subnet=replace(recipe.train_subnet, updates=updates))
        self.write(data, out, recipe)
        network = self._only_its_owner_has()
        for part in self.parts:
            go_on = resume or (part == "classifier" and (out / part).exists())
            options = {"time_budget": time_budget, "device": device, "precision": precision, "network": network}
            started = time.monotonic()
            outcome = start_training(part, recipe, data, out, resume=go_on, **options)  # type: ignore[arg-type]
            if not outcome.complete and (part == "classifier" or time.monotonic() - started < time_budget):
                total = getattr(recipe, f"train_{part}").updates
                raise TrainingError(f"the training of the {part} was stopped at step {outcome.step} of {total}; go on with resume=True")
        voice = Duovox(assemble(out, recipe, network=network, vocoder=self.vocoder))
        if can_be_calibrated(features_for(recipe, data)):
            voice.calibrate(data)
        return voice

    def write(self, data: str | Path, out: str | Path, recipe: Recipe | None = None) -> Path:
        """Write the unmodified classifier, and the recipe (whose path is returned), to `out`, for `duovox train` to go on with.

        Raises `TrainingError` where `out` holds another classifier, `DataError` for data whose words it does not know.
        """
        recipe, out = recipe or self.recipe, Path(out)
        features = features_for(recipe, Path(data))
        self.classifier.scale = scale_of_data(recipe, features)
        facts = self._facts(recipe, features)
        if (out / "original" / "weights.safetensors").exists():
            _demand_the_same(out / "original", facts)
        else:
            self._write_original(out / "original", facts, len(features.indices("train")))
        write_whole(out / "recipe.toml", write_recipe(recipe).encode(), force=True)
        return out / "recipe.toml"

    def estimate(self, data: str | Path, device: DeviceName = "auto", precision: Precision = "auto") -> tuple[Estimate, ...]:
        """How long each training takes on this machine, from a few updates on a feature folder; nothing is written or changed."""
        chosen, features = choose_device(device), features_for(self.recipe, Path(data))
        autocast = choose_autocast(precision, chosen)
        return tuple(estimate(part, self.recipe, self.classifier, features, chosen, autocast) for part in self.parts)

    def layers_table(self, faulty: bool = False) -> str:
        """The layers as a Markdown table, those in use marked, then the notes; `faulty` lists those that cannot be tapped as well."""
        notes = "".join(f"\nnote: {note}" for note in self.notes)
        return layers_table(self.layers, self.taps, self.recipe, faulty) + ("\n" + notes if notes else "")

    def cost(self, layer: Candidate) -> float:
        """Millions of multiply-accumulates that a tap of a layer adds to a denoising step."""
        return cost(layer, self.recipe)

    def _only_its_owner_has(self) -> nn.Module | None:
        return self.classifier.network if self.classifier.config.source == "object" else None

    def _facts(self, recipe: Recipe, features: Features) -> dict[str, Any]:
        """What the folder of the unmodified classifier says of it."""
        return {
            "part": "original",
            "recipe": recipe_of_part(recipe, "original"),
            "labels": list(features.labels),
            "mel_scale": {"kind": recipe.mel_scale, "shift": self.classifier.scale.shift, "scale": self.classifier.scale.scale},
            "data": features.digest,
            "fingerprint": fingerprint(self.classifier),
        }

    def _write_original(self, folder: Path, facts: dict[str, Any], clips: int) -> None:
        if self.classifier.code is not None:
            write_whole(folder / CODE_FILES[self.classifier.config.source], self.classifier.code, parents=True, force=True)
        tensors = {name: value.clone() for name, value in self.classifier.state_dict().items()}
        metadata = {"duovox": json.dumps({**facts, "clips": clips, "step": 0, "seconds": 0})}
        write_tensors(folder / "weights.safetensors", tensors, metadata)


def can_be_calibrated(features: Features) -> bool:
    """Whether there are clips to fit temperatures on, and others to measure them on."""
    return all(len(features.indices(split)) for split in ("validation", "test"))


def _demand_the_same(folder: Path, facts: dict[str, Any]) -> None:
    before = read_weights(folder)[0]
    for path, old, new in differences({key: before.get(key) for key in facts}, facts):
        raise TrainingError(f"{folder} holds another classifier or data ({path} is {old!r}, now {new!r}); choose another folder")
