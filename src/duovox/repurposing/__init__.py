"""A classifier made elsewhere, ready to speak: `building` inspects and builds it, `training` trains it and writes it; or, without any
training, ready to guide: `guide_making`."""

from duovox.repurposing.building import layers_of, repurpose
from duovox.repurposing.guide_making import (
    calibrate_guide,
    make_embedding_guide,
    make_guide,
    make_own_guide,
    make_speaker_guide,
    with_references,
)
from duovox.repurposing.training import Repurposed

__all__ = [
    "Repurposed",
    "calibrate_guide",
    "layers_of",
    "make_embedding_guide",
    "make_guide",
    "make_own_guide",
    "make_speaker_guide",
    "repurpose",
    "with_references",
]
