"""ONNX graphs as someone's network: turned into torch where onnx2torch can, else told what to do.

The converter is another's: here one that knows a single graph takes its place, and the true one is tried where it is installed.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
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
from duovox.cli import main
from duovox.config import Recipe
from duovox.contracts import ConfigError
from duovox.guide_folder import read_guide
from duovox.repurposing import make_guide
from duovox.sound.audio import read_audio

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
    with pytest.raises(ConfigError, match=r"means\.onnx is an ONNX graph, .*pip install --no-deps onnx2torch; or .*\.pt2\)$"):
        load_network(graph)

    def convert(model: Any) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (Loop)\nmore")

    converter(monkeypatch, convert)
    with pytest.raises(ConfigError, match=r"^onnx2torch cannot turn .*means\.onnx into a torch network \(.*\(Loop\)\); export it with"):
        load_network(graph)
    graph.write_bytes(b"\x08\x07\x12\x07pytorch and what no graph has")
    with pytest.raises(ConfigError, match=r"^reading .*means\.onnx failed"):
        load_network(graph)


def test_the_opset_to_take_where_a_graph_is_too_new(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(model: Any) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (ReduceMean, version=18)")

    converter(monkeypatch, convert)
    made = onnx.load(str(graph))
    for version, said in ((18, "this graph has 18: export it with opset_version=17, or export it with torch.export"), (17, "; export it")):
        made.opset_import[0].version = version
        onnx.save(made, str(graph))
        with pytest.raises(ConfigError, match=said) as caught:
            load_network(graph)
        assert ("opset_version" in str(caught.value)) == (version == 18)


@pytest.mark.parametrize("torchvision", ["", "raise RuntimeError('operator torchvision::nms does not exist')"])
def test_torchvision_is_not_needed(torchvision: str, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter imports it; it may be missing, or be one that was built for another torch."""
    for name in {"onnx2torch", *(name for name in sys.modules if name.partition(".")[0] in ("onnx2torch", "torchvision"))}:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
        del sys.modules[name]  # it is put back at the end, or what comes in its place is taken away
    site = tmp_path / "site"
    for name, text in (
        (
            "onnx2torch",
            "import torchvision\nfrom torchvision.ops import roi_align\nfrom torch.nn import Identity\nconvert = lambda _: Identity()",
        ),
        ("torchvision", torchvision),
    ):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    if not torchvision:
        monkeypatch.setitem(sys.modules, "torchvision", None)  # type: ignore[arg-type]
    assert isinstance(load_network(graph).network, nn.Identity)
    assert not [name for name in sys.modules if name.startswith("torchvision") and sys.modules[name] is not None]


TRUE = pytest.mark.skipif(importlib.util.find_spec("onnx2torch") is None, reason="onnx2torch is absent: pip install --no-deps onnx2torch")


@TRUE
def test_the_true_converter_turns_the_graph(graph: Path) -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = load_network(graph).network(x)
    torch.testing.assert_close(found, Means()(x))
    found.sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def pitch_graph(path: Path) -> Path:
    """A small classifier of waves (B, 16000): 16 filters of 512 samples, rectified, their means over time, three scores."""
    helper, numbers, random = onnx.helper, onnx.numpy_helper.from_array, np.random.default_rng(0)
    nodes = [
        helper.make_node("Unsqueeze", ["wave", "axis"], ["channel"]),
        helper.make_node("Conv", ["channel", "filters"], ["filtered"], strides=[160]),
        helper.make_node("Relu", ["filtered"], ["rectified"]),
        helper.make_node("ReduceMean", ["rectified"], ["means"], axes=[2], keepdims=0),
        helper.make_node("Gemm", ["means", "scores"], ["logits"]),
    ]
    constants = [
        numbers(np.array([1], np.int64), "axis"),
        numbers(random.normal(size=(16, 1, 512)).astype(np.float32), "filters"),
        numbers(random.normal(size=(16, 3)).astype(np.float32), "scores"),
    ]
    taken = helper.make_tensor_value_info("wave", onnx.TensorProto.FLOAT, ["batch", 16000])
    given = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])
    made = helper.make_graph(nodes, "pitch", [taken], [given], constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


@TRUE
@pytest.mark.usefixtures("anything_is_speech")
def test_a_graph_guides_from_its_file_to_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands of docs/guides.md, as they stand."""
    monkeypatch.chdir(tmp_path)
    pitch_graph(tmp_path / "net.onnx")
    page = (Path(__file__).parents[2] / "docs" / "guides.md").read_text(encoding="utf-8")
    make, speak = (shlex.split(line)[1:] for line in re.findall(r"^duovox .* net[.-].*$", page, re.MULTILINE))
    assert main(make) == 0
    monkeypatch.setitem(sys.modules, "onnx2torch", None)  # type: ignore[arg-type]
    assert main([*speak, "--steps", "3"]) == 0 and main(["generate", "three", "--steps", "3", "--out", "plain.wav"]) == 0
    high, plain = (read_audio(tmp_path / f"{name}.wav", 16000) for name in ("high", "plain"))
    assert np.abs(high - plain).max() > 1e-3
