"""ONNX graphs: takes their files, gives torch networks to `loading`, by onnx2torch where it is installed and knows the operations."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from torch import nn

from duovox.classifiers.network_files import attempt, silence
from duovox.contracts import ConfigError

INSTEAD = "export it with torch.export where it was made (.pt2)"


def read_onnx(path: Path) -> nn.Module:
    """The graph of a file as a network that gradients pass. Raises `ConfigError`, with what to do instead, where onnx2torch is missing or
    does not know an operation."""
    try:
        onnx, onnx2torch = import_module("onnx"), import_module("onnx2torch")
    except ImportError:
        raise ConfigError(
            f"{path} is an ONNX graph, which torch does not run; pip install onnx2torch turns it into a network, or {INSTEAD}"
        ) from None
    graph = attempt(f"reading {path}", lambda: onnx.load(str(path)))
    try:
        with silence():
            network: nn.Module = onnx2torch.convert(graph)
    except Exception as error:  # it raises errors of every kind for what it does not know
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"onnx2torch cannot turn {path} into a torch network ({said}); {INSTEAD}") from None
    return network.eval()
