"""training.py: the folders it writes, and the data it numbers by the classifier's own labels."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speaking import (
    CPU,
    MEL,
    WORDS,
    Plain,
    Spoken,
    fresh,
    no_export_fixture,
    one_line,
    snapshot,
    tellers_fixture,
)
from torch import Tensor, nn

from duovox.config import Recipe, read_recipe
from duovox.contracts import BundleError, DataError, TrainingError
from duovox.data import open_features, prepare, relabelled, which_split
from duovox.repurposing import repurpose
from duovox.runs import features_for
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining

tellers = tellers_fixture
no_export = no_export_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


def test_a_recipe_file_takes_the_place_of_the_object(
    tellers: Callable[[str], Spoken], tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path
) -> None:
    """What `duovox train subnet --recipe OUT/recipe.toml` does."""
    made, out = tellers("factory").made, tmp_path / "out"
    path = made.write(tiny_features, out)
    assert path == out / "recipe.toml"
    recipe = read_recipe(path)
    assert recipe == made.recipe
    recipe = dataclasses.replace(recipe, train_subnet=dataclasses.replace(recipe.train_subnet, updates=2))
    assert start_training("subnet", recipe, tiny_features, out, **CPU).complete
    whole = load_file(tellers("factory").folder.parent / "out" / "subnet" / "weights.safetensors")
    mine = load_file(out / "subnet" / "weights.safetensors")
    assert all(value.equal(whole[name]) for name, value in mine.items())
    with pytest.raises(TrainingError, match="already holds a run"):
        start_training("subnet", recipe, tiny_features, out, **CPU)
    with pytest.raises(TrainingError, match=r"uses its classifier unmodified; .*external\.conditioned = true"):
        start_training("classifier", recipe, tiny_features, out, **CPU)
    other = dataclasses.replace(recipe, subnet=dataclasses.replace(recipe.subnet, embedding=8))
    with pytest.raises(TrainingError, match=r"subnet\.embedding = 16, now it is 8"):
        start_training("subnet", other, tiny_features, out, resume=True, **CPU)
    external = dataclasses.replace(recipe.external, taps=())  # type: ignore[type-var]
    with pytest.raises(TrainingError, match=r"external\.taps"):
        start_training("subnet", dataclasses.replace(recipe, external=external), tiny_features, out, resume=True, **CPU)


def test_a_run_in_two_parts_is_the_run_in_one(tellers: Callable[[str], Spoken], tiny_features: Path, tmp_path: Path) -> None:
    made = tellers("factory").made
    out = tmp_path / "out"
    recipe = dataclasses.replace(made.recipe, train_subnet=dataclasses.replace(made.recipe.train_subnet, updates=2))
    made.write(tiny_features, out, recipe)
    start_training("subnet", recipe, tiny_features, out, time_budget=0, **CPU)
    assert start_training("subnet", recipe, tiny_features, out, resume=True, **CPU).complete
    whole = load_file(tellers("factory").folder.parent / "out" / "subnet" / "weights.safetensors")
    assert all(value.equal(whole[name]) for name, value in load_file(out / "subnet" / "weights.safetensors").items())


def test_a_folder_with_another_classifier_is_refused(tellers: Callable[[str], Spoken], tiny_recipe: Recipe, tiny_features: Path) -> None:
    spoken = tellers("plain")
    out = spoken.folder.parent / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    network = fresh(Plain)
    nn.init.zeros_(network.head.bias)  # type: ignore[union-attr,arg-type]
    for given, words, what in ((network, WORDS, "fingerprint"), (fresh(Plain), tuple(sorted(WORDS)), "labels")):
        made = repurpose(given, words, MEL, recipe=tiny_recipe)
        with pytest.raises(TrainingError) as caught:
            made.train(tiny_features, out, resume=True, **CPU)
        one_line(caught, str(out / "original"), "another classifier", what)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(TrainingError, match="already holds a run"):
        spoken.made.train(tiny_features, out, updates=2, **CPU)
    voice = spoken.made.train(tiny_features, out, updates=2, resume=True, **CPU)
    assert voice.config.calibration == spoken.voice.config.calibration


def test_only_its_owner_can_train_an_object(tellers: Callable[[str], Spoken], tiny_features: Path, tmp_path: Path) -> None:
    spoken = tellers("gru")
    recipe = read_recipe(spoken.made.write(tiny_features, tmp_path / "out"))
    with pytest.raises(BundleError, match=r"classifier=module"):
        start_training("subnet", recipe, tiny_features, tmp_path / "out", **CPU)
    assert start_training("subnet", recipe, tiny_features, tmp_path / "out", network=spoken.network, **CPU).complete
    assert snapshot(spoken.network) == spoken.before


@pytest.mark.usefixtures("no_export")
def test_labels_are_numbered_as_the_classifier_numbers_them(tiny_features: Path, tiny_recipe: Recipe) -> None:
    features = open_features(tiny_features)
    words = ("low", "other", "mid", "high", "more")
    renamed = relabelled(features, words)
    assert features.labels == ("high", "low", "mid") and renamed.labels == words
    assert [words[n] for n in renamed.label] == [features.labels[n] for n in features.label]
    assert renamed.label.dtype == np.int64 and renamed.digest == features.digest and renamed.log_mels is features.log_mels
    assert relabelled(features, features.labels).label.tolist() == features.label.tolist()
    with pytest.raises(DataError) as caught:
        relabelled(features, ("low", "mid"))
    one_line(caught, "'high'", "low, mid")
    made = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe)
    mine = features_for(made.recipe, tiny_features)
    assert [WORDS[n] for n in mine.label] == [features.labels[n] for n in features.label]
    assert features_for(tiny_recipe, tiny_features).labels == ("high", "low", "mid")


class Knowing(nn.Module):
    """Tells the three tones apart, by the place of their energy: in the labels' order low, other, mid, high, more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 1)
        nn.init.constant_(self.layer.weight, 1.0)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(x).exp().mean((1, 3))
        low, mid, high = rows[:, :4].amax(1), rows[:, 4:8].amax(1), rows[:, 8:].amax(1)
        never = 0 * low - 9
        return torch.stack([low, never, mid, high, never], dim=1).clamp(min=-9) * 3


