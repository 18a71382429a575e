"""The vocoder's training: losses with known answers, that it learns, that it repeats itself, and that it ships the average."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from duovox.config import MelConfig, Recipe
from duovox.data import Features, Statistics
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from duovox.training.optim import update
from duovox.training.vocoder import SpectralLoss, VocoderTraining, crop

CPU = torch.device("cpu")


def hums(mel: MelConfig, clips: int = 8) -> Features:
    """Features of `clips` humming tones of different pitch, half of them for training."""
    time = np.arange(mel.clip_samples) / mel.sample_rate
    pitches = np.linspace(120, 260, clips)[:, None]
    waves = 0.1 * sum(np.sin(2 * math.pi * k * pitches * time + k) / k for k in range(1, 9))
    log_mels = LogMel(mel)(torch.from_numpy(waves).float())[:, 0].half().numpy()
    split = np.array(["train", "validation"] * (clips // 2))
    names = tuple(f"clip{i}" for i in range(clips))
    label, statistics = np.zeros(clips, np.int64), Statistics(-11.5, 2.0, -5.0, 2.0)
    return Features(("hum",), mel, log_mels, (waves * 32767).astype(np.int16), label, split, names, names, statistics, "0")


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    settings = replace(tiny_recipe.vocoder, pitch_updates=2, adversarial_after=4)
    return replace(tiny_recipe, vocoder=settings, train_vocoder=replace(tiny_recipe.train_vocoder, rate=2e-3))


def run(recipe: Recipe, updates: int) -> tuple[VocoderTraining, list[dict[str, float]]]:
    training = VocoderTraining(recipe, hums(recipe.mel), CPU, None)
    return training, [update(training, step, torch.Generator().manual_seed(step)) for step in range(updates)]


def test_losses_come_in_three_stages_and_are_finite(recipe: Recipe) -> None:
    _, losses = run(recipe, 6)
    assert set(losses[0]) == {"pitch", "gradient_norm"}
    assert set(losses[2]) == {"mel", "spectrum", "pitch", "gradient_norm"}
    assert set(losses[4]) == {"mel", "spectrum", "pitch", "discriminators", "adversarial", "features", "gradient_norm"}
    assert all(math.isfinite(value) for step in losses for value in step.values())


def test_it_learns_a_hum(recipe: Recipe) -> None:
    settings = replace(recipe.vocoder, pitch_updates=0, adversarial_after=1000)
    rested = replace(recipe, vocoder=settings, train_vocoder=replace(recipe.train_vocoder, rate=1e-2))
    (before, _), (after, _) = run(rested, 0), run(rested, 30)
    assert after.validate()["mel"] < 0.9 * before.validate()["mel"]


def test_the_same_generator_gives_the_same_update(recipe: Recipe) -> None:
    (first, losses), (second, again) = run(recipe, 6), run(recipe, 6)
    assert losses == again
    assert all(torch.equal(value, second.weights()[name]) for name, value in first.weights().items())


def test_the_first_updates_teach_the_pitch_alone(recipe: Recipe) -> None:
    before = VocoderTraining(recipe, hums(recipe.mel), CPU, None).generator.state_dict()
    training, _ = run(recipe, 2)
    changed = {name for name, value in training.generator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("pitch.") for name in changed)


def test_teaching_the_generator_leaves_the_discriminators_alone(recipe: Recipe) -> None:
    training, _ = run(recipe, 5)
    before = {name: value.clone() for name, value in training.discriminators.state_dict().items()}
    real, fake = torch.randn(2, 2, 2048, generator=torch.Generator().manual_seed(0)).unbind()
    losses = training.adversarial(real, fake.requires_grad_())
    training.updater.step(losses["adversarial"] + losses["features"])
    assert all(torch.equal(value, before[name]) for name, value in training.discriminators.state_dict().items())
    assert fake.grad is not None


def test_the_average_ships(recipe: Recipe) -> None:
    training, _ = run(recipe, 4)
    shipped, raw = training.weights(), training.generator.state_dict()
    assert shipped.keys() == raw.keys()
    assert any(not torch.equal(shipped[name], raw[name]) for name in raw)
    training.generator.load_state_dict(shipped, strict=True)
    assert list(training.validate()) == ["mel", "log_spectral_distance"]


def test_crops_of_wave_and_mel_belong_together() -> None:
    mel = MelConfig(n_mels=16, frames=16, clip_samples=3840)
    wave = torch.arange(3840.0).repeat(2, 1)
    frames = torch.arange(16.0).expand(2, 1, 16, 16)
    piece, part = crop(wave, frames, mel, 8, torch.Generator().manual_seed(0))
    assert piece.shape == (2, 8 * 256)
    assert part.shape == (2, 1, 16, 9)
    assert torch.equal(piece[:, 0], part[:, 0, 0, 0] * 256)
    assert torch.equal(part[0, 0, 0].diff(), torch.ones(8))


def test_spectral_loss_is_zero_only_for_the_same_sound() -> None:
    wave = 0.1 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    assert SpectralLoss()(wave, wave) == 0
    assert SpectralLoss()(0.5 * wave, wave).item() == pytest.approx(math.log(2) + 0.5, rel=0.02)


def test_adversarial_losses_have_their_known_values() -> None:
    scores = [[torch.zeros(1), torch.full((2, 3), 2.0)]]
    opposite = [[torch.zeros(1), torch.full((2, 3), -2.0)]]
    assert discriminator_loss(scores, opposite) == 0
    assert discriminator_loss(opposite, scores) == 6
    assert adversarial_loss(scores) == -2


def test_feature_loss_compares_all_layers_but_the_first_and_the_scores() -> None:
    layers = [torch.ones(1, 2), torch.full((1, 2), 2.0), torch.ones(1, 1)]
    others = [torch.zeros(1, 2), torch.full((1, 2), 3.0), torch.zeros(1, 1)]
    assert feature_loss([layers], [others]) == 0.5


def test_discriminators_judge_each_clip_alone() -> None:
    judges, waves = Discriminators(4), torch.randn(2, 2048, generator=torch.Generator().manual_seed(0))
    together, alone = judges(waves), judges(waves[:1])
    for all_features, one_features in zip(together, alone, strict=True):
        torch.testing.assert_close(all_features[-1][:1], one_features[-1], atol=1e-5, rtol=1e-4)
