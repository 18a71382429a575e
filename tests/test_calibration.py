"""calibration.py: temperatures lie where the likelihood has its maximum, errors are as defined, guidance uses the former."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from duovox.bundle import Bundle, read_bundle
from duovox.calibration import (
    CALIBRATION_SIGMAS,
    HIGHEST,
    LOWEST,
    calibrate,
    calibration_error,
    collect_logits,
    fit_temperature,
    levels_table,
)
from duovox.config import Calibration, MelScale
from duovox.contracts import ConfigError, DataError, GuideAt
from duovox.data import Features, in_order, open_features
from duovox.model import ScoreModel
from duovox.voice import Duovox

SCALE = MelScale("standard", -5.0, 4.0)
PLACES: tuple[GuideAt, ...] = ("noised", "estimate")


@pytest.fixture
def features(tiny_features: Path) -> Features:
    return open_features(tiny_features)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def calibrated(count: int, labels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels that are drawn with just the probabilities that the logits say."""
    logits = 2 * torch.randn(count, labels, generator=generator(seed))
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator(seed + 1))[:, 0]


def loss(logits: Tensor, label: Tensor, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(logits.double() / temperature, label).item()


@pytest.mark.parametrize("factor", [0.7, 1.0, 3.0, 20.0])
def test_a_known_temperature_is_found(factor: float) -> None:
    logits, label = calibrated(20000)
    assert fit_temperature(factor * logits, label) == pytest.approx(factor, rel=0.03)
    assert fit_temperature(factor * logits, label) == pytest.approx(factor * fit_temperature(logits, label), rel=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_at_the_minimum(seed: int) -> None:
    logits = torch.randn(60, 4, generator=generator(seed)) * (1 + 3 * seed)
    label = torch.where(torch.rand(60, generator=generator(9)) < 0.6, logits.argmax(1), torch.randint(4, (60,), generator=generator(8)))
    grid = np.exp(np.linspace(math.log(LOWEST), math.log(HIGHEST), 4001))
    best = float(grid[np.argmin([loss(logits, label, temperature) for temperature in grid])])
    assert LOWEST * 1.1 < best < HIGHEST / 1.1
    assert fit_temperature(logits, label) == pytest.approx(best, rel=3e-3)
    assert loss(logits, label, fit_temperature(logits, label)) <= loss(logits, label, best) + 1e-6


def test_temperatures_end_where_the_range_ends() -> None:
    logits = 5 * torch.nn.functional.one_hot(torch.arange(30) % 3, 3).float()
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(LOWEST, rel=2e-3)  # always right
    assert fit_temperature(logits, (logits.argmax(1) + 1) % 3) == pytest.approx(HIGHEST, rel=2e-3)  # always wrong
    assert LOWEST <= fit_temperature(torch.zeros(4, 3), torch.arange(4) % 3) <= HIGHEST  # nothing to find
    assert LOWEST <= fit_temperature(1e4 * logits, (logits.argmax(1) + 1) % 3) <= HIGHEST


def test_calibration_errors_that_are_known() -> None:
    sure = 100 * torch.eye(3)
    assert calibration_error(sure, torch.arange(3)) == pytest.approx(0, abs=1e-12)
    assert calibration_error(sure, (torch.arange(3) + 1) % 3) == pytest.approx(1)
    assert calibration_error(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])) == pytest.approx(0, abs=1e-12)  # half, and right half
    # 0.9 (two of three right) and 0.6 (none of one right) are two bins of ten; in one bin their errors are summed first
    logits = torch.tensor([[0.9, 0.1]] * 3 + [[0.6, 0.4]]).log()
    label = torch.tensor([0, 0, 1, 1])
    assert calibration_error(logits, label, bins=10) == pytest.approx((3 * (0.9 - 2 / 3) + 0.6) / 4)
    assert calibration_error(logits, label, bins=1) == pytest.approx((3 * 0.9 + 0.6 - 2) / 4)
    logits = torch.tensor([[0.95, 0.05], [0.55, 0.45]]).log()  # too sure and not sure enough do not cancel between bins
    assert calibration_error(logits, torch.tensor([1, 0]), bins=15) == pytest.approx((0.95 + 0.45) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_agrees_with_torchmetrics(seed: int) -> None:
    logits = 3 * torch.randn(400, 6, generator=generator(seed), dtype=torch.float64)
    label = torch.randint(6, (400,), generator=generator(seed + 50))
    expected = multiclass_calibration_error(logits.softmax(1), label, num_classes=6, n_bins=15, norm="l1")
    assert calibration_error(logits, label) == pytest.approx(float(expected), abs=1e-6)


def test_a_calibrated_model_has_hardly_any_error() -> None:
    logits, label = calibrated(20000)
    assert calibration_error(logits, label) < 0.02 < 0.1 < calibration_error(3 * logits, label)
    assert calibration_error(3 * logits / fit_temperature(3 * logits, label), label) < 0.02


# on a model


@pytest.mark.parametrize("place", PLACES)
def test_a_model_is_calibrated(tiny_model: ScoreModel, features: Features, place: GuideAt) -> None:
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    fitted, levels = calibrate(tiny_model, features, SCALE, place)
    assert fitted.guide_at == place and fitted.sigmas == CALIBRATION_SIGMAS and len(levels) == len(CALIBRATION_SIGMAS)
    assert fitted.temperatures == tuple(level.temperature for level in levels)
    assert all(LOWEST <= value <= HIGHEST for value in fitted.temperatures)
    for number, level in enumerate(levels):
        assert level.sigma == CALIBRATION_SIGMAS[number]
        held, label = collect_logits(tiny_model, features, "validation", SCALE, level.sigma, place, 256, 2 * number)
        assert level.temperature == fit_temperature(held, label)
        assert loss(held, label, level.temperature) <= loss(held, label, 1.0) + 1e-9
        test, label = collect_logits(tiny_model, features, "test", SCALE, level.sigma, place, 256, 2 * number + 1)
        assert level.accuracy == pytest.approx((test.argmax(1) == label).double().mean().item())
        assert level.loss_before == pytest.approx(loss(test, label, 1.0)) and level.error_before == calibration_error(test, label)
        assert level.loss_after == pytest.approx(loss(test, label, level.temperature), rel=1e-5)
        assert level.error_after == pytest.approx(calibration_error(test / level.temperature, label), abs=1e-6)
    assert calibrate(tiny_model, features, SCALE, place) == (fitted, levels)
    assert calibrate(tiny_model, features, SCALE, place, seed=1)[0] != fitted
    assert all(value.equal(before[name]) for name, value in tiny_model.state_dict().items())
    table = levels_table(levels).splitlines()
    assert len(table) == 2 + len(levels) and all(line.count("|") == table[0].count("|") for line in table)
    assert table[2].startswith(f"| 0.01 | {levels[0].accuracy:.3f} | {levels[0].temperature:.2f} |")


def test_logits_are_taken_where_the_guidance_takes_them(tiny_model: ScoreModel, features: Features) -> None:
    noised, label = collect_logits(tiny_model, features, "test", SCALE, 2.0, "noised", 256, 0)
    estimate, again = collect_logits(tiny_model, features, "test", SCALE, 2.0, "estimate", 256, 0)
    assert label.equal(again) and label.tolist() == features.label[features.indices("test")].tolist()
    batch = next(in_order(features, "test", 128))
    clean = (batch.log_mel - SCALE.shift) / SCALE.scale
    level = torch.full((len(clean),), 2.0)
    mel = clean + 2.0 * torch.randn(clean.shape, generator=generator())
    with torch.no_grad():
        assert torch.allclose(noised, tiny_model.classifier(mel, level), atol=1e-5)
        cleaned = tiny_model(mel, level)
        assert torch.allclose(estimate, tiny_model.classifier(cleaned, torch.full_like(level, tiny_model.noise.sigma_min)), atol=1e-5)
    assert not torch.allclose(noised, estimate, atol=1e-2)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (4, 3), (5, 3), (6, 6), (100, 6)])
