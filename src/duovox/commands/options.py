"""What several commands do with their options: times, and files that are not to be overwritten."""

from __future__ import annotations

import os
import re
from pathlib import Path

from duovox.contracts import ConfigError, OutputError


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as 90, 90s, 20m or 1.5h. Raises `ConfigError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"time budget {text!r} is no duration; write it as 90s, 20m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def refuse_existing(paths: list[Path], force: bool) -> None:
    """Fail before any work is done rather than after it."""
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(f"{path} exists{' and is a folder' if path.is_dir() else '; add --force to overwrite it'}")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {path}: {'no permission to write in' if parent.is_dir() else 'not a folder:'} {parent}")
