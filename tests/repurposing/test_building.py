"""building.py: what cannot be repurposed is refused with the reason; what can is the same in every process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from speaking import (
    CPU,
    MEL,
    WORDS,
    OnWaves,
    Plain,
    Recurrent,
    fresh,
    no_export_fixture,
    one_line,
    tiny_vocoder,
)
from torch import Tensor, nn

from duovox.classifiers.loading import load_network
from duovox.config import Recipe, TapConfig, WaveInput
from duovox.contracts import BundleError, ClassifierError, ConfigError
from duovox.repurposing import repurpose
from duovox.voice import Duovox

no_export = no_export_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


class Variant(Plain):
    """A classifier whose forward goes through `change`."""

    def __init__(self, change: Callable[[Plain, Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self, x)


def in_place(self: Plain, x: Tensor) -> Tensor:
    return self.head(self.body[0](x).relu_().mean((2, 3)))


def refused(network: Any, *words: str, recipe: Recipe, kind: type[Exception] = ClassifierError, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        repurpose(network, **({"labels": WORDS, "features": MEL} | options), recipe=recipe)
    one_line(caught, *words)


def test_modules_that_cannot_be_frozen(tiny_recipe: Recipe) -> None:
    refused("model.pt", "torch.nn.Module", "str", "load_network", recipe=tiny_recipe)
    refused(Plain, "torch.nn.Module", recipe=tiny_recipe)
    script = torch.jit.trace(fresh(Plain), torch.randn(1, 1, 16, 16))
    refused(script, "TorchScript", "load_network", recipe=tiny_recipe)
    refused(Plain().train(), "'body.1'", "BatchNorm2d", "train mode", "eval()", recipe=tiny_recipe)
    network = fresh(Plain)
    network.body[1].train()  # type: ignore[index,union-attr]
    refused(network, "'body.1'", "train mode", recipe=tiny_recipe)
    network = fresh(Plain)
    network.body[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()  # type: ignore[index,operator]
    refused(network, "'body.1'", "no running statistics", recipe=tiny_recipe)
    network = fresh(Plain)
    network.head.weight = nn.Parameter(torch.empty(3, 8, device="meta"))  # type: ignore[union-attr]
    refused(network, "one device", "'head.weight' on meta", "on cpu", recipe=tiny_recipe)
    network = fresh(Plain)
    network.secret = (line for line in "ab")  # type: ignore[assignment]
    refused(network, "cannot be copied", "generator", recipe=tiny_recipe)


class Holder(Plain):
    """State that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        pass


def test_state_that_no_file_of_tensors_holds(tiny_recipe: Recipe) -> None:
    refused(fresh(Holder), "_extra_state", recipe=tiny_recipe)


