"""The memory layout of networks: channels last, in which processors convolve fastest, and the layers that must not lie in it.

oneDNN's kernel `brgconv_strided:avx2` (torch 2.13, processors with AVX2 but without AVX-512) writes past its buffer in the data gradient
of a 1x1 convolution with a stride and 2 to 7 input channels, where tensors lie channels last: the process aborts or hangs. A transposed
convolution runs the same kernel forwards, by its output channels. In the default layout, and for 1 or from 8 channels on, it is not used.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from duovox.contracts import ConfigError

OVERRUN_CHANNELS = range(2, 8)
"""How many channels the kernel cannot bear."""

Network = TypeVar("Network", bound=nn.Module)


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution at a stride, without bias: (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride)).

    With so few input channels that the kernel would overrun, takes every stride-th position before it convolves: the same numbers.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.every = stride if inputs in OVERRUN_CHANNELS else 1
        super().__init__(inputs, outputs, 1, stride // self.every, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, :: self.every, :: self.every])


def to_channels_last(network: Network) -> Network:
    """Lay out a network of ours channels last, in place; returns it. Raises as `refuse_overrun` does."""
    refuse_overrun(network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def refuse_overrun(network: nn.Module) -> None:
    """Raise `ConfigError` for a network that is to compute channels last and has a layer that would overrun its memory there."""
    for name, layer in overrunning(network):
        raise ConfigError(
            f"{type(network).__name__}.{name} is a 1x1 convolution of {_written(layer)} channels at stride {layer.stride}: "
            "in channels-last memory torch writes past its end on processors with AVX2; "
            "give it 8 channels or more, or use networks.layout.StridedPointwise"
        )


def keep_default_layout(network: nn.Module) -> None:
    """Let the layers of someone else's network that would overrun compute in the default layout, whatever layout reaches them.

    Finds layers that are modules; what a scripted or exported program, or `nn.functional`, convolves is not seen.
    """
    for _, layer in overrunning(network):
        layer.weight.data = layer.weight.data.clone(memory_format=torch.contiguous_format)
        layer.register_forward_pre_hook(_in_default_layout)


def overrunning(network: nn.Module) -> list[tuple[str, nn.Conv2d | nn.ConvTranspose2d]]:
    """The layers, by name, whose gradient (of a transposed convolution: whose output) that kernel would overrun in channels last."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    return [(name, layer) for name, layer in layers if _overruns(layer)]


def _overruns(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    strided = any(step > 1 for step in layer.stride)
    return strided and layer.kernel_size == (1, 1) and layer.groups == 1 and _written(layer) in OVERRUN_CHANNELS


def _written(layer: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """The channels on the side of the layer that the kernel writes."""
    return layer.out_channels if isinstance(layer, nn.ConvTranspose2d) else layer.in_channels


def _in_default_layout(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)
