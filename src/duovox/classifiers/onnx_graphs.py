"""ONNX graphs: takes their files, gives torch networks to `loading`, by onnx2torch where it is installed and knows the operations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from duovox.classifiers.network_files import attempt, silence
from duovox.contracts import ConfigError

INSTEAD = "export it with torch.export where it was made (.pt2)"

INSTALL = "pip install onnx, then pip install --no-deps onnx2torch"
"""With what it asks for, pip would put another torch in the place of ours, for the sake of torchvision."""

NEWEST_OPSET = 17
"""The newest set of operations whose graphs onnx2torch 1.5 turns; the exporter of torch writes 18 and later if not told."""


def read_onnx(path: Path) -> nn.Module:
    """The graph of a file as a network that gradients pass. Raises `ConfigError`, with what to do instead, where onnx2torch is missing or
    does not know an operation."""
    onnx, onnx2torch = _packages(path)
    graph = attempt(f"reading {path}", lambda: onnx.load(str(path)))
    try:
        with silence():
            network: nn.Module = onnx2torch.convert(graph)
    except Exception as error:  # it raises errors of every kind for what it does not know
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"onnx2torch cannot turn {path} into a torch network ({said}); {_other_ways(graph)}") from None
    return network.eval()


def _packages(path: Path) -> tuple[Any, Any]:
    """onnx and onnx2torch. Raises `ConfigError` that says what to install."""
    try:
        with _something_for_torchvision():
            return import_module("onnx"), import_module("onnx2torch")
    except ImportError:
        raise ConfigError(f"{path} is an ONNX graph, which onnx2torch turns into a torch network: {INSTALL}; or {INSTEAD}") from None


@contextmanager
def _something_for_torchvision() -> Iterator[None]:
    """onnx2torch imports torchvision, for two operations of object detectors. Where none loads (it must be built for the very torch that is
    installed), an empty module takes its place meanwhile, and these two are unknown."""
    if _loads("torchvision"):
        yield
        return
    package, operations = ModuleType("torchvision"), ModuleType("torchvision.ops")
    operations.roi_align = None  # type: ignore[attr-defined]
    sys.modules |= {package.__name__: package, operations.__name__: operations}
    try:
        yield
    finally:
        for module in (package, operations):
            sys.modules.pop(module.__name__, None)


def _loads(name: str) -> bool:
    """Whether a module can be imported; one that was built for another torch raises errors of its own."""
    try:
        import_module(name)
    except Exception:
        return False
    return True


def _other_ways(graph: Any) -> str:
    """What to do about a graph that cannot be turned."""
    used = max((each.version for each in graph.opset_import if each.domain in ("", "ai.onnx")), default=0)
    older = f"it knows operations up to opset {NEWEST_OPSET}, this graph has {used}: export it with opset_version={NEWEST_OPSET}, or "
    return (older if used > NEWEST_OPSET else "") + INSTEAD