def test_a_limit_is_kept_and_its_clips_are_spread(tiny_model: ScoreModel, features: Features, limit: int, count: int) -> None:
    """Also over many batches: the split is the test split's clips, many times over."""
    _, label = collect_logits(tiny_model, features, "test", SCALE, 1.0, "noised", limit, 0)
    assert len(label) == count <= limit
    rows = np.tile(features.indices("test"), 60)
    many = dataclasses.replace(
        features, log_mels=features.log_mels[rows], waves=features.waves[rows], label=np.arange(len(rows)), split=np.full(len(rows), "test")
    )
    _, places = collect_logits(tiny_model, many, "test", SCALE, 1.0, "noised", 5 * limit, 0)
    steps = places.diff().unique().tolist()
    assert len(places) <= 5 * limit and len(steps) == 1 and places[0] == 0
    assert len(rows) - places[-1] <= steps[0]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_empty_split_is_one_line(tiny_model: ScoreModel, features: Features, split: str) -> None:
    without = dataclasses.replace(features, split=np.where(features.split == split, "train", features.split))
    with pytest.raises(DataError, match=f"the {split} split has no clips"):
        calibrate(tiny_model, without, SCALE, "noised", sigmas=(1.0,))


# in use


@pytest.mark.parametrize("place", PLACES)
def test_temperatures_are_kept_and_guide(bundle_folder: Path, tiny_features: Path, tmp_path: Path, place: GuideAt) -> None:
    bundle = read_bundle(bundle_folder)
    recipe = dataclasses.replace(bundle.config.recipe, sample=dataclasses.replace(bundle.config.recipe.sample, guide_at=place))
    voice = Duovox(dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, recipe=recipe)))
    other: GuideAt = "noised" if place == "estimate" else "estimate"

    def clips(voice: Duovox) -> list[NDArray[np.float32]]:
        """Guided as usual, guided at the other place, not guided."""
        return [voice.generate(label, seed=2, guide_at=at)[0].log_mel for label, at in (("low", None), ("low", other), (None, None))]

    before = clips(voice)
    levels = voice.calibrate(tiny_features)
    fitted = voice.config.calibration
    assert fitted.guide_at == place and fitted.temperatures == tuple(level.temperature for level in levels)
    after = clips(voice)
    assert [np.array_equal(one, two) for one, two in zip(before, after, strict=True)] == [False, True, True]
    voice.save_pretrained(tmp_path / "bundle")
    again = Duovox.from_pretrained(tmp_path / "bundle")
    assert again.config.calibration == fitted
    assert all(np.array_equal(one, two) for one, two in zip(after, clips(again), strict=True))
    forgotten = dataclasses.replace(again.bundle, config=dataclasses.replace(again.config, calibration=Calibration()))
    assert all(np.array_equal(one, two) for one, two in zip(before, clips(Duovox(forgotten)), strict=True))