def test_labels_and_features_that_do_not_fit(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    refused(network, "(3, 3)", "2 labels", "order of its outputs", recipe=tiny_recipe, labels=("yes", "no"))
    refused(network, "labels", "order of the outputs", recipe=tiny_recipe, labels=None)
    refused(network, "labels", recipe=tiny_recipe, labels=())
    refused(network, "features=", recipe=tiny_recipe, features=None)
    refused(network, "different names", "'mid', 'mid'", recipe=tiny_recipe, labels=("mid", "mid", "low"), kind=ConfigError)
    refused(network, "texts", "0", recipe=tiny_recipe, labels=(0, 1, 2), kind=ConfigError)
    refused(network, "features", "dict", recipe=tiny_recipe, features={"n_mels": 16})
    refused(network, "package's vocoder", "recipe tiny", "vocoder=", recipe=tiny_recipe, features=WaveInput())
    wrong = dataclasses.replace(tiny_recipe, mel=dataclasses.replace(tiny_recipe.mel, floor=1e-4))
    refused(network, "mel.floor = 0.0001", recipe=tiny_recipe, vocoder=tiny_vocoder(wrong), kind=BundleError)
    refused(fresh(Recurrent), "no entry 'nothing'", "scores", recipe=tiny_recipe, output="nothing")
    refused(fresh(OnWaves), "cannot run", "(1, 1, 16, 16)", recipe=tiny_recipe)


def test_logits_that_are_none(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    nn.init.constant_(network.body[3].bias, float("nan"))  # type: ignore[index,union-attr]
    refused(network, "not finite", "'body.3'", recipe=tiny_recipe)
    for change in (lambda self, x: Plain.forward(self, x).detach(), lambda self, x: Plain.forward(self, 0 * x.detach())):
        refused(Variant(change).eval(), "no gradient", "detach()", recipe=tiny_recipe)
    refused(Variant(lambda self, x: Plain.forward(self, x).argmax(1)).eval(), "whole numbers", "argmax", recipe=tiny_recipe)
    refused(Variant(lambda self, x: Plain.forward(self, x)[0]).eval(), "(3,)", "no axis", recipe=tiny_recipe)


@pytest.mark.usefixtures("no_export")
def test_taps_that_cannot_be(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    refused(network, "no layer 'body.9'", "near are", "body.4", recipe=tiny_recipe, taps=["body.9"])
    refused(network, "'head'", "no extent", recipe=tiny_recipe, taps=["head"])
    refused(network, "each layer once", recipe=tiny_recipe, taps=["body.0", "body.0"], kind=ConfigError)
    refused(network, "'body.0'", "BCT", "4", recipe=tiny_recipe, taps=[TapConfig("body.0", "BCT")])
    refused(Variant(in_place).eval(), "'body.0'", "in place", recipe=tiny_recipe, taps=["body.0"])
    aside = Variant(lambda self, x: Plain.forward(self, x) + 0 * self.body[3](self.body[0](x)).detach().mean()).eval()
    assert repurpose(aside, WORDS, MEL, recipe=tiny_recipe)
    lost = Variant(lambda self, x: (self.body[0](x).detach(), self.head(x.mean((2, 3)).expand(-1, 8)))[1]).eval()
    refused(lost, "'body.0'", "no gradient", recipe=tiny_recipe, taps=["body.0"])
    made = repurpose(network, WORDS, MEL, [TapConfig("body.3", "BCMT"), "body.0"], recipe=tiny_recipe)
    assert set(made.taps) == {"body.3", "body.0"}
    with pytest.raises(ConfigError, match="axes"):
        TapConfig("body.0", "BCMX")


def test_a_network_with_frozen_or_no_parameters(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    """TorchScript that was frozen holds its weights as constants."""
    program = torch.jit.freeze(torch.jit.trace(fresh(Plain), torch.randn(1, 1, 16, 16)))
    program.save(str(tmp_path / "theirs.pt"))
    made = repurpose(load_network(tmp_path / "theirs.pt"), WORDS, MEL, recipe=tiny_recipe)
    made.train(tiny_features, tmp_path / "out", updates=1, **CPU).save_pretrained(tmp_path / "bundle")
    assert Duovox.from_pretrained(tmp_path / "bundle", trust_code=True).generate("low", steps=1, keep_faulty=True)


class Masked(Plain):
    """With a buffer of minus infinities, as attention masks are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x @ self.mask.softmax(1))


@pytest.mark.parametrize("conditioned", [False, True])
def test_infinite_masks_are_weights_too(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, conditioned: bool) -> None:
    made = repurpose(fresh(Masked), WORDS, MEL, recipe=tiny_recipe, conditioned=conditioned)
    made.train(tiny_features, tmp_path / "out", updates=1, **CPU).save_pretrained(tmp_path / "bundle")
    voice = Duovox.from_pretrained(tmp_path / "bundle", trust_code=True)
    assert voice.bundle.model.classifier.network.network.get_buffer("mask").isinf().sum() == 120


@pytest.mark.usefixtures("no_export")
def test_one_update_is_enough(tiny_recipe: Recipe) -> None:
    recipe = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=1))
    assert repurpose(fresh(Plain), WORDS, MEL, recipe=recipe).recipe.train_classifier.updates == 1


@pytest.mark.usefixtures("no_export")
def test_repurposing_again_is_the_same_again(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    """In another process, with other random numbers drawn before, the run goes on."""
    weights = []
    for seed in (1, 2):
        network = fresh(Plain)
        torch.manual_seed(seed)
        made = repurpose(network, WORDS, MEL, recipe=tiny_recipe, conditioned=True)
        made.write(tiny_features, tmp_path / "out")
        weights.append(made.classifier.state_dict())
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def test_repurposing_draws_no_random_numbers(tiny_recipe: Recipe) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    repurpose(fresh_without_seed(), WORDS, MEL, recipe=tiny_recipe, conditioned=True)
    assert torch.rand(3).equal(expected)


def fresh_without_seed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return fresh(Plain)
