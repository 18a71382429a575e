"""Taps: activations of a classifier at chosen layers, and the gradients of a logit energy with respect to them, as plain data.

Takes a classifier and the names of its layers; gives `Taps` to the score network, and logits that a guide can differentiate, all
from one shared forward. Hooks live only inside `read_taps`. Source: arXiv 2606.20457 section 3; the joint-energy reading of a
classifier is Grathwohl et al. 2020, arXiv 1912.03263.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from duovox.contracts import NO_LABEL, ShapeError

Graph = Literal["none", "logits", "activations"]
"""What a reading leaves in the graph of the noised data."""


@dataclass(frozen=True)
class Taps:
    """One reading: activations h_k, gradients g_k = d energy / d h_k (None if not asked for), and logits (B, K). All detached, but for
    what `read_taps` was told to leave in the graph."""

    activations: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...] | None
    logits: Tensor


def tap_energy(logits: Tensor, label: Tensor | None) -> Tensor:
    """The scalar per item whose gradient is tapped, (B,): the label's logit, or logsumexp(logits) where there is none. Of shares of each
    label (B, K), the logits weighed by them."""
    if label is not None and label.ndim == 2:
        return (label * logits).sum(dim=1)
    joint = logits.logsumexp(dim=1)
    if label is None:
        return joint
    own = logits.gather(1, label.clamp(min=0)[:, None])[:, 0]
    return torch.where(label == NO_LABEL, joint, own)


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a layer's output is, or the first one in its tuple, list or mapping; None where there is none."""
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((found for item in items if (found := first_tensor(item)) is not None), None)


@contextmanager
def recording(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named sub-modules during a forward; the hooks are gone when the context ends.

    Of a layer that runs more than once the last output counts. Raises `ShapeError` for a layer that gives no tensor.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                raise ShapeError(f"layer {name!r} gives no tensor but {type(output).__name__}; tap another layer")
            outputs[name] = tensor

        return hook

    layers = [module.get_submodule(name) for name in names]  # all before the first hook, for an unknown name raises
    handles = [layer.register_forward_hook(keep(name)) for name, layer in zip(names, layers, strict=True)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def as_map(tensor: Tensor, axes: str) -> Tensor:
    """A layer's output with the axes `axes` (letters B, C, M, T; see `TapConfig`) as (B, C, M', T'); a missing M or T has length 1."""
    missing = [letter for letter in "BCMT" if letter not in axes]
    widened = tensor.reshape(*tensor.shape, *[1] * len(missing))
    order = [(axes + "".join(missing)).index(letter) for letter in "BCMT"]
    return widened.permute(order)


def read_taps(
    classifier: nn.Module,
    names: Sequence[str],
    noised: Tensor,
    sigma: Tensor,
    *,
    gradients: bool = True,
    label: Tensor | None = None,
    axes: Sequence[str] | None = None,
    graph: Graph = "none",
) -> Taps:
    """Run `classifier(noised, sigma)` once and read its taps at `names`.

    `gradients` asks for g_k of `tap_energy(logits, label)`, which costs one backward and reaches no parameter. `axes` says how to
    bring each tap into the form (B, C, M', T'), see `as_map`; without it they are given as they come. `graph` says what is left in
    the graph of `noised`, which must then require a gradient: nothing, the `logits` (for guides), or the `activations` as well (to
    differentiate the denoiser).
    """
    inside = graph != "none"
    with torch.set_grad_enabled(gradients or inside), recording(classifier, names) as outputs:
        leaf = noised if inside else noised.detach().requires_grad_(torch.is_grad_enabled())
        logits = classifier(leaf.view_as(leaf), sigma)  # a view: torch's flop counter refuses leaves
        hidden = [outputs[name] for name in names]
        tapped = None
        if gradients:
            energy = tap_energy(logits, label).sum()
            tapped = tuple(torch.autograd.grad(energy, hidden, retain_graph=inside))
        held = hidden if graph == "activations" else [h.detach() for h in hidden]
        if axes is not None:
            held = [as_map(tensor, its) for tensor, its in zip(held, axes, strict=True)]
            tapped = tapped and tuple(as_map(tensor, its) for tensor, its in zip(tapped, axes, strict=True))
    return Taps(tuple(held), tapped, logits if inside else logits.detach())
