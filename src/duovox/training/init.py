"""Starting from weights that are there: takes a run, its weights or a bundle, gives a fresh `Trainee` as many of them as fit.

A tensor is taken over if it has the same name and shape. A head is not, unless it is for the same labels: it stays as it was drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from duovox.bundle import locate, packaged, read_bundle
from duovox.config import MelConfig, to_dict
from duovox.contracts import TrainingError
from duovox.files import differences
from duovox.runs import Part
from duovox.training.optim import Trainee

HEADS = {"classifier": "head.3.", "judge": "classifier."}
"""Beginning of the names of the tensors that have a row for each label, by part."""


@dataclass(frozen=True)
class Weights:
    """Weights of a part to start from, and what is known of them: labels and mel, where the file says so."""

    source: str
    tensors: Mapping[str, Tensor]
    labels: tuple[str, ...] | None = None
    mel: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over names and values."""
        found = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def read_init(source: str | Path, part: Part) -> Weights:
    """The weights of a part in a run folder (or the folder above it), in a safetensors file of a run or a judge, or in a bundle. A folder
    without weights does not stand before a bundle of the package that has its name: recordings often lie in `words`.

    Raises `TrainingError` for anything else, `BundleError` for a broken bundle.
    """
    path = Path(source)
    for file in (path, path / "weights.safetensors", path / part / "weights.safetensors"):
        if file.is_file():
            return _of_file(file, part, str(source))
    if path.is_dir() and not (path / "config.json").is_file() and source not in packaged():
        raise TrainingError(f"--init {source} holds no weights of a {part}: name a run folder, a weights.safetensors, or a bundle")
    return _of_bundle(source, part)


def _of_file(file: Path, part: Part, source: str) -> Weights:
    try:
        with safe_open(file, "pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("duovox", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(f"--init {file} cannot be read ({error}); name a weights.safetensors of `duovox train {part}`") from None
    kind = facts.get("part") or ("judge" if str(facts.get("format", "")).startswith("duovox-judge") else None)
    if kind != part:
        what = f"weights of a {kind}" if kind else "no weights that `duovox train` wrote"
        raise TrainingError(f"--init {file} holds {what}, not of a {part}; name the weights.safetensors of a {part}'s run")
    labels = tuple(facts["labels"]) if "labels" in facts else None
    return Weights(source, tensors, labels, facts.get("recipe", {}).get("mel"))


def _of_bundle(source: str | Path, part: Part) -> Weights:
    bundle = read_bundle(locate(source))
    networks: dict[str, nn.Module | None] = {
        "classifier": bundle.model.classifier.network,
        "subnet": bundle.model.score_network,
        "student": bundle.student and bundle.student.network,
        "vocoder": bundle.vocoder,
    }
    network = networks.get(part)
    if network is None:
        raise TrainingError(f"--init {source}: the bundle holds no {part}; name a run folder of `duovox train {part}`")
    tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Weights(str(source), tensors, bundle.config.labels, to_dict(bundle.config.recipe.mel))


def take_over(trainee: Trainee, weights: Weights, labels: tuple[str, ...], mel: MelConfig) -> dict[str, Any]:
    """Give a fresh trainee's network and its average the weights that fit; what was taken and what is new, as facts of the run.

    Raises `TrainingError` where nothing fits, and where the weights are of another mel.
    """
    if trainee.part != "judge" and weights.mel is not None:
        for name, theirs, ours in differences(weights.mel, to_dict(mel), "mel"):
            raise TrainingError(f"--init {weights.source} was trained with {name} = {theirs!r}, this recipe has {ours!r}; use its recipe")
    network, average = trainee.updater.network, trainee.updater.average
    wanted = network.state_dict()
    head = HEADS.get(trainee.part) if weights.labels != labels else None
    fitting = {name: weights.tensors[name] for name, value in wanted.items() if _fits(name, value, weights.tensors, head)}
    if not any(value.is_floating_point() for value in fitting.values()):
        raise TrainingError(f"--init {weights.source} holds no tensor of this {trainee.part}; use the recipe it was trained with")
    for module in (network, *([average.module] if average is not None else [])):
        module.load_state_dict({**module.state_dict(), **fitting})
    new = sorted(wanted.keys() - fitting.keys())
    return {"source": weights.source, "digest": weights.digest, "taken": len(fitting), "new": new}


def _fits(name: str, value: Tensor, tensors: Mapping[str, Tensor], head: str | None) -> bool:
    same = name in tensors and tensors[name].shape == value.shape and tensors[name].is_floating_point() == value.is_floating_point()
    return same and not (head and name.startswith(head))


def in_words(part: str, facts: Mapping[str, Any]) -> str:
    """One line that says what `take_over` did."""
    new = ", ".join(facts["new"][:4]) + (f" and {len(facts['new']) - 4} more" if len(facts["new"]) > 4 else "")
    return f"{part}: {facts['taken']} tensors taken over from {facts['source']} ({facts['digest'][:12]}); new: {new or 'none'}"


def start_average_at(trainee: Trainee, step: int) -> None:
    """Let the average count as one over `step` updates: what was taken over weighs as much in it as so long an average would."""
    if trainee.updater.average is not None:
        trainee.updater.average.n_averaged.fill_(step)
