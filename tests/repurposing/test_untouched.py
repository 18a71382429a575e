"""What its owner gave stays as it was, whatever happens to our copy."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from speaking import (
    CPU,
    MEL,
    WORDS,
    OnWaves,
    Recurrent,
    fresh,
    no_export_fixture,
    snapshot,
    tiny_vocoder,
    touchy,
)
from torch import Tensor

from duovox.classifiers.loading import Loaded
from duovox.config import Recipe, WaveInput
from duovox.contracts import ClassifierError, TrainingError
from duovox.repurposing import building, repurpose
from duovox.training.classifier import ClassifierTraining
from duovox.training.optim import Losses
from duovox.training.subnet import SubnetTraining

no_export = no_export_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


class StopError(Exception):
    """Raised in the middle of something."""


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_untouched_when_training_ends_in_the_middle(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    network = touchy()
    before = snapshot(network)
    real = SubnetTraining.losses

    def broken(self: SubnetTraining, drawn: dict[str, Tensor]) -> Tensor:
        real(self, drawn)
        raise error

    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe)
    with monkeypatch.context() as patch:
        patch.setattr(SubnetTraining, "losses", broken)
        with pytest.raises(error):
            made.train(tiny_features, tmp_path / "out", **CPU)
    assert snapshot(network) == before
    assert made.train(tiny_features, tmp_path / "out", updates=2, resume=True, **CPU).labels == WORDS
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(("part", "number"), [("classifier", signal.SIGTERM), ("subnet", signal.SIGINT)])
def test_a_stop_signal_stops_the_whole_and_it_goes_on_later(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, part: str
) -> None:
    """Not on to the next part, with half a classifier; the module as it was; and later the same end as without the stop."""
    network = touchy()
    before, handler = snapshot(network), signal.getsignal(number)
    kind: Any = ClassifierTraining if part == "classifier" else SubnetTraining
    real = kind.loss

    def stopped(self: Any, step: int, *given: Any) -> Losses:
        if step == 0:
            os.kill(os.getpid(), number)
        return real(self, step, *given)  # type: ignore[no-any-return]

    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe, conditioned=True)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "loss", stopped)
        with pytest.raises(TrainingError, match=rf"{part}.*step 1 of 2.*resume=True"):
            made.train(tiny_features, tmp_path / "out", updates=2, **CPU)
    assert snapshot(network) == before and signal.getsignal(number) == handler
    assert (tmp_path / "out" / "subnet").exists() == (part == "subnet")
    voice = made.train(tiny_features, tmp_path / "out", updates=2, resume=True, **CPU)
    whole = made.train(tiny_features, tmp_path / "whole", updates=2, **CPU)
    ours, theirs = (v.bundle.model.state_dict() for v in (voice, whole))
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
def test_a_time_budget_is_no_stop(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    made = repurpose(fresh(Recurrent), WORDS, MEL, output="scores", recipe=tiny_recipe)
    assert made.train(tiny_features, tmp_path / "out", time_budget=0, **CPU).labels == WORDS


def test_untouched_when_repurposing_fails(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = touchy()
    before = snapshot(network)
    for options in ({"labels": ("a", "b")}, {"labels": WORDS, "taps": ["nothing"]}, {"labels": WORDS, "output": "nothing"}):
        with pytest.raises(ClassifierError):
            repurpose(network, features=MEL, recipe=tiny_recipe, **options)  # type: ignore[arg-type]
        assert snapshot(network) == before
    for name in ("candidates", "export_bytes", "_with_classifier"):
        with monkeypatch.context() as patch:
            patch.setattr(building, name, lambda *_: (_ for _ in ()).throw(StopError))
            with pytest.raises(StopError):
                repurpose(network, WORDS, MEL, recipe=tiny_recipe)
        assert snapshot(network) == before
    loaded = Loaded(network, "factory", "a:b")
    with pytest.raises(ClassifierError):
        repurpose(loaded, ("a", "b"), MEL, recipe=tiny_recipe)
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
def test_the_vocoder_given_is_not_touched_either(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    vocoder = tiny_vocoder(tiny_recipe).train()
    before = snapshot(vocoder)
    voice = repurpose(fresh(OnWaves), WORDS, WaveInput(samples=3840, layout="B1S"), recipe=tiny_recipe, vocoder=vocoder).train(
        tiny_features, tmp_path / "out", updates=1, **CPU
    )
    assert snapshot(vocoder) == before
    inner = voice.bundle.vocoder
    assert inner is not None and inner is not vocoder and not inner.training and not any(p.requires_grad for p in inner.parameters())
