"""Taps: what a frozen classifier thinks (activations) and wants (gradients) at chosen layers, as plain data.

Takes a classifier and the names of its layers; gives `Taps` to the Score Subnet, and the guidance gradient, all from one
shared forward. Hooks live only inside `read_taps`. Source: arXiv 2606.20457 section 3; the joint-energy reading of a
classifier is Grathwohl et al. 2020, arXiv 1912.03263.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NO_LABEL = -1
"""In a label tensor: no label for this item; its gradient taps are those of logsumexp(logits)."""


@dataclass(frozen=True)
class Taps:
    """One reading: activations h_k and gradients g_k = d energy / d h_k (None if not asked for), logits (B, K), and
    label_gradient = d log p(label | noised) / d noised (B, 1, M, T) (None if not asked for). All detached."""

    activations: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...] | None
    logits: Tensor
    label_gradient: Tensor | None


def tap_energy(logits: Tensor, label: Tensor | None) -> Tensor:
    """The scalar per item whose gradient is tapped, (B,): the label's logit, or logsumexp(logits) where there is none."""
    joint = logits.logsumexp(dim=1)
    if label is None:
        return joint
    own = logits.gather(1, label.clamp(min=0)[:, None])[:, 0]
    return torch.where(label == NO_LABEL, joint, own)


@contextmanager
def recording(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named sub-modules during a forward; the hooks are gone when the context ends."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[name] = output

        return hook

    layers = [module.get_submodule(name) for name in names]  # all before the first hook, for an unknown name raises
    handles = [layer.register_forward_hook(keep(name)) for name, layer in zip(names, layers, strict=True)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def read_taps(
    classifier: nn.Module,
    names: Sequence[str],
    noised: Tensor,
    sigma: Tensor,
    *,
    gradients: bool = True,
    tap_label: Tensor | None = None,
    guide_label: Tensor | None = None,
) -> Taps:
    """Run `classifier(noised, sigma)` once and read its taps at `names`.

    `gradients` asks for g_k of `tap_energy(logits, tap_label)`; `guide_label` (B,) asks for d log p(guide_label | noised) /
    d noised. Each costs one backward, none reaches a parameter.
    """
    with torch.set_grad_enabled(gradients or guide_label is not None), recording(classifier, names) as outputs:
        source = noised.detach().requires_grad_(torch.is_grad_enabled()).view_as(noised)  # a view: torch's flop counter refuses leaves
        logits = classifier(source, sigma)
        hidden = [outputs[name] for name in names]
        tapped = label_gradient = None
        if gradients:
            energy = tap_energy(logits, tap_label).sum()
            tapped = tuple(torch.autograd.grad(energy, hidden, retain_graph=guide_label is not None))
        if guide_label is not None:
            chosen = torch.log_softmax(logits, dim=1).gather(1, guide_label[:, None]).sum()
            (label_gradient,) = torch.autograd.grad(chosen, source)
    return Taps(tuple(h.detach() for h in hidden), tapped, logits.detach(), label_gradient)
