"""A scale and a shift by noise level at layers of someone else's network: what a copy that is fine-tuned on noise has besides it.

Takes the names of the layers, the axes of their outputs and c_noise; gives a context in which the network runs modulated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from duovox.diffusion.taps import first_tensor
from duovox.networks.blocks import NoiseEmbedding


class NoiseModulation(nn.Module):
    """A scale and a shift per channel and noise level for each tapped layer; at the start they change nothing."""

    def __init__(self, channels: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.names = list(channels)
        self.embedding = NoiseEmbedding(width)
        self.layers = nn.ModuleList(nn.Linear(width, 2 * count) for count in channels.values())
        for layer in self.layers:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @contextmanager
    def applied(self, network: nn.Module, axes: Mapping[str, str], c_noise: Tensor) -> Iterator[None]:
        """Within the context the named layers of `network` give their outputs modulated for c_noise (B,), to taps as well."""
        embedding = self.embedding(c_noise)

        def hook_of(layer: nn.Module, its: str):  # type: ignore[no-untyped-def]
            def hook(_module: nn.Module, _inputs: object, output: object) -> object:
                return _replace_first(output, lambda tensor: _modulate(tensor, layer(embedding), its))

            return hook

        handles = [
            network.get_submodule(name).register_forward_hook(hook_of(layer, axes[name]), prepend=True)
            for name, layer in zip(self.names, self.layers, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _modulate(tensor: Tensor, modulation: Tensor, axes: str) -> Tensor:
    """tensor * (1 + scale) + shift, with modulation (B, 2 * C) laid along the axes B and C."""
    scale, shift = modulation.to(tensor.dtype).chunk(2, dim=1)
    shape = [tensor.shape[i] if letter in "BC" else 1 for i, letter in enumerate(axes)]
    if axes.index("C") < axes.index("B"):
        scale, shift = scale.T, shift.T
    return tensor * (1 + scale.reshape(shape)) + shift.reshape(shape)


def _replace_first(output: Any, change: Any) -> Any:
    """A layer's output with its first tensor (see `taps.first_tensor`) changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        first = next(number for number, item in enumerate(output) if first_tensor(item) is not None)
        items = [_replace_first(item, change) if number == first else item for number, item in enumerate(output)]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    replaced = copy.copy(output)
    name = next(name for name, item in output.items() if first_tensor(item) is not None)
    replaced[name] = _replace_first(output[name], change)
    return replaced
