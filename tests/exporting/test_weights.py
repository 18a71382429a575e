"""Weights in lower precision, and one file of them for several models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from duovox.exporting.weights import WeightFile, narrowed, without_notes
from duovox.lite.manifest import WEIGHTS
from duovox.lite.sessions import open_graph


def product_with(weight: NDArray[np.float32], name: str = "weight") -> onnx.ModelProto:
    """x (B, N) @ weight."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])
    node = helper.make_node("MatMul", ["x", name], ["y"], doc_string="as written")
    graph = helper.make_graph([node], "product", [x], [y], [numpy_helper.from_array(weight, name)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((256, 256)).astype(np.float32)
X = RNG.standard_normal((3, 256)).astype(np.float32)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    return open_graph(model.SerializeToString(), ("x",), "1.20")(X)


def test_float32_is_left_alone() -> None:
    model = product_with(WEIGHT)
    assert narrowed(model, "fp32") is model


def test_float16_is_rounded_once() -> None:
    np.testing.assert_allclose(
        run(narrowed(product_with(WEIGHT), "fp16")), X @ WEIGHT.astype(np.float16).astype(np.float32), rtol=1e-5, atol=1e-4
    )
    assert narrowed(product_with(WEIGHT), "fp16").ByteSize() < 0.51 * WEIGHT.nbytes


def test_int8_has_a_scale_for_each_row() -> None:
    """A row of small weights keeps its precision beside one of large ones."""
    weight = WEIGHT * np.geomspace(1e-4, 1, 256, dtype=np.float32)[:, None]
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(run(narrowed(product_with(weight), "int8")), X @ (np.round(weight / scale) * scale), rtol=1e-4, atol=1e-4)
    assert narrowed(product_with(weight), "int8").ByteSize() < 0.27 * weight.nbytes


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_small_tables_lose_nothing(precision: str) -> None:
    """What float16 holds exactly is stored so; other small tensors stay as they are."""
    exact = np.round(WEIGHT[:64] * 8) / 8
    for table, share in ((exact.astype(np.float32), 0.6), (WEIGHT[:64], 1.1)):
        model = narrowed(product_with(table), precision)  # type: ignore[arg-type]
        result = open_graph(model.SerializeToString(), ("x",), "1.20")(X[:, :64])
        np.testing.assert_allclose(result, X[:, :64] @ table, rtol=1e-5, atol=1e-4)
        assert model.ByteSize() < share * table.nbytes


def test_a_row_of_zeros() -> None:
    weight = WEIGHT.copy()
    weight[7] = 0
    assert np.isfinite(run(narrowed(product_with(weight), "int8"))).all()


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    weights, other = WeightFile(), RNG.standard_normal((256, 8)).astype(np.float32)
    models = {"a": product_with(WEIGHT, "a"), "b": product_with(WEIGHT, "b"), "c": product_with(other, "c")}
    for name, model in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(weights.take_from(model))
    (tmp_path / WEIGHTS).write_bytes(weights.content)
    assert len(weights.content) < WEIGHT.nbytes + other.nbytes + 128
    for name, expected in (("a", X @ WEIGHT), ("b", X @ WEIGHT), ("c", X @ other)):
        np.testing.assert_allclose(open_graph(tmp_path / f"{name}.onnx", ("x",), "1.20")(X), expected, rtol=1e-5, atol=1e-4)


def test_notes_are_left_out() -> None:
    model = without_notes(product_with(WEIGHT))
    assert model.graph.node[0].doc_string == ""
    np.testing.assert_array_equal(run(model), run(product_with(WEIGHT)))
