"""What a network's output means: takes a classifier, runs it a few times, gives the axes and the kind of what it returns.

Refuses, with the reason, what is no answer for each clip and each label: numbers of labels, one single number, frames in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

import torch
from torch import Tensor

from duovox.classifiers.axes import ITEMS, find_axes, folded_into_batch, nudged, probe_mels
from duovox.classifiers.copies import copy_network
from duovox.classifiers.external import ExternalClassifier, at_rest
from duovox.classifiers.outputs import by_position, call_network, pick_logits
from duovox.contracts import ClassifierError

OutputKind = Literal["logits", "probabilities", "log_probabilities"]

NEAR = 3e-3
"""How near to 1 probabilities must add up."""


@dataclass(frozen=True)
class Outputs:
    """What a network returns: kind and axes (as in `ExternalConfig`), number of labels and of positions, whether rows add up to 1."""

    kind: OutputKind
    axes: str
    labels: int
    positions: int
    sums_to_one: bool

    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that is done to the outputs beyond taking them as logits."""
        said = []
        if self.kind == "probabilities":
            how = "add up to 1" if self.sums_to_one else "lie between 0 and 1, each by itself"
            said.append(f"its outputs are probabilities ({how}); they are read as log p")
        if self.kind == "log_probabilities":
            said.append("its outputs are log-probabilities; they are read as log p")
        if self.positions > 1:
            said.append(
                f"it answers at {self.positions} positions of a clip (axes {self.axes}); the mean of their log-probabilities is taken"
            )
        return tuple(said)


def look_at_outputs(classifier: ExternalClassifier, labels: int | None = None, kind: OutputKind | None = None) -> Outputs:
    """Axes and kind of the network's output; `labels` is how many it should have, `kind` is believed where it is given.

    Raises `ClassifierError` for what is no answer for each clip and each label.
    """
    mels = probe_mels(classifier.mel)
    with at_rest(classifier), torch.no_grad():
        scores, fewer = (classifier.scores(classifier.inputs(some)) for some in (mels, mels[:-1]))
        _demand_a_batch(scores, fewer)
        if not scores.is_floating_point():
            raise ClassifierError(f"the classifier gives whole numbers ({scores.dtype}), not logits; return what argmax is taken of")
        axes = _axes(classifier, mels, scores, fewer, labels)
        rows = by_position(scores, axes)
        if rows.shape[2] == 1:
            _refuse_one_output(scores, _stays_within_one(classifier, mels))
        sums = bool(rows.isfinite().all()) and _adds_up(rows)
        return Outputs(kind or _kind(classifier, mels, rows), axes, rows.shape[2], rows.shape[1], sums)


def _demand_a_batch(scores: Tensor, fewer: Tensor) -> None:
    folded, shape = folded_into_batch(scores, fewer), tuple(scores.shape)
    if folded == 0:
        raise ClassifierError(
            f"the classifier gives outputs of shape {shape} for {ITEMS} clips and {tuple(fewer.shape)} for {ITEMS - 1}: "
            "no axis of them is the batch; return one row of logits for each clip, (B, K)"
        )
    if folded > 1:
        raise ClassifierError(
            f"the classifier folds {folded} frames of each clip into the batch: outputs of shape {shape} for {ITEMS} clips; "
            f"unfold them at its end, as logits.reshape(-1, {folded}, {shape[-1]}): the frames are then averaged"
        )


def _axes(classifier: ExternalClassifier, mels: Tensor, scores: Tensor, fewer: Tensor, labels: int | None) -> str:
    """One letter an axis. The labels' axis is the one of their number; where that does not tell, the one along which nothing moves."""
    if scores.ndim == 1:
        _refuse_one_output(scores, _stays_within_one(classifier, mels))
    if scores.ndim > 4:
        raise ClassifierError(
            f"the classifier gives outputs of shape {tuple(scores.shape)}; return one row of logits for each clip, (B, K)"
        )
    batch = next(i for i in range(scores.ndim) if scores.shape[i] != fewer.shape[i])
    free = [i for i in range(scores.ndim) if i != batch]
    fitting = free if scores.ndim == 2 else [i for i in free if scores.shape[i] == labels]
    if len(fitting) != 1:
        return _axes_by_movement(classifier, mels, scores, fewer)
    positions = iter("MT" if scores.ndim == 4 else "T")
    return "".join("B" if i == batch else "K" if i == fitting[0] else next(positions) for i in range(scores.ndim))


def _axes_by_movement(classifier: ExternalClassifier, mels: Tensor, scores: Tensor, fewer: Tensor) -> str:
    def changes(axis: int) -> tuple[Tensor, ...]:
        return tuple((classifier.scores(classifier.inputs(nudged(mels, axis, end))) - scores).abs() for end in (0, 1))

    return find_axes(scores, fewer, changes(2), changes(3))[1].replace("C", "K")


def _kind(classifier: ExternalClassifier, mels: Tensor, rows: Tensor) -> OutputKind:
    if not rows.isfinite().all():
        return "logits"
    if _within_one(rows) and (_adds_up(rows) or _stays_within_one(classifier, mels)):
        return "probabilities"
    return "log_probabilities" if rows.max() <= NEAR and _adds_up(rows.exp()) else "logits"


def _within_one(scores: Tensor) -> bool:
    return bool((scores >= 0).all() and (scores <= 1 + NEAR).all() and (scores > 0).any())


def _adds_up(rows: Tensor) -> bool:
    return bool(((rows.double().sum(dim=-1) - 1).abs() < NEAR).all())


def _stays_within_one(classifier: ExternalClassifier, mels: Tensor) -> bool:
    """Whether nothing brings the outputs out of [0, 1], neither other inputs nor other weights: small logits may lie there by chance."""
    return all(_within_one(scores[scores.isfinite()]) for scores in _strained(classifier, mels) if scores.isfinite().any())


def _strained(classifier: ExternalClassifier, mels: Tensor) -> Iterator[Tensor]:
    """The network's outputs for mels from faint to loud, by itself and by copies of other weights, stronger and of the other sign."""
    for amplitude in (0.1, 1.0, 10.0):
        yield classifier.scores(classifier.inputs(amplitude * mels))
    for factor in (3.0, -3.0):
        twin = copy_network(classifier.network)
        for parameter in twin.parameters():
            if parameter.is_floating_point():
                parameter.mul_(factor)
        yield pick_logits(call_network(twin, classifier.inputs(mels)), classifier.config.output)


def _refuse_one_output(scores: Tensor, probability: bool) -> NoReturn:
    x = "x" if scores.ndim > 1 else "x[:, None]"
    two = f"torch.cat([1 - {x}, {x}], 1)" if probability else f"torch.cat([torch.zeros_like({x}), {x}], 1)"
    raise ClassifierError(
        f"the classifier gives one output a clip (shape {tuple(scores.shape)}), which tells no two labels apart; have it return two, as "
        f"{two} for its output x, and name both labels, the one it does not mean first"
    )
