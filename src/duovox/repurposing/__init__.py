"""A classifier made elsewhere, ready to speak: `building` inspects and builds it, `training` trains it and writes it."""

from duovox.repurposing.building import layers_of, repurpose
from duovox.repurposing.training import Repurposed

__all__ = ["Repurposed", "layers_of", "repurpose"]
