"""Which layer of a network runs an operation: to tell the user what stands in the way of an export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from duovox.exporting.parts import Part


class LayersOfOperations(TorchDispatchMode):
    """Within it every operation is noted with the layer that is running, by the names of `network`'s modules."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, str] = {}
        self._running: list[str] = []
        self._network = network
        self._handles: list[Any] = []

    def __enter__(self) -> LayersOfOperations:
        for name, module in self._network.named_modules():
            self._handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._running.append(name)))
            self._handles.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def _leave(self) -> None:
        self._running.pop()

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.setdefault(_plain(str(operation)), self._running[-1] if self._running else "")
        return operation(*args, **(kwargs or {}))


def layers_of_operations(network: nn.Module, part: Part) -> dict[str, str]:
    """Every operation that `part` runs, backward passes included, by its plain name, and the first layer of `network` that runs it (empty
    for what no layer runs forwards). Nothing where a network cannot be run with hooks."""
    try:
        with LayersOfOperations(network) as seen, torch.enable_grad():
            part.plain(*part.draw(0, 1))
    except Exception:  # the network may be any; what is wrong with it, its export says
        return {}
    return seen.found


def layer_of(operation: str, network: nn.Module, part: Part) -> str:
    """The layer of `network` that runs an operation, or the operation whose gradient it is; empty where none is seen to."""
    return layers_of_operations(network, part).get(_plain(operation), "")


def _plain(operation: str) -> str:
    """aten::_foo_backward, aten.foo.default: foo."""
    name = operation.split("::")[-1].removeprefix("aten.").removeprefix("prims.").split(".")[0]
    return name.removesuffix("_backward").strip("_")
