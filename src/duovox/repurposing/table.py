"""The table of a classifier's layers: takes the candidates of `discovery` and a recipe's decoder, gives Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from duovox.classifiers.discovery import Candidate
from duovox.config import Recipe
from duovox.model import nearest_stage

HEAD = ("| layer | kind | shape | axes | rows, frames a position | values | cost (MMACs) |", "|" + "---|" * 7)


def layers_table(layers: Sequence[Candidate], taps: Collection[str], recipe: Recipe, faulty: bool = False) -> str:
    """The layers as a Markdown table, the tapped ones marked with `*`; `faulty` lists those that cannot be tapped as well, and why.

    Without a layer to list, one sentence says why there is none.
    """
    lines = [_line(layer, layer.name in taps, cost(layer, recipe)) for layer in layers if not layer.fault]
    if faulty:
        lines = [_faulty_line(layer) if layer.fault else _line(layer, layer.name in taps, cost(layer, recipe)) for layer in layers]
    return "\n".join([*HEAD, *lines]) if lines else nothing_to_tap(layers)


def nothing_to_tap(layers: Sequence[Candidate]) -> str:
    """Why none of the layers can be tapped, and what that means."""
    then = "the decoder would read the classifier's input alone"
    if not layers:
        return f"no layer can be tapped: none is seen to run, as in a TorchScript program, whose layers call no hooks; {then}"
    reasons = Counter(re.sub(r"\b\d+ (?=positions)| \(.*|:.*", "", layer.fault) for layer in layers)
    counted = ", ".join(f"{count} of {len(layers)}: {reason}" for reason, count in reasons.most_common(3))
    return f"no layer can be tapped ({counted}); `duovox taps --all` (layers_table(faulty=True)) lists each with its reason; {then}"


def cost(layer: Candidate, recipe: Recipe) -> float:
    """Millions of multiply-accumulates that fusing a layer and its gradient adds to a denoising step, at its nearest stage."""
    assert recipe.external is not None
    subnet, patch = recipe.subnet, recipe.external.patch
    finest = recipe.mel.n_mels // patch, recipe.mel.frames // patch
    stage = nearest_stage((layer.rows, layer.columns), finest, len(subnet.widths))
    return layer.values * (1 + (subnet.gradient_taps != "none")) * subnet.widths[stage] / 1e6


def _line(layer: Candidate, tapped: bool, price: float) -> str:
    stride = f"{'-' if layer.rows == 1 else f'{layer.stride[0]:.3g}'}, {layer.stride[1]:.3g}"
    shape = " x ".join(map(str, layer.shape))
    return f"| {'*' if tapped else ' '} {layer.name} | {layer.kind} | {shape} | {layer.axes} | {stride} | {layer.values:,} | {price:.2f} |"


def _faulty_line(layer: Candidate) -> str:
    return f"| - {layer.name} | {layer.kind} | {layer.fault} | | | | |"
