"""A function of tensors, backward passes within it included, as a graph of core operations with a free batch axis.

Takes any function of tensors with frozen parameters; gives an `fx.GraphModule`. `torch.export` cannot look into `autograd.grad`; `make_fx`
sees what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

aten = torch.ops.aten


def trace(function: Callable[..., Any], examples: Sequence[Tensor]) -> GraphModule:
    """The graph of `function` for arguments like `examples` (B, ...), with B free; parameters and buffers are constants in it."""
    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    fakes = [_with_free_batch(mode, example, number) for number, example in enumerate(examples)]
    rules = {**core_aten_decompositions(), **OWN_RULES}
    graph = make_fx(function, decomposition_table=rules, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*fakes)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph.eval()


def _with_free_batch(mode: FakeTensorMode, example: Tensor, number: int) -> FakeTensor:
    sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (example.ndim - 1)
    context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
    return mode.from_tensor(example, source=ConstantSource(f"input{number}"), symbolic_context=context)


def _convolution_backward(
    grad: Tensor,
    inputs: Tensor,
    weight: Tensor,
    _bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient by the input, the only one that frozen networks are asked for: of a convolution a transposed one, of which the
    input's size says how much to pad the output; of a transposed one a convolution."""
    if wanted[1] or wanted[2]:
        raise NotImplementedError("the gradient of a convolution by its weights")
    extra = [0] * len(stride)
    if not transposed:
        spans = [dilation[i] * (weight.shape[2 + i] - 1) + 1 for i in range(len(stride))]
        reached = [(grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + spans[i] for i in range(len(stride))]
        extra = [inputs.shape[2 + i] - reached[i] for i in range(len(stride))]
    return aten.convolution.default(grad, weight, None, stride, padding, dilation, not transposed, extra, groups), None, None


def _searchsorted(levels: Tensor, values: Tensor, **_options: Any) -> Tensor:
    """How many of the rising `levels` (N,) lie below each of `values` (B,)."""
    return (levels < values[:, None]).sum(dim=1)


def _max_pool_backward(grad: Tensor, inputs: Tensor, *settings: Any) -> Tensor:
    """Each gradient goes to the place that was the largest, which the last of the `settings` are."""
    places = settings[-1].flatten(2)
    return grad.new_zeros(*inputs.shape[:2], inputs.shape[2] * inputs.shape[3]).scatter_add(2, places, grad.flatten(2)).view(inputs.shape)


def _adaptive_pool(inputs: Tensor, size: Sequence[int]) -> Tensor:
    """Means over stretches of rows and columns: a matrix product along each axis."""
    rows, columns = (_stretches(inputs.shape[2 + axis], size[axis]) for axis in range(2))
    return rows @ inputs @ columns.T


def _adaptive_pool_backward(grad: Tensor, inputs: Tensor) -> Tensor:
    rows, columns = (_stretches(inputs.shape[2 + axis], grad.shape[2 + axis]) for axis in range(2))
    return rows.T @ grad @ columns


def _stretches(length: int, parts: int) -> Tensor:
    """Weights (parts, length) of the means of adaptive pooling: part i from floor(i length / parts) to ceil((i + 1) length / parts)."""
    place = torch.arange(length)
    starts = torch.arange(parts) * length // parts
    ends = -(-(torch.arange(parts) + 1) * length // parts)
    inside = ((place >= starts[:, None]) & (place < ends[:, None])).float()
    return inside / inside.sum(dim=1, keepdim=True)


OWN_RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution_backward,
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_pool_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.searchsorted.Tensor: _searchsorted,
}
"""How operations are written that ONNX lacks and torch has no rule for."""
