"""table.py: the layers of a classifier in Markdown, and why there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from speaking import MEL, WORDS, Plain, Spoken, fresh, no_export_fixture, tellers_fixture
from torch import Tensor

from duovox.config import Recipe
from duovox.repurposing import layers_of, repurpose

tellers, no_export = tellers_fixture, no_export_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


def test_the_table_of_layers(tellers: Callable[[str], Spoken]) -> None:
    made = tellers("plain").made
    table = made.layers_table().splitlines()
    assert [line for line in table if line.startswith("| *")] == [line for line in table if any(f"* {tap} |" in line for tap in made.taps)]
    assert not any("head" in line for line in table)
    assert "| - head | Linear | its output has no extent in time or frequency |" in made.layers_table(faulty=True)


def test_layers_that_call_no_hooks_are_named_as_the_reason(tellers: Callable[[str], Spoken]) -> None:
    """And `--all` is not named, for it would show no more."""
    for faulty in (False, True):
        text = tellers("script").made.layers_table(faulty)
        assert "no layer can be tapped: none is seen to run, as in a TorchScript program" in text and "--all" not in text


class Folds(Plain):
    """Each frame is a picture of its own, in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        frames = x.permute(0, 3, 2, 1).reshape(-1, 1, 16, 1)
        return super().forward(frames.expand(-1, -1, -1, 4)).reshape(len(x), 16, -1).mean(1)


@pytest.mark.usefixtures("no_export")
def test_where_nothing_can_be_tapped_the_table_says_why_and_where_to_look(tiny_recipe: Recipe) -> None:
    made = repurpose(fresh(Folds), WORDS, MEL, recipe=tiny_recipe)
    text = made.layers_table()
    assert made.taps == () and "|" not in text
    assert text.startswith("no layer can be tapped (7 of 7: it folds positions of each clip into the batch); `duovox taps --all`")
    assert "| - body.0 | Conv2d | it folds 16 positions of each clip into the batch: (48, 8, 8, 2) for 3 clips |" in made.layers_table(True)


@pytest.mark.usefixtures("no_export")
def test_what_was_done_stands_below_the_table(tiny_recipe: Recipe) -> None:
    class Sure(Plain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).softmax(1)

    made = layers_of(fresh(Sure).double(), MEL, recipe=tiny_recipe)
    assert made.layers_table().endswith(
        "\n\nnote: its weights are float64; they are converted to float32\n"
        "note: its outputs are probabilities (add up to 1); they are read as log p"
    )
    assert made.classifier.config.labels == ("0", "1", "2")


@pytest.mark.usefixtures("no_export")
def test_layers_are_listed_without_labels(tiny_recipe: Recipe) -> None:
    with torch.random.fork_rng(devices=[]):
        made, known = layers_of(fresh(Plain), MEL, recipe=tiny_recipe), repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe)
    assert made.layers == known.layers and made.taps == known.taps and made.notes == ()
