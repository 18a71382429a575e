"""Checkpoints: one safetensors file that holds everything a run needs to go on, written atomically. No pickle.

Takes the state of a `Trainee` from `loop`; gives it back bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.contracts import TrainingError
from duovox.files import write_tensors

FORMAT = "duovox-checkpoint-1"


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimiser steps done and seconds spent in training, over all its sessions."""

    step: int = 0
    seconds: float = 0.0


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer], progress: Progress, facts: Mapping[str, Any]
) -> None:
    """Write the state of modules and optimisers, the progress, and `facts` (JSON values) that `read_facts` returns."""
    tensors = {f"module/{name}/{key}": value.clone() for name, module in modules.items() for key, value in module.state_dict().items()}
    groups: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(value).clone() for key, value in values.items()}
    header = {"format": FORMAT, "step": progress.step, "seconds": progress.seconds, "groups": groups, "facts": dict(facts)}
    write_tensors(path, tensors, {"duovox": json.dumps(header)})


def read_header(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint. Raises `TrainingError` if the file is no complete checkpoint of this format."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("duovox", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise TrainingError(f"{path} is no readable checkpoint ({error}); start afresh in another folder") from None
    version = header.get("format") if isinstance(header, dict) else None
    if version != FORMAT:
        raise TrainingError(f"{path} is a checkpoint of format {version!r}, this version reads {FORMAT!r}")
    return dict(header)


def load_checkpoint(path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> Progress:
    """Put a checkpoint's state back into modules and optimisers of the same shapes; returns the progress."""
    header = read_header(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    for name, module in modules.items():
        prefix = f"module/{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise TrainingError(f"{path} does not fit the {name} of this recipe: {str(error).splitlines()[-1].strip()}") from None
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({"param_groups": header["groups"][name], "state": _optimizer_state(tensors, f"optimizer/{name}/")})
        _lay_out_as_parameters(optimizer)
    return Progress(header["step"], header["seconds"])


def _optimizer_state(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split("/")
            state.setdefault(int(index), {})[name] = value
    return state


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give every moment the memory layout of its parameter (a file has none), as the optimiser itself does at its first step."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.ndim and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
