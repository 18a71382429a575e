"""Where to compute and in which precision: takes what a user asked for, gives torch's device and autocast type."""

from __future__ import annotations

from typing import Literal

import torch

from duovox.contracts import TrainingError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: DeviceName) -> torch.device:
    """`auto` takes CUDA where there is one. Raises `TrainingError` where `cuda` is asked for and missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_autocast(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type: `auto` takes bf16 on CUDA and on processors with AMX, where it is faster, else none (fp32)."""
    processor: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch we take
    fast = device.type == "cuda" or bool(processor.get("amx_bf16"))
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and fast) else None
