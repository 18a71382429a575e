"""Training the judge: the augmentations, the protocol of the loop, learning, and the judge that comes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from duovox.config import MelConfig, Recipe, TrainConfig, read_recipe
from duovox.contracts import BundleError, DataError
from duovox.data import Features, Statistics
from duovox.evaluation.judge import ResNeXt29
from duovox.runs import recipe_of_part
from duovox.training.judge import JudgeTraining, judge_of_run, mask_band, shift_samples
from duovox.training.optim import update
from duovox.training.schedule import step_generator

CPU = torch.device("cpu")


def two_tones(each: int = 16) -> Features:
    """Clips of a low and a high tone with noise: learnt in a few steps."""
    rng, time = np.random.default_rng(0), np.arange(8000) / 16000
    label = np.arange(4 * each) % 2
    pitch = np.where(label == 0, 300, 2000)[:, None] * rng.uniform(0.8, 1.2, (4 * each, 1))
    waves = 0.3 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.05, (4 * each, 8000))
    names = tuple(map(str, range(4 * each)))
    split = np.repeat(["train", "train", "validation", "test"], each)
    mels = np.zeros((4 * each, 1, 1), np.float16)
    scaled = (waves * 32767).clip(-32768, 32767).astype(np.int16)
    return Features(("low", "high"), MelConfig(), mels, scaled, label, split, names, names, Statistics(0, 1, 0, 1), "d")


RECIPE = Recipe("test", train_judge=TrainConfig(updates=30, batch=8, rate=2e-3, ema_decay=0.5, shift_frames=2))


def trained(steps: int, autocast: torch.dtype | None = None) -> tuple[JudgeTraining, list[float]]:
    trainee = JudgeTraining(RECIPE, two_tones(), CPU, autocast)
    return trainee, [update(trainee, step, step_generator(0, step, CPU))["loss"] for step in range(steps)]


def test_shifted_clips_are_the_clips_moved() -> None:
    waves = torch.randn(64, 100)
    shifted = shift_samples(waves, 3, torch.Generator().manual_seed(0))
    seen = set()
    for wave, moved in zip(waves, shifted, strict=True):
        (offset,) = [k for k in range(-3, 4) if torch.equal(moved[max(0, -k) : 100 - max(0, k)], wave[max(0, k) : 100 + min(0, k)])]
        assert torch.count_nonzero(moved) == 100 - abs(offset)
        seen.add(offset)
    assert seen == set(range(-3, 4))


@pytest.mark.parametrize("dim", [2, 3])
def test_a_mask_is_one_band_of_the_mean(dim: int) -> None:
    mel = torch.randn(64, 1, 32, 32)
    masked = mask_band(mel, dim, 6, torch.Generator().manual_seed(0))
    widths = set()
    for before, after in zip(mel, masked, strict=True):
        changed = (before != after)[0].all(dim=3 - dim)
        places = changed.nonzero().flatten()
        assert len(places) == 0 or len(places) == int(places[-1] - places[0]) + 1
        assert torch.allclose(after[after != before], before.mean())
        widths.add(len(places))
    assert widths == set(range(7))


def test_it_learns_two_tones_and_gives_a_judge() -> None:
    trainee, losses = trained(30, torch.bfloat16)
    assert losses[0] > 0.3 and np.mean(losses[-4:]) < 0.3
    assert trainee.validate() == {"accuracy": pytest.approx(1, abs=0.1)}
    judge = trainee.judge()
    assert judge.labels == ("low", "high")
    index = trainee.features.indices("test")
    heard = judge.score(trainee.features.waves[index]).probabilities.argmax(axis=1)
    assert (heard == trainee.features.label[index]).mean() == pytest.approx(trainee.accuracy("test"))
    assert judge_of_run(("low", "high"), trainee.weights()).digest == judge.digest


def test_a_step_depends_on_its_number_alone() -> None:
    (one, first), (two, second) = trained(2), trained(2)
    assert first == second
    for name, tensor in one.weights().items():
        assert torch.equal(tensor, two.weights()[name]), name


def test_the_average_and_the_network_differ() -> None:
    trainee, losses = trained(2)
    assert np.isfinite(losses).all() and trainee.part == "judge"
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in trainee.weights().values())
    assert not torch.equal(trainee.weights()["stem.weight"], trainee.network.state_dict()["stem.weight"])


def test_features_of_another_rate_and_foreign_weights_are_refused() -> None:
    features = dataclasses.replace(two_tones(4), mel=MelConfig(sample_rate=22050))
    with pytest.raises(DataError, match="hears 16000 Hz, these features are of 22050 Hz"):
        JudgeTraining(RECIPE, features, CPU, None)
    assert judge_of_run(("a", "b"), ResNeXt29(2).state_dict()).kind == "resnext29"
    with pytest.raises(BundleError, match="not the weights of this judge"):
        judge_of_run(("a", "b"), {"other": torch.zeros(1)})


def test_the_recipe_says_which_network() -> None:
    trainee = JudgeTraining(dataclasses.replace(RECIPE, judge="resnext29"), two_tones(), CPU, None)
    assert trainee.judge().kind == "resnext29"
    assert recipe_of_part(RECIPE, "judge").keys() == {"name", "train_judge"}, "older runs go on"
    assert recipe_of_part(read_recipe("paper"), "judge")["judge"] == "resnext29"