def test_no_guidance_is_left_at_the_highest_temperatures(tiny_bundle: Bundle) -> None:
    """So temperatures divide the logits: high ones weaken, low ones strengthen."""
    sigmas = (0.01, 80.0)
    guide_at = tiny_bundle.config.recipe.sample.guide_at
    distances = []
    try:
        for temperature in (1.0, 3.0, 1e6):
            calibration = Calibration(guide_at, sigmas, (temperature, temperature))
            voice = Duovox(dataclasses.replace(tiny_bundle, config=dataclasses.replace(tiny_bundle.config, calibration=calibration)))
            free, guided = voice.generate("low", seed=2, gamma=0)[0].log_mel, voice.generate("low", seed=2)[0].log_mel
            distances.append(float(np.abs(guided - free).max()))
    finally:
        tiny_bundle.model.calibration = tiny_bundle.config.calibration
    assert distances[0] > distances[1] > 100 * distances[2]


@pytest.mark.parametrize(
    "fields",
    [
        {"sigmas": (1.0,), "temperatures": ()},
        {"sigmas": (2.0, 1.0), "temperatures": (1.0, 1.0)},
        {"sigmas": (1.0, 1.0), "temperatures": (1.0, 1.0)},
        {"sigmas": (1.0,), "temperatures": (0.0,)},
        {"sigmas": (0.0,), "temperatures": (1.0,)},
        {"guide_at": "nowhere"},
    ],
)
def test_temperatures_that_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="calibration"):
        Calibration(**fields)  # type: ignore[arg-type]
