"""Weights of ONNX models: in which precision they are stored, and one file of them for several graphs, each stored once.

Graphs compute in float32 whatever the precision: smaller weights are widened when the graph is opened. Takes and gives
`onnx.ModelProto`s.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from duovox.lite.manifest import WEIGHTS, PrecisionName

SMALL = 2048
"""Tensors of fewer numbers stay as they are: biases, norms and tables cost nothing."""

LARGE = 65536
"""Tensors of at least so many numbers are weights, and may lose precision; smaller ones only where float16 holds them exactly."""

ALIGNMENT = 64


def narrowed(model: onnx.ModelProto, precision: PrecisionName) -> onnx.ModelProto:
    """The model with its weights stored as float16 (`fp16`), or the large ones as int8 with a scale for each first index (`int8`); fp32:
    itself. A bundle's own weights are float16 already, so `fp16` loses nothing of them."""
    if precision == "fp32":
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored, widening = [], []
    for tensor in result.graph.initializer:
        value = numpy_helper.to_array(tensor)
        large = value.size >= LARGE
        if value.dtype != np.float32 or value.size < SMALL or not (large or _fits_half(value)):
            stored.append(tensor)
            continue
        tensors, nodes = (_as_int8 if large and precision == "int8" else _as_half)(tensor.name, value)
        stored += tensors
        widening += nodes
    nodes = [*widening, *result.graph.node]
    del result.graph.initializer[:], result.graph.node[:]
    result.graph.initializer.extend(stored)
    result.graph.node.extend(nodes)
    return result


def _fits_half(value: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(value.astype(np.float16).astype(np.float32), value))


def _as_half(name: str, value: NDArray[np.float32]) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    half = numpy_helper.from_array(value.astype(np.float16), f"{name}.half")
    return [half], [helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT)]


def _as_int8(name: str, value: NDArray[np.float32]) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """Weights as whole numbers from -127 to 127 times the largest of their row over 127."""
    largest = np.abs(value).reshape(len(value), -1).max(axis=1).reshape(-1, *[1] * (value.ndim - 1))
    scale = np.maximum(largest, np.float32(1e-12)) / np.float32(127)
    whole = numpy_helper.from_array(np.round(value / scale).astype(np.int8), f"{name}.int8")
    scales = numpy_helper.from_array(scale, f"{name}.scale")
    cast = helper.make_node("Cast", [whole.name], [f"{name}.whole"], to=TensorProto.FLOAT)
    return [whole, scales], [cast, helper.make_node("Mul", [f"{name}.whole", scales.name], [name])]


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what exporters note for people: names of files, shapes of what lies between; it opens faster."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for thing in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        thing.doc_string = ""
        del thing.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:], result.metadata_props[:]
    return result


class WeightFile:
    """The large tensors of several models in one file, equal ones once."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._places: dict[str, int] = {}

    @property
    def content(self) -> bytes:
        return bytes(self._content)

    def take_from(self, model: onnx.ModelProto) -> bytes:
        """The model as a file whose large tensors lie in this one."""
        result = onnx.ModelProto()
        result.CopyFrom(model)
        for tensor in result.graph.initializer:
            raw = numpy_helper.to_array(tensor).tobytes()
            if len(raw) >= SMALL:
                self._move(tensor, raw)
        return result.SerializeToString()

    def _move(self, tensor: TensorProto, raw: bytes) -> None:
        name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
        tensor.Clear()
        tensor.name, tensor.data_type = name, kind
        tensor.dims.extend(dims)
        tensor.data_location = TensorProto.EXTERNAL
        place: dict[str, Any] = {"location": WEIGHTS, "offset": self._place(raw), "length": len(raw)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))

    def _place(self, raw: bytes) -> int:
        digest = hashlib.sha256(raw).hexdigest()
        if digest not in self._places:
            self._content.extend(bytes(-len(self._content) % ALIGNMENT))
            self._places[digest] = len(self._content)
            self._content.extend(raw)
        return self._places[digest]
