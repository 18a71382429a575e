"""From a `Part` to an ONNX model, and what cannot become one. Takes functions of tensors, gives `onnx.ModelProto`s."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from duovox.contracts import ClassifierError
from duovox.exporting.blame import layer_of, layers_of_operations
from duovox.exporting.parts import Part
from duovox.exporting.tracing import trace

if TYPE_CHECKING:
    import onnx

MOST_ITEMS = 4096
"""The largest batch a graph promises to take."""

INVERSE_TRANSFORMS = ("fft_c2r", "fft_c2c")


def to_onnx(part: Part, network: nn.Module) -> onnx.ModelProto:
    """The part as an ONNX model, its first axes free but for what is `whole`; float32.

    Raises `ClassifierError` that names the operation that has no ONNX form, and the layer of `network` that runs it.
    """
    examples = part.draw(0, 2)
    if not isinstance(part.function, nn.Module):
        _refuse_inverse_transforms(part, network)
    try:
        with _quiet():
            graph: Any = part.function if isinstance(part.function, nn.Module) else trace(part.function, examples)
            batch = torch.export.Dim("batch", min=1, max=MOST_ITEMS)
            program = torch.onnx.export(
                graph,
                examples,
                dynamo=True,
                input_names=list(part.inputs),
                output_names=[part.output],
                dynamic_shapes=tuple({0: batch} if batched else None for batched in part.batched),
                verbose=False,
            )
            assert program is not None
            return _without_double_cosines(program.model_proto)
    except Exception as error:  # of the tracer, the exporter or the network itself, which may be any
        raise ClassifierError(_refusal(part, network, error)) from error


def _without_double_cosines(model: onnx.ModelProto) -> onnx.ModelProto:
    """cos x of doubles as sin (x + pi / 2), which onnxruntime 1.23 and before have as well. Changes the model; returns it."""
    from onnx import TensorProto, helper

    values = (*model.graph.value_info, *model.graph.input)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    quarter = helper.make_tensor("quarter_turn", TensorProto.DOUBLE, [], [math.pi / 2])
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Cos" and kinds.get(node.input[0]) == TensorProto.DOUBLE:
            turned = f"{node.input[0]}.turned"
            nodes.append(helper.make_node("Add", [node.input[0], quarter.name], [turned]))
            node.op_type, node.input[0] = "Sin", turned
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        model.graph.initializer.append(quarter)
        copies = [_copy(node) for node in nodes]  # they would go with the list that holds them
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return model


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = type(node)()
    copy.CopyFrom(node)
    return copy


def _refusal(part: Part, network: nn.Module, error: Exception) -> str:
    """What cannot be exported, on one line: operation and layer where the error tells them."""
    text = f"{error} {error.__cause__ or ''}"
    if "data-dependent" in text:
        return f"the {part.name} cannot be exported: its network takes ways that depend on its input, and a graph holds one"
    operation = _operation_in(text)
    if operation is None:
        first = next(iter(str(error).splitlines()), "")[:200]
        return f"the {part.name} cannot be exported ({type(error).__name__}: {first}); it runs in PyTorch alone"
    return _no_form(part, layer_of(operation, network, part), operation)


def _operation_in(text: str) -> str | None:
    """A name such as aten::mkldnn_rnn_layer in the words of an exporter."""
    patterns = (r"op='(\w+(?:::|\.)\w+)", r"\b([a-z_]\w*::\w+)", r"\b((?:aten|prims)\.\w+)")
    found = next((match for pattern in patterns if (match := re.search(pattern, text))), None)
    return found[1].replace(".", "::") if found else None


def _refuse_inverse_transforms(part: Part, network: nn.Module) -> None:
    """Raise where a part runs an inverse Fourier transform: onnxruntime cannot run what the exporter makes of it in minutes."""
    for name, layer in layers_of_operations(network, part).items():
        if name in INVERSE_TRANSFORMS:
            raise ClassifierError(_no_form(part, layer, f"aten::_{name}"))


def _no_form(part: Part, layer: str, operation: str) -> str:
    where = f"its layer {layer}" if layer else "a layer of it"
    return f"the {part.name} cannot be exported: {where} runs the operation {operation}, which has no ONNX form; replace that layer"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress, warnings and logs are of no use to who called."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
