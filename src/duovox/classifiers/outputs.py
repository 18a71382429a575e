"""What a network returns, as logits: takes the output of someone else's network, gives (B, K) to the classifier around it.

Runs nothing but the network itself; what kind an output is, `output_kinds` finds out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from duovox.contracts import ClassifierError, DuovoxError

SMALLEST = 1e-30
"""Probabilities below this are read as this: log p stays finite, and so does its gradient."""


def call_network(network: nn.Module, inputs: Tensor) -> object:
    """What the network returns. Whatever it raises becomes a `ClassifierError`: it is someone else's and may raise anything."""
    try:
        return network(inputs)
    except (DuovoxError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = _reason(error)
        mends = "check what it takes: layout, sizes, sample rate"
        if re.search(r"dtype|Half|BFloat16|Double", reason):
            mends = "something in it is not float32: export it from network.float(), and cast nothing in its forward"
        raise ClassifierError(
            f"the classifier cannot run on an input of shape {tuple(inputs.shape)} ({type(error).__name__}: {reason}); {mends}"
        ) from error


def _reason(error: Exception) -> str:
    """The line of an error that says why: the first, but the last where TorchScript first shows its program."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]


def pick_logits(output: object, entry: str = "") -> Tensor:
    """The logits in a network's output: the tensor itself, the entry `logits` or `entry`, or the only tensor of two axes in it.

    Raises `ClassifierError` that names the entries there are.
    """
    if isinstance(output, Tensor) and not entry:
        return output
    entries = _entries(output)
    if entry:
        if entry not in entries:
            raise ClassifierError(f"the classifier's output has no entry {entry!r}; it has {', '.join(entries) or 'none'}")
        return entries[entry]
    if "logits" in entries:
        return entries["logits"]
    if len(entries) == 1:
        return next(iter(entries.values()))
    matrices = [tensor for tensor in entries.values() if tensor.ndim == 2]
    if len(matrices) != 1:
        there = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in entries.items()) or "(none)"
        raise ClassifierError(
            f"the classifier returns {type(output).__name__} with the tensors {there}; say which holds the logits: output=..."
        )
    return matrices[0]


def _entries(output: object) -> dict[str, Tensor]:
    """The tensors of an output by name: keys of a mapping, positions of a tuple or list, attributes of another object."""
    if isinstance(output, Tensor):
        return {"0": output}
    if isinstance(output, Mapping):
        named = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple | list):
        named = {str(number): value for number, value in enumerate(output)}
    else:
        named = dict(vars(output)) if hasattr(output, "__dict__") else {}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def by_position(scores: Tensor, axes: str) -> Tensor:
    """Outputs with the axes `axes` (letters B, K, M, T) as (B, positions, K)."""
    batch, labels = axes.index("B"), axes.index("K")
    return scores.movedim((batch, labels), (0, -1)).flatten(1, -2) if len(axes) > 2 else scores.movedim(batch, 0).unsqueeze(1)


def as_logits(scores: Tensor, kind: str, axes: str) -> Tensor:
    """Logits (B, K), float32, from what a network returns; `kind` and `axes` as `output_kind` and `output_axes` of `ExternalConfig`.

    Of several positions it is the mean of their log-probabilities: the geometric mean of what they say, in proportion.
    """
    logits = by_position(scores, axes).float()
    if kind == "probabilities":
        logits = logits.clamp(min=SMALLEST).log()
    if logits.shape[1] > 1:
        return logits.log_softmax(dim=2).mean(dim=1)
    if kind != "logits":
        logits = logits - logits.mean(dim=2, keepdim=True)
    return logits[:, 0]
