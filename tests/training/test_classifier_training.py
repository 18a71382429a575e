"""training/classifier.py: known answers for its parts, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duovox.config import MelScale, Recipe, TrainConfig
from duovox.contracts import DataError
from duovox.data import Features, open_features
from duovox.sound.mel import fit_scale, scale_mel
from duovox.training.augment import altered, random_colour, random_gain, shift_frames, stretch_mel
from duovox.training.classifier import REPORT_SIGMAS, ClassifierTraining, accuracy_by_sigma
from duovox.training.optim import update
from duovox.training.schedule import step_generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tiny_features: Path) -> Features:
    return open_features(tiny_features)


@pytest.fixture(scope="module")
def scale(features: Features) -> MelScale:
    s = features.statistics
    return fit_scale(s.low, s.high, s.mean, s.std, "standard")


# shift_frames


def test_shifted_frames_are_the_frames_moved() -> None:
    mel = torch.arange(10.0).expand(64, 1, 3, 10) + 100 * torch.arange(64.0).reshape(64, 1, 1, 1)
    shifted = shift_frames(mel, 2, torch.Generator().manual_seed(0))
    known = {k: (torch.arange(10) + k).clamp(0, 9).float() for k in range(-2, 3)}  # the edge frame fills the gap
    seen = set()
    for item in range(64):
        (offset,) = [k for k, row in known.items() if torch.equal(shifted[item, 0] - 100 * item, row.expand(3, 10))]
        seen.add(offset)
    assert seen == {-2, -1, 0, 1, 2}


def test_shifting_by_at_most_0_frames_changes_nothing() -> None:
    mel = torch.randn(3, 1, 4, 5)
    assert torch.equal(shift_frames(mel, 0, torch.Generator()), mel)


# accuracy_by_sigma


class Always:
    """Says one label whatever it hears, and keeps what it was asked."""

    def __init__(self, label: int) -> None:
        self.label = label
        self.sigmas: list[Tensor] = []
        self.noised: list[Tensor] = []

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        self.sigmas.append(sigma)
        self.noised.append(noised)
        return nn.functional.one_hot(torch.full((len(noised),), self.label), 3).float()


class Nearest:
    """Says the label of the stored clean mel nearest to what it hears: right wherever the noise is small."""

    def __init__(self, features: Features, split: str, scale: MelScale) -> None:
        self.index = features.indices(split)
        self.known = (torch.from_numpy(features.log_mels[self.index].astype(np.float32)) - scale.shift) / scale.scale
        self.label = torch.from_numpy(features.label[self.index])

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        nearest = torch.cdist(noised.flatten(1), self.known.flatten(1)).argmin(1)
        return nn.functional.one_hot(self.label[nearest], 3).float()


def test_a_constant_answer_is_right_as_often_as_its_label_comes(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    share = float((features.label[features.indices("test")] == 1).mean())
    assert accuracy_by_sigma(Always(1), features, "test", scale, tiny_recipe.noise, CPU) == pytest.approx([share] * len(REPORT_SIGMAS))


def test_accuracy_falls_from_1_to_chance_for_the_nearest_clean_clip(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    table = accuracy_by_sigma(Nearest(features, "train", scale), features, "train", scale, tiny_recipe.noise, CPU, (0.0, 0.01, 1e4))
    assert table[:2] == [1.0, 1.0]
    assert table[2] < 0.8


def test_sigma_0_adds_no_noise_and_asks_at_the_smallest_sigma(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    heard = Always(0)
    accuracy_by_sigma(heard, features, "test", scale, tiny_recipe.noise, CPU, (0.0, 2.0))
    clean, noised = heard.noised
    stored = torch.from_numpy(features.log_mels[features.indices("test")].astype(np.float32))[:, None]
    assert torch.equal(clean, (stored - scale.shift) / scale.scale)
    assert (noised - clean).std().item() == pytest.approx(2, rel=0.1)
    assert heard.sigmas[0].unique().tolist() == pytest.approx([tiny_recipe.noise.sigma_min])
    assert heard.sigmas[1].unique().tolist() == [2.0]


def test_the_same_seed_gives_the_same_noise(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    heard = Always(0)
    for seed in (0, 0, 1):
        accuracy_by_sigma(heard, features, "test", scale, tiny_recipe.noise, CPU, (1.0,), seed=seed)
    assert torch.equal(heard.noised[0], heard.noised[1])
    assert not torch.equal(heard.noised[0], heard.noised[2])


def test_accuracy_on_a_split_without_clips_is_refused(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    empty = dataclasses.replace(features, split=np.full(len(features.label), "train"))
    with pytest.raises(DataError, match="test split has no clips"):
        accuracy_by_sigma(Always(0), empty, "test", scale, tiny_recipe.noise, CPU)


# learning


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_it_learns_the_tiny_words(autocast: torch.dtype | None, tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    """Also the trap of bf16 autocast on channels-last tensors, whose backward must run."""
    train = TrainConfig(updates=40, batch=8, rate=5e-3, ema_decay=0.5, shift_frames=1)
    trainee = ClassifierTraining(dataclasses.replace(tiny_recipe, train_classifier=train), features, scale, CPU, autocast)
    assert trainee.network.stem.weight.is_contiguous(memory_format=torch.channels_last)
    figures = [update(trainee, step, step_generator(0, step, CPU)) for step in range(40)]
    losses = [figure["loss"] for figure in figures]
    assert np.mean(losses[:4]) > 0.9
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:4])
    assert all(0 <= figure["accuracy"] <= 1 for figure in figures)
    assert trainee.validate()["accuracy_at_0"] == 1.0
    assert all(value.dtype == torch.float32 for value in trainee.weights().values())


def test_validation_and_weights_are_of_the_average(tiny_recipe: Recipe, features: Features, scale: MelScale) -> None:
    trainee = ClassifierTraining(tiny_recipe, features, scale, CPU, None)
    for step in range(3):
        update(trainee, step, step_generator(0, step, CPU))
    before = trainee.validate()
    with torch.no_grad():
        for parameter in trainee.network.parameters():
            parameter.fill_(torch.nan)
    assert trainee.validate() == before
    assert all(value.isfinite().all() for value in trainee.weights().values())
    assert trainee.weights().keys() == trainee.network.state_dict().keys()


# augmentation


def test_only_what_the_training_asks_for_changes_the_clips() -> None:
    log_mel = torch.randn(4, 1, 6, 5)

    def augmented(**settings: float) -> Tensor:
        return altered(log_mel, TrainConfig(**settings), step_generator(0, 0, CPU))  # type: ignore[arg-type]

    assert torch.equal(augmented(), log_mel)
    assert torch.equal(augmented(gain_db=6.0), random_gain(log_mel, 6.0, step_generator(0, 0, CPU)))
    assert torch.equal(augmented(stretch_mel=0.1), stretch_mel(log_mel, 0.1, step_generator(0, 0, CPU)))
    assert torch.equal(augmented(colour_db=9.0), random_colour(log_mel, 9.0, step_generator(0, 0, CPU)))


def test_clips_are_changed_as_the_recipe_asks(
    tiny_recipe: Recipe, features: Features, scale: MelScale, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr("duovox.training.classifier.altered", lambda log_mel, train, _: asked.append(train) or torch.zeros_like(log_mel))
    trainee = ClassifierTraining(tiny_recipe, features, scale, CPU, None)
    drawn = trainee.draw(0, step_generator(0, 0, CPU))
    assert asked == [tiny_recipe.train_classifier]
    spread = (drawn["noised"] - scale_mel(torch.zeros(1), scale)).flatten(1).std(dim=1) / drawn["sigma"]
    torch.testing.assert_close(spread, torch.ones_like(spread), rtol=0.25, atol=0)
