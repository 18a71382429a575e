"""A voice without PyTorch: what `duovox export` wrote, run by onnxruntime and numpy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Voice"]

if TYPE_CHECKING:
    from duovox.lite.voice import Voice


def __getattr__(name: str) -> Any:
    if name == "Voice":
        return import_module("duovox.lite.voice").Voice
    raise AttributeError(f"module 'duovox.lite' has no attribute {name!r}")
