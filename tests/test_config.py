"""config.py: settings that come back as they went out, and one clear line for every setting that cannot be."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duovox.config import (
    PRESETS,
    EncoderConfig,
    MelConfig,
    MelScale,
    NoiseConfig,
    PresetName,
    Recipe,
    SampleConfig,
    SubnetConfig,
    TrainConfig,
    VocoderConfig,
    from_dict,
    read_recipe,
    to_dict,
    to_json,
    write_recipe,
)
from duovox.contracts import ConfigError
from duovox.costs import count_costs
from duovox.model import build_classifier, build_model

positive = st.floats(1e-6, 1e6)
counts = st.integers(1, 10**6)
widths = st.lists(st.integers(1, 64).map(lambda n: 8 * n), min_size=4, max_size=4).map(tuple)
recipes = st.builds(
    Recipe,
    name=st.text(min_size=1),
    about=st.text(),
    mel_scale=st.sampled_from(["range", "standard"]),
    mel=st.builds(MelConfig, fmin=st.floats(0, 100), floor=positive, frames=st.sampled_from([64, 128])),
    noise=st.builds(NoiseConfig, kind=st.sampled_from(["vp", "edm"]), log_sigma_mean=st.floats(-10, 10), sigma_data=positive),
    classifier=st.builds(EncoderConfig, widths=widths, patch=st.sampled_from([1, 2]), dropout=st.floats(0, 0.9)),
    subnet=st.builds(
        SubnetConfig, widths=widths, fusion=st.sampled_from(["attention", "concat"]), gradient_taps=st.sampled_from(["none", "label"])
    ),
    sample=st.builds(SampleConfig, steps=counts, gamma=st.floats(0, 100), guidance_high=st.one_of(st.just(math.inf), positive)),
    train_subnet=st.builds(TrainConfig, updates=counts, rate=positive, seed=st.integers(0, 2**62)),
)


@given(recipes)
def test_a_recipe_survives_toml_and_json(recipe: Recipe) -> None:
    assert from_dict(Recipe, tomllib.loads(write_recipe(recipe))) == recipe
    assert from_dict(Recipe, json.loads(to_json(recipe))) == recipe


def test_a_recipe_file_takes_its_name_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[subnet]\nheads = 2\n", encoding="utf-8")
    assert read_recipe(path) == Recipe("mine", subnet=SubnetConfig(heads=2))


def test_infinity_is_a_word_in_plain_data_and_a_number_in_toml() -> None:
    assert to_dict(SampleConfig())["guidance_high"] == "inf"
    json.loads(to_json(SampleConfig()), parse_constant=pytest.fail)  # no bare Infinity, which other JSON readers refuse
    assert from_dict(SampleConfig, tomllib.loads("guidance_high = inf")).guidance_high == math.inf


def test_whole_numbers_serve_as_floats_and_lists_as_tuples() -> None:
    assert from_dict(TrainConfig, {"rate": 1}).rate == 1.0
    assert isinstance(from_dict(TrainConfig, {"rate": 1}).rate, float)
    assert from_dict(EncoderConfig, {"widths": [16, 32]}).widths == (16, 32)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        MelConfig().n_mels = 40  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"mel": {"hop_lenght": 256}}, ["mel", "'hop_lenght'", "did you mean 'hop_length'?"]),
        ({"trian_subnet": {}}, ["'trian_subnet'", "did you mean 'train_subnet'?"]),
        ({"sample": {"zzzz": 1}}, ["sample", "'zzzz'", "known: gamma, guidance_high, guidance_low, guide_at, last_sigma, "]),
        ({"subnet": 3}, ["subnet", "expected a table", "3"]),
        ({"subnet": {"fusion": "sum"}}, ["subnet.fusion", "'sum'", "'attention', 'concat'"]),
        ({"classifier": {"blocks": 2.5}}, ["classifier.blocks", "expected int", "2.5"]),
        ({"classifier": {"blocks": True}}, ["classifier.blocks", "expected int", "True"]),
        ({"classifier": {"widths": 64}}, ["classifier.widths", "expected a list", "64"]),
        ({"classifier": {"widths": [64, "a"]}}, ["classifier.widths", "expected int", "'a'"]),
        ({"noise": {"sigma_data": "0.5"}}, ["noise.sigma_data", "expected float", "'0.5'"]),
        ({"name": 3}, ["name", "expected str", "3"]),
        ({"train_vocoder": {"rate": -1}}, ["train_vocoder", "rate", "-1"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(data: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(Recipe, {"name": "x", **data})
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="'name'"):
        from_dict(Recipe, {})


POSITIVE: list[tuple[type, str]] = [
    *((MelConfig, name) for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "floor", "clip_samples", "frames")),
    (MelScale, "scale"),
    *((NoiseConfig, name) for name in ("sigma_data", "sigma_min", "rho", "log_sigma_std")),
    *((EncoderConfig, name) for name in ("patch", "blocks", "bottleneck_blocks", "embedding", "group_size")),
    *((SubnetConfig, name) for name in ("blocks", "embedding", "group_size", "heads")),
    *((VocoderConfig, name) for name in ("width", "hidden", "blocks", "kernel", "pitch_width", "discriminator_width", "crop_frames")),
    *((TrainConfig, name) for name in ("batch", "rate", "clip_norm", "validate_every", "checkpoint_every")),
    (SampleConfig, "steps"),
]


@pytest.mark.parametrize(("kind", "name"), POSITIVE)
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_must_be_positive(kind: type, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"\.{name} must be positive, not {value}"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (MelConfig, {"win_length": 2048}, "win_length 2048"),
        (MelConfig, {"fmin": -1.0}, "fmin -1"),
        (MelConfig, {"fmin": 4000.0, "fmax": 4000.0}, "fmin 4000"),
        (MelConfig, {"fmax": 8001.0}, "fmax 8001"),
        (MelConfig, {"frames": 63}, "frames 63"),
        (MelConfig, {"clip_samples": 200, "frames": 3}, "n_fft 1024"),
        (NoiseConfig, {"sigma_min": 80.0}, "sigma_min 80.0 must lie below sigma_max 80.0"),
        (NoiseConfig, {"beta_min": -0.1}, "beta_min"),
        (NoiseConfig, {"beta_min": 20.0}, "beta_min 20.0 must lie below beta_max"),
        (NoiseConfig, {"kind": "ve"}, "kind: 've' is none of 'vp', 'edm'"),
        (EncoderConfig, {"widths": ()}, "widths"),
        (EncoderConfig, {"widths": (8, 0)}, "widths"),
        (EncoderConfig, {"dropout": 1.0}, "dropout"),
        (SubnetConfig, {"widths": (8, 10)}, "widths .* heads 4"),
        (SubnetConfig, {"label_share": 1.1}, "label_share"),
        (SubnetConfig, {"dropout": -0.1}, "dropout"),
        (SubnetConfig, {"gradient_taps": "both"}, "gradient_taps"),
        (VocoderConfig, {"kernel": 4}, "kernel"),
        (VocoderConfig, {"mel_weight": -1.0}, "mel_weight"),
        (TrainConfig, {"cooldown": 1.5}, "cooldown"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay"),
        (TrainConfig, {"label_smoothing": 1.0}, "label_smoothing"),
        (TrainConfig, {"warmup": -1}, "warmup"),
        (TrainConfig, {"shift_frames": -1}, "shift_frames"),
        (TrainConfig, {"weight_decay": -1.0}, "weight_decay"),
        (SampleConfig, {"gamma": -1.0}, "gamma"),
        (TrainConfig, {"gain_db": -1.0}, "gain_db"),
        (TrainConfig, {"stretch_mel": -0.1}, "stretch_mel"),
        (TrainConfig, {"stretch_mel": 1.0}, "stretch_mel"),
        (TrainConfig, {"balance": -0.5}, "balance"),
        (SampleConfig, {"preset": "fast"}, "preset: 'fast' is none of 'own', 'quality', 'balanced', 'turbo', 'paper'"),
        (SampleConfig, {"sampler": "euler"}, "sampler: 'euler' is none of 'heun', 'dpmpp_2m', 'euler_maruyama'"),
        (SampleConfig, {"guidance_low": 2.0, "guidance_high": 2.0}, "guidance_low 2.0 must lie below guidance_high 2.0"),
    ],
)
def test_an_impossible_value_is_named(kind: type, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        kind(**values)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MelScale, "shift"),
        (MelScale, "scale"),
        (MelConfig, "floor"),
        (MelConfig, "fmin"),
        (NoiseConfig, "sigma_max"),
        (NoiseConfig, "log_sigma_mean"),
        (NoiseConfig, "beta_max"),
        (EncoderConfig, "dropout"),
        (TrainConfig, "rate"),
        (TrainConfig, "weight_decay"),
        (SampleConfig, "gamma"),
        (SampleConfig, "guidance_low"),
        (SampleConfig, "guidance_high"),
    ],
)
def test_numbers_must_be_finite(kind: type, name: str, value: float) -> None:
    """All but the upper end of the guidance interval, which may be (and is by default) plus infinity."""
    if name == "guidance_high" and value == math.inf:
        assert SampleConfig(guidance_high=value).guidance_high == value
        return
    with pytest.raises(ConfigError, match=name):
        kind(**{name: value})


def test_a_mel_that_the_strides_do_not_divide_is_refused() -> None:
    good = read_recipe("compact")
    with pytest.raises(ConfigError, match=r"88 x 64.*stride 16"):
        replace(good, mel=replace(good.mel, n_mels=88))
    with pytest.raises(ConfigError, match=r"80 x 72.*stride 16"):
        replace(good, mel=replace(good.mel, frames=72))
    with pytest.raises(ConfigError, match=r"subnet\.widths and classifier\.widths"):
        replace(good, subnet=replace(good.subnet, widths=(64, 96, 128)))


def test_a_recipes_own_choices_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.mel_scale: 'decibel' is none of 'range', 'standard'"):
        Recipe("x", mel_scale="decibel")  # type: ignore[arg-type]


def test_padded_length_gives_exactly_the_frames() -> None:
    assert MelConfig().padded_samples == 63 * 256


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"'compakt'.*compact.*paper"):
        read_recipe("compakt")


def test_a_recipe_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, broken, foreign = tmp_path / "missing.toml", tmp_path / "broken.toml", tmp_path / "foreign.toml"
    broken.write_text("[mel\n", encoding="utf-8")
    foreign.write_bytes(b"\xff\xfa")
    for path in (missing, broken, foreign, tmp_path):
        with pytest.raises(ConfigError, match=path.stem):
            read_recipe(path)


def test_shipped_recipes_load_and_come_back() -> None:
    folder = Path(__file__).resolve().parents[1] / "src" / "duovox" / "recipes"
    names = {path.stem for path in folder.glob("*.toml")}
    assert {"compact", "paper"} <= names
    for name in names:
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.about
        assert from_dict(Recipe, tomllib.loads(write_recipe(recipe))) == recipe


def test_the_paper_recipe_has_the_papers_size() -> None:
    """Table 1 of arXiv 2606.20457, with its ten digits: parameters within 5 %, multiply-accumulates within 10 %."""
    recipe = read_recipe("paper")
    torch.manual_seed(0)
    costs = count_costs(build_model(recipe, build_classifier(recipe, 10)))
    assert costs.classifier_parameters == pytest.approx(7.9e6, rel=0.05)
    assert costs.subnet_parameters == pytest.approx(4.4e6, rel=0.05)
    assert costs.unconditional_gmacs == pytest.approx(12.07, rel=0.1)
    assert costs.guided_gmacs == pytest.approx(16.44, rel=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_settings_and_what_is_given_beside_it_wins(name: PresetName) -> None:
    own = SampleConfig(steps=9, gamma=1.5, guidance_low=0.2, schedule="early", guide_at="estimate")
    begun = own.changed({"preset": name})
    assert begun == replace(own, preset=name, **PRESETS[name])
    assert (begun.gamma, begun.guide_at) == (1.5, "estimate"), "which the bundle knows best"
    assert own.changed({"preset": name, "steps": 5, "gamma": 0.0}) == replace(begun, steps=5, gamma=0.0)
    assert begun.changed({"steps": 6}) == replace(begun, steps=6), "a preset is applied once"


def test_presets_are_what_they_are_said_to_be() -> None:
    """`paper` is 100 evaluations of Euler-Maruyama; each is a preset of the class, and says only what fields say."""
    assert tuple(PRESETS) == get_args(PresetName)
    paper = SampleConfig().changed({"preset": "paper"})
    assert (paper.sampler, paper.steps, paper.guidance_low, paper.guidance_high) == ("euler_maruyama", 100, 0.0, math.inf)


@pytest.mark.parametrize("value", ["fast", "", 3, ["quality"]])
def test_what_is_no_preset(value: object) -> None:
    with pytest.raises(ConfigError, match=r"sample.preset: .* is none of 'own', 'quality', 'balanced', 'turbo', 'paper'"):
        SampleConfig().changed({"preset": value})
