"""duovox: one speech classifier, two jobs. It recognises words, and the same frozen backbone speaks them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"
__all__ = [
    "Clip",
    "Duovox",
    "MelInput",
    "WaveInput",
    "__version__",
    "load_network",
    "make_embedding_guide",
    "make_guide",
    "make_own_guide",
    "make_speaker_guide",
    "repurpose",
]

if TYPE_CHECKING:
    from duovox.classifiers.loading import load_network
    from duovox.config import MelInput, WaveInput
    from duovox.repurposing import make_embedding_guide, make_guide, make_own_guide, make_speaker_guide, repurpose
    from duovox.voice import Clip, Duovox

_HOMES = {
    "Clip": "duovox.voice",
    "Duovox": "duovox.voice",
    "MelInput": "duovox.config",
    "WaveInput": "duovox.config",
    "load_network": "duovox.classifiers.loading",
    "make_embedding_guide": "duovox.repurposing",
    "make_guide": "duovox.repurposing",
    "make_own_guide": "duovox.repurposing",
    "make_speaker_guide": "duovox.repurposing",
    "repurpose": "duovox.repurposing",
}


def __getattr__(name: str) -> Any:
    """Load the public objects on first use, so that `import duovox` and `duovox --help` stay fast."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'duovox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
