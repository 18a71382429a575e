"""ONNX graphs as someone's network: turned into torch where onnx2torch can, else told what to do.

The converter is another's: here one that knows a single graph takes its place, and the true one is tried where it is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duovox import MelInput
from duovox.classifiers.loading import load_network
from duovox.config import Recipe
from duovox.contracts import ConfigError
from duovox.guide_folder import read_guide
from duovox.repurposing import make_guide

onnx = pytest.importorskip("onnx")
WEIGHT = np.array([1.0, 2.0, -1.0], np.float32)


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHT))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3), keepdim=False)[:, None] * self.weight


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The mean of a mel times three weights."""
    helper = onnx.helper
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m"], ["column"], axes=[1]),
        helper.make_node("Mul", ["column", "w"], ["y"]),
    ]
    taken = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 1, 16, 16])
    given = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])
    made = helper.make_graph(nodes, "means", [taken], [given], [onnx.numpy_helper.from_array(WEIGHT, "w")])
    path = tmp_path / "means.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)]), str(path))
    return path


def converter(monkeypatch: pytest.MonkeyPatch, convert: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnx2torch", SimpleNamespace(convert=convert))  # type: ignore[arg-type]


def test_a_graph_becomes_a_guide_that_needs_no_onnx(
    graph: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(model: Any) -> nn.Module:
        assert model.graph.name == "means"
        return Means().train()

    converter(monkeypatch, convert)
    loaded = load_network(graph)
    assert loaded.notes == ("it was turned from an ONNX graph into a torch network by onnx2torch",) and not loaded.network.training
    guide = make_guide(loaded, ["a", "b", "c"], MelInput(n_mels=16, frames=16), recipe=tiny_recipe)
    assert guide.config.recipe.external is not None and guide.config.recipe.external.source == "export"
    monkeypatch.setitem(sys.modules, "onnx2torch", None)  # type: ignore[arg-type]
    again = read_guide(guide.write(tmp_path / "guide"), trust_code=True)
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.network(x), x.mean(dim=(1, 2, 3))[:, None] * torch.from_numpy(WEIGHT))


def test_what_to_do_where_it_cannot_be_turned(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx2torch", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"means\.onnx is an ONNX graph, which torch does not run; pip install onnx2torch .*\.pt2\)$"):
        load_network(graph)

    def convert(model: Any) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (Loop)\nmore")

    converter(monkeypatch, convert)
    with pytest.raises(ConfigError, match=r"^onnx2torch cannot turn .*means\.onnx into a torch network \(.*\(Loop\)\); export it with"):
        load_network(graph)
    graph.write_bytes(b"\x08\x07\x12\x07pytorch and what no graph has")
    with pytest.raises(ConfigError, match=r"^reading .*means\.onnx failed"):
        load_network(graph)


@pytest.mark.skipif(importlib.util.find_spec("onnx2torch") is None, reason="onnx2torch is absent")
def test_the_true_converter_turns_the_graph(graph: Path) -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = load_network(graph).network(x)
    torch.testing.assert_close(found, Means()(x))
    found.sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