@pytest.mark.usefixtures("no_export")
def test_a_classifier_that_knows_more_words_than_the_data(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training hands to the taps are the classifier's own numbers."""
    words = ("low", "other", "mid", "high", "more")
    seen: list[int] = []
    real = SubnetTraining.noised

    def watched(self: SubnetTraining, clean: Tensor, label: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        sigma = torch.full((len(clean),), 0.01)
        logits = self.model.classifier(clean, sigma)
        assert logits.argmax(1).tolist() == label.tolist()
        seen.extend(label.tolist())
        return real(self, clean, label, generator)

    monkeypatch.setattr(SubnetTraining, "noised", watched)
    voice = repurpose(Knowing().eval(), words, MEL, recipe=tiny_recipe).train(tiny_features, tmp_path / "out", updates=3, **CPU)
    assert set(seen) == {0, 2, 3} and voice.labels == words
    assert voice.generate("other", steps=1, keep_faulty=True)[0].label == "other"
    levels = voice.calibrate(tiny_features)
    assert levels[0].accuracy == 1


@pytest.mark.usefixtures("no_export")
def test_data_with_a_word_the_classifier_does_not_know(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    made = repurpose(fresh(Plain), ("low", "mid", "up"), MEL, recipe=tiny_recipe)
    for call in (made.train, made.write):
        with pytest.raises(DataError) as caught:
            call(tiny_features, tmp_path / "out")
        one_line(caught, "'high'", "low, mid, up")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_export")
def test_data_without_validation_or_test_clips_is_trained_on_without_temperatures(
    tiny_recipe: Recipe, tiny_words: Path, tmp_path: Path
) -> None:
    words = Path(shutil.copytree(tiny_words, tmp_path / "words"))
    for path in words.rglob("*.wav"):
        if which_split(path.stem) == "validation":
            path.unlink()
    prepare(words, tmp_path / "features", tiny_recipe.mel, progress=False)
    voice = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe).train(tmp_path / "features", tmp_path / "out", updates=1, **CPU)
    assert voice.config.calibration.temperatures == () and voice.generate("low", steps=1, keep_faulty=True)
