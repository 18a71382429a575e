"""training/subnet.py: the loss has known answers, only the subnet learns, labels are tapped as often as the recipe says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from duovox.classifiers.frozen import fingerprint
from duovox.config import MelScale, NoiseConfig, Recipe, TrainConfig
from duovox.contracts import ShapeError
from duovox.data import Features, open_features
from duovox.diffusion.taps import NO_LABEL
from duovox.model import build_classifier
from duovox.runs import load_classifier
from duovox.sound.mel import fit_scale
from duovox.training.optim import update
from duovox.training.schedule import step_generator
from duovox.training.subnet import SubnetTraining, denoising_loss

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tiny_features: Path) -> Features:
    return open_features(tiny_features)


def new_training(recipe: Recipe, features: Features, autocast: torch.dtype | None = None) -> SubnetTraining:
    s = features.statistics
    torch.manual_seed(0)
    scale: MelScale = fit_scale(s.low, s.high, s.mean, s.std, "standard")
    return SubnetTraining(recipe, features, scale, build_classifier(recipe, 3), CPU, autocast)


# the loss


@pytest.mark.parametrize("shape", [(4, 1, 4, 4), (2, 1, 3, 5), (1, 1, 2, 2)])
def test_the_loss_of_each_item_is_its_own(shape: tuple[int, ...]) -> None:
    """Error e_i everywhere in item i: loss_i = (e_i / c_out(sigma_i))^2. A weight along another axis would mix the items."""
    noise = NoiseConfig(sigma_data=0.5)
    batch = shape[0]
    sigma = torch.tensor([0.1, 0.5, 2.0, 40.0], dtype=torch.float64)[:batch]
    error = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)[:batch]
    clean = torch.randn(shape, dtype=torch.float64)
    loss = denoising_loss(clean + error.reshape(-1, 1, 1, 1), clean, sigma, noise)
    c_out = sigma * 0.5 / (sigma.square() + 0.25).sqrt()
    assert loss.shape == (batch,)
    torch.testing.assert_close(loss, (error / c_out).square())


def test_the_loss_is_the_mean_over_the_pixels() -> None:
    clean = torch.zeros(2, 1, 2, 3)
    denoised = clean.clone()
    denoised[0, 0, 1, 2] = 6.0  # one of six pixels
    sigma = torch.full((2,), 0.5)  # c_out = 0.25 / sqrt(0.5)
    assert denoising_loss(denoised, clean, sigma, NoiseConfig(sigma_data=0.5)).tolist() == pytest.approx([36 / 6 * 8, 0])


def test_vp_weighting_is_the_mean_square_error_of_eps() -> None:
    noise = NoiseConfig(kind="vp")
    torch.manual_seed(0)
    clean, eps, guess = torch.randn(3, 3, 1, 4, 5, dtype=torch.float64)
    sigma = torch.tensor([0.02, 1.0, 90.0], dtype=torch.float64)
    noised = clean + sigma.reshape(-1, 1, 1, 1) * eps
    denoised = noised - sigma.reshape(-1, 1, 1, 1) * guess
    torch.testing.assert_close(denoising_loss(denoised, clean, sigma, noise), (eps - guess).square().mean(dim=(1, 2, 3)))


def test_a_sigma_that_is_not_one_per_item_is_refused() -> None:
    clean = torch.zeros(4, 1, 4, 4)
    for sigma in (torch.ones(4, 1, 1, 1), torch.ones(1), torch.ones(3)):
        with pytest.raises(ShapeError):
            denoising_loss(clean, clean, sigma, NoiseConfig())


# labels


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (1.0, 60, 60), (0.5, 15, 45)])
def test_labels_are_tapped_for_their_share_of_the_batch(share: float, low: int, high: int, tiny_recipe: Recipe, features: Features) -> None:
    recipe = dataclasses.replace(tiny_recipe, subnet=dataclasses.replace(tiny_recipe.subnet, label_share=share))
    trainee = new_training(recipe, features)
    asked: list[Tensor] = []
    taps = trainee.model.taps

    def spy(noised: Tensor, sigma: Tensor, label: Tensor) -> object:
        asked.append(label)
        return taps(noised, sigma, label)

    trainee.model.taps = spy  # type: ignore[method-assign, assignment]
    label = torch.arange(60) % 3
    losses = trainee.losses(trainee.noised(torch.randn(60, 1, 16, 16), label, torch.Generator().manual_seed(0)))
    assert losses.shape == (60,)
    (tapped,) = asked
    assert low <= int((tapped != NO_LABEL).sum()) <= high
    assert torch.equal(tapped[tapped != NO_LABEL], label[tapped != NO_LABEL])


# learning


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_it_learns_to_denoise_the_tiny_words(autocast: torch.dtype | None, tiny_recipe: Recipe, features: Features) -> None:
    """Also the trap of bf16 autocast on channels-last tensors, whose two backwards must run."""
    train = TrainConfig(updates=60, batch=8, rate=5e-3, ema_decay=0.8, shift_frames=1)
    trainee = new_training(dataclasses.replace(tiny_recipe, train_subnet=train), features, autocast)
    before = trainee.validate()["loss"]
    figures = [update(trainee, step, step_generator(0, step, CPU)) for step in range(60)]
    losses = [figure["loss"] for figure in figures]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    assert trainee.validate()["loss"] < 0.75 * before
    assert all(value.dtype == torch.float32 for value in trainee.weights().values())


def test_only_the_subnet_learns(tiny_recipe: Recipe, features: Features) -> None:
    trainee = new_training(dataclasses.replace(tiny_recipe, train_subnet=TrainConfig(batch=4, warmup=1)), features)
    before = fingerprint(trainee.model.classifier.network)
    subnet = fingerprint(trainee.model.score_network)
    for step in range(3):
        update(trainee, step, step_generator(0, step, CPU))
        trainee.validate()
    assert fingerprint(trainee.model.classifier.network) == before
    assert trainee.model.classifier.unchanged()
    assert fingerprint(trainee.model.score_network) != subnet
    assert all(p.grad is None and not p.requires_grad for p in trainee.model.classifier.parameters())
    assert not trainee.model.classifier.network.training
    trained = {id(p) for group in trainee.optimizers["adamw"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in trainee.model.score_network.parameters()}


def test_a_finished_run_holds_the_subnet_alone_and_names_its_classifier(tiny_recipe: Recipe, tiny_runs: Path, features: Features) -> None:
    subnet = new_training(tiny_recipe, features).model.score_network
    names = set(subnet.state_dict())
    with safe_open(tiny_runs / "subnet" / "checkpoint.safetensors", "pt") as file:
        held = set(file.keys())
        facts = json.loads(file.metadata()["duovox"])["facts"]
    modules = {name for name in held if name.startswith("module/")}
    averages = {f"module/average/module.{name}" for name in names} | {"module/average/n_averaged"}
    assert modules == {f"module/subnet/{name}" for name in names} | averages
    assert {name.split("/")[1] for name in held - modules} == {"adamw"}
    assert len({name.split("/")[2] for name in held - modules}) == len(list(subnet.parameters()))
    assert facts["classifier"] == fingerprint(load_classifier(tiny_runs / "classifier", tiny_recipe, features))


def test_validation_hears_the_average_and_leaves_everything_as_it_was(tiny_recipe: Recipe, features: Features) -> None:
    trainee = new_training(tiny_recipe, features)
    for step in range(2):
        update(trainee, step, step_generator(0, step, CPU))
    subnet = trainee.model.score_network
    before = fingerprint(subnet), fingerprint(trainee.average)
    first = trainee.validate()
    assert trainee.validate() == first
    assert trainee.model.score_network is subnet
    assert (fingerprint(subnet), fingerprint(trainee.average)) == before
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.fill_(torch.nan)
    assert trainee.validate() == first
