"""The bundle: one folder that holds everything a speaking classifier needs.

Takes finished runs from `assemble`, or a folder; gives a checked `Bundle` to `voice`.
"""

from duovox.bundle.contents import CODE_FILES, FILES, FORMAT, READABLE_FORMATS, Bundle, BundleConfig
from duovox.bundle.locating import locate, packaged
from duovox.bundle.reading import read_bundle
from duovox.bundle.writing import write_bundle

__all__ = [
    "CODE_FILES",
    "FILES",
    "FORMAT",
    "READABLE_FORMATS",
    "Bundle",
    "BundleConfig",
    "locate",
    "packaged",
    "read_bundle",
    "write_bundle",
]
