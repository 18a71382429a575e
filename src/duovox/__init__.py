"""duovox: one speech classifier, two jobs. It recognises words, and the same frozen backbone speaks them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Clip", "Duovox", "__version__"]

if TYPE_CHECKING:
    from duovox.duovox import Clip, Duovox


def __getattr__(name: str) -> Any:
    """Load the public objects on first use, so that `import duovox` and `duovox --help` stay fast."""
    if name in ("Clip", "Duovox"):
        return getattr(import_module("duovox.duovox"), name)
    raise AttributeError(f"module 'duovox' has no attribute {name!r}")
