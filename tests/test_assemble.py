"""training/assemble.py: runs become the bundle they say they are, or a reason why not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from duovox.assemble import assemble, completed
from duovox.bundle import read_bundle, write_bundle
from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe, SampleConfig, TrainConfig
from duovox.contracts import BundleError, TrainingError
from duovox.data import prepare
from duovox.runs import read_weights, recipe_of_part, scale_of
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.start import start_training
from duovox.voice import Duovox


@pytest.fixture
def runs(tiny_runs: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(tiny_runs, tmp_path / "runs"))


def add_vocoder(runs: Path, recipe: Recipe) -> ISTFTNet:
    """An untrained vocoder as a finished run would leave it."""
    vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
    facts = {"part": "vocoder", "recipe": recipe_of_part(recipe, "vocoder"), "step": 7, "seconds": 1, "clips": 18, "data": "d"}
    (runs / "vocoder").mkdir()
    save_file(vocoder.state_dict(), runs / "vocoder" / "weights.safetensors", {"duovox": json.dumps(facts)})
    return vocoder


def test_the_bundle_holds_the_averages_of_the_runs(tiny_runs: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    bundle = assemble(tiny_runs, tiny_recipe, {"accuracy": 0.5}, "# Card")
    for part, module in (("classifier", bundle.model.classifier.network), ("subnet", bundle.model.score_network)):
        facts, tensors = read_weights(tiny_runs / part)
        assert module.state_dict().keys() == tensors.keys()
        assert all(torch.equal(value, tensors[name]) for name, value in module.state_dict().items())
        assert bundle.config.origin[part] == {key: facts[key] for key in ("step", "seconds", "clips", "data")}
        assert bundle.config.mel_scale == scale_of(facts)
    assert bundle.model.classifier.unchanged()
    assert bundle.config.labels == ("high", "low", "mid")
    assert bundle.config.scores == {"accuracy": 0.5} and bundle.card == "# Card" and bundle.vocoder is None
    write_bundle(bundle, tmp_path / "b")
    assert read_bundle(tmp_path / "b").config.recipe == tiny_recipe


def test_a_vocoder_comes_along(runs: Path, tiny_recipe: Recipe) -> None:
    vocoder = add_vocoder(runs, tiny_recipe)
    bundle = assemble(runs, tiny_recipe)
    assert bundle.vocoder is not None and bundle.config.origin["vocoder"]["step"] == 7
    assert all(torch.equal(value, vocoder.state_dict()[name]) for name, value in bundle.vocoder.state_dict().items())


def test_sampling_settings_come_from_the_recipe_given(tiny_runs: Path, tiny_recipe: Recipe) -> None:
    recipe = dataclasses.replace(tiny_recipe, sample=SampleConfig(steps=7, gamma=1.5))
    assert assemble(tiny_runs, recipe).config.recipe.sample == SampleConfig(steps=7, gamma=1.5)


def test_a_missing_part(runs: Path, tiny_recipe: Recipe) -> None:
    shutil.rmtree(runs / "subnet")
    with pytest.raises(TrainingError, match="no trained subnet"):
        assemble(runs, tiny_recipe)


def test_a_vocoder_folder_without_weights(runs: Path, tiny_recipe: Recipe) -> None:
    (runs / "vocoder").mkdir()
    with pytest.raises(TrainingError, match="no trained vocoder"):
        assemble(runs, tiny_recipe)


def test_parts_of_another_recipe(runs: Path, tiny_recipe: Recipe) -> None:
    other = dataclasses.replace(tiny_recipe, train_subnet=TrainConfig(updates=99))
    with pytest.raises(BundleError, match=r"subnet was trained with train_subnet\.batch = 4, recipe tiny has 64"):
        assemble(runs, other)
    add_vocoder(runs, dataclasses.replace(tiny_recipe, mel=dataclasses.replace(tiny_recipe.mel, floor=1e-4)))
    with pytest.raises(BundleError, match=r"vocoder was trained with mel\.floor = 0\.0001, recipe tiny has 1e-05"):
        assemble(runs, tiny_recipe)


def test_a_subnet_of_another_classifier(runs: Path, tiny_recipe: Recipe, tiny_features: Path) -> None:
    """The classifier was trained anew after the subnet had been."""
    facts, tensors = read_weights(runs / "classifier")
    tensors["stem.bias"][0] += 1e-6
    save_file(tensors, runs / "classifier" / "weights.safetensors", {"duovox": json.dumps(facts)})
    with pytest.raises(BundleError, match="trained on another classifier"):
        assemble(runs, tiny_recipe)
    with pytest.raises(TrainingError, match="was started with classifier = "):
        start_training("subnet", tiny_recipe, tiny_features, runs, resume=True, device="cpu")


# what a bundle says of its data


def say_of(folder: Path, **facts: object) -> None:
    """Add facts to a run's weights."""
    old, tensors = read_weights(folder)
    save_file(tensors, folder / "weights.safetensors", {"duovox": json.dumps(old | facts)})


