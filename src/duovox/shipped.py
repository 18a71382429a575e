"""What ships with the package: the bundle that speaks where none is named, and where bundles and judges lie. Imports nothing."""

from __future__ import annotations

from pathlib import Path

DEFAULT_BUNDLE = "words"

BUNDLES = Path(__file__).parent / "bundles"
JUDGES = Path(__file__).parent / "judges"
GUIDES = Path(__file__).parent / "guide_folders"
