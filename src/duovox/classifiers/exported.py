"""Programs of torch.export and TorchScript: takes their files, gives plain modules to `loading`; writes a module as such a file.

Opening one runs code that it holds. An exported program keeps the names of its layers, so they can be tapped; TorchScript runs
outside of Python and calls no hooks.
"""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.network_files import attempt, silence
from duovox.contracts import ConfigError, ShapeError


class Scripted(nn.Module):
    """A TorchScript program as a plain module: a `ScriptModule` itself refuses `requires_grad_` and every Python hook.

    Gradients reach its input. No layer inside of it can be tapped.
    """

    def __init__(self, program: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.program = program

    def forward(self, *inputs: Tensor) -> Any:
        return self.program(*inputs)


RECURRENT = ("rnn_tanh", "rnn_relu", "gru", "lstm")
"""Torch's recurrent operators, which cuDNN runs on CUDA."""


def is_recurrent(network: nn.Module) -> bool:
    """Whether recurrent layers run in a network: as layers, or within an exported or a scripted program."""
    return any(_runs_recurrent_layers(layer) for layer in network.modules())


def _runs_recurrent_layers(layer: nn.Module) -> bool:
    if isinstance(layer, torch.jit.ScriptModule):
        graph = getattr(layer, "inlined_graph", None)  # a module without a forward has none
        return graph is not None and any(graph.findAllNodes(f"aten::{kind}") for kind in RECURRENT)
    targets = [str(node.target) for node in getattr(getattr(layer, "graph", None), "nodes", ())]
    return isinstance(layer, nn.RNNBase) or any(f"aten.{kind}." in target for target in targets for kind in RECURRENT)


def read_script(path: Path) -> Any:
    with silence():
        return torch.jit.load(str(path), map_location="cpu")


def read_exported(file: Path | io.BytesIO, where: str) -> nn.Module:
    """An exported program as a module with its layers' names, which can be hooked, copied and told `eval()` without effect.

    Raises `ConfigError` for a program that is unfit: exported in training mode, or for one size of batch alone.
    """
    with silence():
        program = attempt(f"reading {where}", lambda: torch.export.load(file))
        _demand_eval(program, where)
        shape = _input_shape(program)
        if shape and shape[0] is not None:
            raise ConfigError(f"{where} was exported for batches of {shape[0]} alone: export it with dynamic_shapes=({{0: Dim('batch')}},)")
        network: nn.Module = attempt(f"unfolding {where}", lambda: torch.export.unflatten(program))
    _forget_examples(network)
    network.register_forward_pre_hook(functools.partial(_check_input, shape, where))
    return network


def _demand_eval(program: torch.export.ExportedProgram, where: str) -> None:
    """Dropout and batch statistics are written into the graph as they were at export; no `eval()` can turn them off later."""
    for node in program.graph.nodes:
        names = [argument.name for argument in getattr(getattr(node.target, "_schema", None), "arguments", ())]
        settings = dict(zip(names, node.args, strict=False)) | node.kwargs
        if settings.get("train") is True or settings.get("training") is True or settings.get("dropout_p"):
            raise ConfigError(f"{where} was exported in training mode ({node.target}): export it after network.eval()")


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the first input, None where any size will do."""
    example = next((n.meta.get("val") for n in program.graph.nodes if n.name in program.graph_signature.user_inputs), None)
    return tuple(size if isinstance(size, int) else None for size in example.shape) if isinstance(example, Tensor) else ()


def _forget_examples(network: nn.Module) -> None:
    """Drop the example values of the graphs, whose symbolic sizes no `deepcopy` survives (torch 2.13); nothing computes with them."""
    for module in network.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("val", None)


def _check_input(shape: tuple[int | None, ...], where: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raise `ShapeError` for an input of another shape than the program was exported for."""
    given = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
    fits = len(given) == len(shape) and all(size in (None, got) for size, got in zip(shape, given, strict=True))
    if shape and not fits:
        wanted = ", ".join("B" if size is None else str(size) for size in shape)
        raise ShapeError(f"{where} takes inputs of shape ({wanted}), got {given}")


def export_bytes(network: nn.Module, example: Tensor, taps: Sequence[str] = ()) -> bytes | None:
    """The network as an exported program (.pt2, any batch, eval mode), or None where torch.export cannot do it faithfully.

    `example` (B, ...) is one input; `taps` are layers whose output must keep its form (that of a GRU would else be its first part
    alone, no tuple). Faithful means: at batch 1 and 3, on other inputs too, the outputs and each tap's first tensor are those of
    the module. The module is copied first and stays as it is: hooks, mode, flags and buffers.
    """
    try:
        twin = copy.deepcopy(network).eval()
        item = example[:1].detach()
        inputs = torch.cat([item, 0.5 * item.flip(-1), -item])
        content = _export(twin, inputs, taps)
        again = read_exported(io.BytesIO(content), "the exported network")
        same = all(_agree(_run(twin, x, taps), _run(again, x, taps)) for x in (inputs[:1], inputs))
    except Exception:  # torch.export raises errors of every kind for what it cannot follow
        return None
    return content if same else None


def _export(network: nn.Module, inputs: Tensor, taps: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with silence():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(network, (inputs,), dynamic_shapes=shapes, strict=False, preserve_module_call_signature=tuple(taps))
        torch.export.save(program, buffer)
    return buffer.getvalue()


@torch.no_grad()
def _run(network: nn.Module, inputs: Tensor, taps: Sequence[str]) -> list[Tensor]:
    """Every tensor that the network gives, and the first that each tap gives; outputs that nothing uses are not in a program."""
    tapped: list[Tensor] = []
    hooks = [network.get_submodule(name).register_forward_hook(lambda _, __, output: tapped.extend(_leaves(output)[:1])) for name in taps]
    try:
        return [*_leaves(network(inputs)), *tapped]
    finally:
        for hook in hooks:
            hook.remove()


def _leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _agree(expected: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    pairs = zip(expected, given, strict=False)
    return bool(expected) and len(expected) == len(given) and all(a.shape == b.shape and a.allclose(b, 1e-4, 1e-5) for a, b in pairs)