UNKNOWN = "the speakers are unknown and the split is by clip, so a voice may be heard in training and test alike"


def test_languages_of_the_data_are_those_of_the_bundle(runs: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    say_of(runs / "classifier", languages={"low": "en"})
    say_of(runs / "subnet", languages={"high": "de", "low": "en", "other": "fr"})
    assert assemble(runs, tiny_recipe).config.languages == {"high": "de", "low": "en"}
    assert assemble(runs, tiny_recipe).card == "# A classifier that speaks: high (de), low (en), mid\n"
    write_bundle(assemble(runs, tiny_recipe), tmp_path / "b")
    assert read_bundle(tmp_path / "b").config.languages == {"high": "de", "low": "en"}


@pytest.mark.parametrize(("source", "told"), [("sc06", "sc06"), ("runs/a", "runs/a"), ("/home/ann/secret/runs/a", "runs/a")])
def test_the_origin_tells_no_places_of_a_machine(runs: Path, tiny_recipe: Recipe, source: str, told: str) -> None:
    path = runs / "subnet" / "weights.safetensors"
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["duovox"]) | {"init": {"source": source, "digest": "0", "taken": 1, "new": []}}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"duovox": json.dumps(facts)})
    assert assemble(runs, tiny_recipe).config.origin["subnet"]["init"] == facts["init"] | {"source": told}


def test_unknown_speakers_are_said_in_origin_and_card(runs: Path, tiny_recipe: Recipe) -> None:
    assert assemble(runs, tiny_recipe).card == "" and "speakers" not in assemble(runs, tiny_recipe).config.origin["subnet"]
    for part in ("classifier", "subnet"):
        say_of(runs / part, speakers=UNKNOWN)
    bundle = assemble(runs, tiny_recipe, card="# Mine\n")
    assert bundle.config.origin["subnet"]["speakers"] == UNKNOWN
    assert bundle.card == f"# Mine\n\nOf the data of classifier and subnet: {UNKNOWN}.\n"
    assert assemble(runs, tiny_recipe).card.startswith("# A classifier that speaks: high, low, mid\n\nOf the data of ")


def test_another_voice_on_the_classifier_of_a_bundle(
    bundle_folder: Path, tiny_features: Path, tiny_recipe: Recipe, tmp_path: Path, anything_is_speech: None
) -> None:
    """A subnet trained on other recordings by `on`: the classifier, its scale and the vocoder are the bundle's, the subnet is the run's."""
    base, recipe = read_bundle(bundle_folder), dataclasses.replace(tiny_recipe, name="other", train_classifier=TrainConfig(updates=77))
    start_training("subnet", recipe, tiny_features, tmp_path, device="cpu", precision="fp32", on=bundle_folder)
    facts, tensors = read_weights(tmp_path / "subnet")
    assert facts["classifier"] == fingerprint(base.model.classifier.network) and scale_of(facts) == base.config.mel_scale
    made = completed(base, tmp_path, recipe)
    assert all(torch.equal(value, tensors[name]) for name, value in made.model.score_network.state_dict().items())
    assert fingerprint(made.model.classifier.network) == facts["classifier"] and made.vocoder is base.vocoder
    assert made.config.origin["subnet"]["step"] == 4 and made.config.origin["classifier"] == base.config.origin["classifier"]
    assert made.card == "# high, low, mid: another voice on a classifier that was there\n"
    write_bundle(made, tmp_path / "b")
    assert len(Duovox.from_pretrained(tmp_path / "b").generate("low", n=2)) == 2


def test_a_subnet_on_a_bundle_hears_words_that_it_does_not_know_without_labels(
    bundle_folder: Path, tiny_words: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    words = Path(shutil.copytree(tiny_words, tmp_path / "words"))
    (words / "high").rename(words / "shrill")
    prepare(words, tmp_path / "features", tiny_recipe.mel, progress=False)
    start_training("subnet", tiny_recipe, tmp_path / "features", tmp_path / "runs", device="cpu", precision="fp32", on=bundle_folder)
    facts, _ = read_weights(tmp_path / "runs" / "subnet")
    assert facts["labels"] == ["high", "low", "mid"] and facts["clips"] == 18
    with pytest.raises(BundleError, match="no bundle at"):
        start_training("subnet", tiny_recipe, tmp_path / "features", tmp_path / "r", device="cpu", on=tmp_path / "nothing")
    assert not (tmp_path / "r").exists()
