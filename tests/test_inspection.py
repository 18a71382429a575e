"""inspection.py: the facts are those of the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from duovox.bundle import Bundle, write_bundle
from duovox.config import Recipe, to_dict, write_recipe
from duovox.contracts import BundleError, ConfigError, DataError
from duovox.costs import count_costs, parameters
from duovox.inspection import describe, describe_text


def test_facts_of_a_bundle(bundle_folder: Path, tiny_bundle: Bundle) -> None:
    facts = describe(str(bundle_folder))
    assert tiny_bundle.vocoder is not None
    costs = count_costs(tiny_bundle.model)
    assert facts["parameters"] == {
        "classifier (frozen)": parameters(tiny_bundle.model.classifier),
        "subnet (trained)": parameters(tiny_bundle.model.score_network),
        "vocoder": parameters(tiny_bundle.vocoder),
    }
    assert facts["GMACs"]["guided step"] == round(costs.guided_gmacs, 3)
    assert facts["labels"] == ["high", "low", "mid"] and facts["origin"] == {"classifier": {"step": 4}}
    assert facts["mel_scale"] == {"kind": "standard", "shift": -5.0, "scale": 0.25}
    assert facts["settings"] == to_dict(tiny_bundle.config.recipe)


def test_labels_are_shown_with_their_languages(tiny_bundle: Bundle, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_bundle.config, languages={"low": "de"})
    write_bundle(dataclasses.replace(tiny_bundle, config=config), tmp_path / "b")
    assert describe(str(tmp_path / "b"))["labels"] == ["high", "low (de)", "mid"]


def test_facts_of_a_recipe(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(write_recipe(tiny_recipe))
    facts = describe(str(tmp_path / "mine.toml"))
    assert facts["recipe"] == "tiny" and facts["settings"] == to_dict(tiny_recipe)
    assert facts["parameters"]["classifier (frozen)"] > 0 and "bundle" not in facts


def test_accuracies_need_a_bundle_and_its_data(bundle_folder: Path, tiny_features: Path, tmp_path: Path) -> None:
    table = describe(str(bundle_folder), tiny_features)["accuracy by sigma (test split)"]
    assert list(table) == ["0", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert all(round(value * 6) / 6 == pytest.approx(value, abs=1e-4) for value in table.values())  # of six clips
    with pytest.raises(DataError, match="no feature folder"):
        describe(str(bundle_folder), tmp_path)
    with pytest.raises(ConfigError, match="compact is a recipe"):
        describe("compact", tiny_features)


def test_data_of_other_words_is_refused(bundle_folder: Path, tiny_words: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    from duovox.data import prepare

    prepare(tiny_words, tmp_path / "features", tiny_recipe.mel, "mid,low", progress=False)
    with pytest.raises(ConfigError, match="has the labels mid, low, the bundle high, low, mid"):
        describe(str(bundle_folder), tmp_path / "features")


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at nothing; .*nor is it a recipe"):
        describe("nothing")
    with pytest.raises(BundleError, match=r"is no duovox bundle: it has no config\.json$"):
        describe(str(tmp_path))


def test_text_shows_every_fact() -> None:
    facts = {"labels": ["a", "b"], "none": {}, "costs": {"parameters": 1234567, "GMACs": 0.5}, "flag": True, "nothing": None}
    assert describe_text(facts) == "labels: a, b\ncosts:\n  parameters: 1,234,567\n  GMACs: 0.5\nflag: True\nnothing: None"


def test_a_bundle_of_the_package_comes_before_a_recipe_of_its_name() -> None:
    assert describe("words")["labels"][:2] == ["zero (en)", "one (en)"]
    assert describe("compact")["recipe"] == "compact"
