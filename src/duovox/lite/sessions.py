"""ONNX graphs run by onnxruntime: opened with a clear word where that is missing or too old. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import BundleError, DuovoxError

Run = Callable[..., NDArray[np.float32]]
"""A graph as a function: its inputs by position -> its output."""


def open_graph(source: Path | bytes, inputs: tuple[str, ...], oldest: str, threads: int | None = None) -> Run:
    """A graph, by its path or as bytes, as a function of its inputs. Raises `DuovoxError` where onnxruntime is missing, `BundleError` where
    it is older than `oldest` or cannot run the graph."""
    try:
        import onnxruntime
    except ImportError:
        raise DuovoxError("onnxruntime is not installed: pip install 'duovox[lite]', or onnxruntime alone") from None
    if version_of(onnxruntime.__version__) < version_of(oldest):
        raise BundleError(f"this voice needs onnxruntime {oldest} or newer, here is {onnxruntime.__version__}: pip install -U onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _processors()
    options.enable_cpu_mem_arena = False  # it would keep 15 MB more, to be 5 % faster
    options.log_severity_level = 3
    try:
        content = source if isinstance(source, bytes) else str(source)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds, none of them public
        name = "the graph" if isinstance(source, bytes) else str(source)
        words = next(iter(str(error).splitlines()), "")
        raise BundleError(f"onnxruntime {onnxruntime.__version__} cannot open {name}: {words}") from None

    def run(*values: NDArray[Any]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, dict(zip(inputs, values, strict=True)))[0]
        return output

    return run


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version_of(text: str) -> tuple[int, ...]:
    """1.23.0rc1 as (1, 23, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
