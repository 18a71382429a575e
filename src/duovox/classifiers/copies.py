"""Copies of someone else's network: takes a module as its owner has it, gives one of our own in float32; the owner's stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from duovox.contracts import ClassifierError

Network = TypeVar("Network", bound=nn.Module)


def copy_network(network: Network) -> Network:
    """A deep copy on the CPU. Raises `ClassifierError` for what cannot be copied.

    Tensors that a layer keeps beside its parameters and that hang in a graph are copied by their values, for torch copies no graph:
    the weight that the older `weight_norm`, `spectral_norm` and pruning compute before each forward, or a stored activation.
    """
    by_value = {id(tensor): tensor.detach().clone() for tensor in _in_a_graph(network)}
    try:
        with torch.no_grad():  # else the tensors of a copied TorchScript program are no leaves
            return copy.deepcopy(network, by_value).cpu()
    except Exception as error:  # a module may hold anything
        first = next(iter(str(error).splitlines()), "")
        raise ClassifierError(
            f"the classifier cannot be copied ({type(error).__name__}: {first}); give it without what cannot be"
        ) from None


def _in_a_graph(network: nn.Module) -> Iterator[Tensor]:
    for layer in network.modules():
        yield from (tensor for tensor in _tensors(vars(layer)) if not tensor.is_leaf)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in lists, tuples and dictionaries of any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def let_go_of_graphs(network: nn.Module) -> nn.Module:
    """The same network, the tensors beside its parameters cut from the graphs they hang in, so that it can be deep-copied."""
    for layer in network.modules():
        if isinstance(layer, torch.jit.ScriptModule):
            continue
        for name, value in vars(layer).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                vars(layer)[name] = value.detach()
    return network


def in_float32(network: nn.Module) -> nn.Module:
    """The same network, its parameters and buffers of other floating-point types converted to float32."""
    return network.float() if precision_note(network) else network


def precision_note(given: nn.Module | Mapping[str, Tensor]) -> tuple[str, ...]:
    """One sentence that names the types of floating-point tensors that are not float32; none where there are none."""
    tensors = [*given.parameters(), *given.buffers()] if isinstance(given, nn.Module) else given.values()
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
    return (f"its weights are {' and '.join(names)}; they are converted to float32",) if names else ()
