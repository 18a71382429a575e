"""Classifiers that are no plain logits in float32 go the whole way: what was done is said, and the bundle gives the same again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from speaking import CPU, MEL, WORDS, Plain, fresh, no_export_fixture, one_line, round_as_bundles_do, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from duovox.config import Recipe, read_recipe
from duovox.contracts import ClassifierError, TrainingError
from duovox.repurposing import layers_of, repurpose
from duovox.training.start import start_training
from duovox.voice import Duovox

no_export = no_export_fixture


class Sure(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class ByFrame(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(2).transpose(1, 2))


class Normed(Plain):
    """The norms of old, which torch cannot copy."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(self.body[0])
            nn.utils.spectral_norm(self.body[3])


KINDS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "probabilities": (lambda: fresh(Sure), "probabilities", "BK"),
    "frames": (lambda: fresh(ByFrame), "logits", "BTK"),
    "old norms": (lambda: fresh(Normed), "logits", "BK"),
    "half": (lambda: fresh(Plain).half(), "logits", "BK"),
    "double": (lambda: fresh(Plain).double(), "logits", "BK"),
}


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("name", KINDS)
def test_it_goes_the_whole_way(name: str, tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    build, kind, axes = KINDS[name]
    network = build()
    before = snapshot(network)
    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe, conditioned=name in ("old norms", "half"))
    external = made.classifier.config
    assert (external.output_kind, external.output_axes) == (kind, axes)
    assert bool(made.notes) == (name != "old norms")
    voice = made.train(tiny_features, tmp_path / "out", updates=1, **CPU)
    voice.save_pretrained(tmp_path / "bundle")
    assert snapshot(network) == before
    again = Duovox.from_pretrained(tmp_path / "bundle", classifier=network)
    round_as_bundles_do(voice)
    one, other = (v.generate("low", seed=3, steps=2, keep_faulty=True)[0] for v in (voice, again))
    assert np.array_equal(one.log_mel, other.log_mel) and one.probabilities == other.probabilities


@pytest.mark.usefixtures("no_export")
def test_probabilities_are_heard_as_they_are(tiny_recipe: Recipe) -> None:
    """What it said, and not the softmax of that."""
    network = fresh(Sure)
    with torch.no_grad():
        network.head.weight.mul_(30)  # type: ignore[union-attr,operator]
    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe)
    wave = 0.1 * torch.randn(2, 3840, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = network(made.classifier.front_end.from_wave(wave))
        assert own.max() > 0.6
        torch.testing.assert_close(made.classifier.hear(wave).softmax(1), own)


@pytest.mark.usefixtures("no_export")
def test_its_owner_may_know_better(tiny_recipe: Recipe) -> None:
    made = repurpose(fresh(Sure), WORDS, MEL, recipe=tiny_recipe, output_kind="logits")
    assert made.classifier.config.output_kind == "logits" and made.notes == ()


class Drops(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.3))


class Normalises(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - x.mean()) / x.std())


class Runs(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.level.mul_(0.9).add_(0.1 * x.detach().mean())  # type: ignore[union-attr,operator]
        return super().forward(x - self.level)


@pytest.mark.parametrize(("kind", "says"), [(Drops, "chance"), (Normalises, "others in its batch"), (Runs, "'level'")])
def test_what_is_no_function_of_one_clip_is_refused_at_once(kind: type[nn.Module], says: str, tiny_recipe: Recipe) -> None:
    """By `repurpose` and by `duovox taps`, and untouched."""
    network = fresh(kind)
    before = snapshot(network)
    calls: list[Callable[[], Any]] = [
        lambda: repurpose(network, WORDS, MEL, recipe=tiny_recipe),
        lambda: layers_of(network, MEL, recipe=tiny_recipe),
    ]
    for call in calls:
        with pytest.raises(ClassifierError) as caught:
            call()
        one_line(caught, says)
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
def test_runs_from_before_these_settings_go_on(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    """A run folder whose facts name neither the kind nor the axes of outputs: plain logits, as all were."""
    network = fresh(Plain)
    made, out = repurpose(network, WORDS, MEL, recipe=tiny_recipe), tmp_path / "out"
    recipe_file = made.write(tiny_features, out)
    assert "output_kind" not in _facts(out / "original")["recipe"]["external"]
    text = recipe_file.read_text()
    recipe_file.write_text("".join(line for line in text.splitlines(True) if not line.startswith(("output_kind", "output_axes"))))
    assert text != recipe_file.read_text()
    recipe = read_recipe(recipe_file)
    start_training("subnet", recipe, tiny_features, out, network=network, time_budget=0, **CPU)
    assert start_training("subnet", made.recipe, tiny_features, out, network=network, resume=True, **CPU).complete
    made.write(tiny_features, out)


@pytest.mark.usefixtures("no_export")
def test_another_kind_of_outputs_is_another_classifier(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    network = fresh(Sure)
    repurpose(network, WORDS, MEL, recipe=tiny_recipe, output_kind="logits").write(tiny_features, tmp_path / "out")
    with pytest.raises(TrainingError, match=r"output_kind is None, now 'probabilities'"):
        repurpose(network, WORDS, MEL, recipe=tiny_recipe).write(tiny_features, tmp_path / "out")


def _facts(folder: Path) -> dict[str, Any]:
    with safe_open(folder / "weights.safetensors", "pt") as file:
        return dict(json.loads(file.metadata()["duovox"]))
