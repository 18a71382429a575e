"""Which sound files a folder holds: one walk for every door. Takes a folder, gives paths, and what it could not take with the reasons."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from duovox.contracts import AudioError
from duovox.sound.audio import READABLE


@dataclass(frozen=True)
class Found:
    """The sound files below a folder, in order; entries that cannot be used though they should (broken links, folders that cannot be
    opened), and files with the suffix of something else, both with the reason."""

    sounds: list[Path] = field(default_factory=list)
    unusable: dict[Path, str] = field(default_factory=dict)
    others: dict[Path, str] = field(default_factory=dict)


def find_sounds(folder: Path) -> Found:
    """Every sound file below a folder, at any depth, links followed. What is hidden (its name starts with a dot) is passed over."""
    found = Found()
    _walk(folder, found, ())
    found.sounds.sort()
    return found


def sounds_of(path: Path) -> list[Path]:
    """The sound file itself, or all below a folder. Raises `AudioError` where there is none."""
    if not path.is_dir():
        return [path]
    found = find_sounds(path).sounds
    if not found:
        raise AudioError(f"there are no sound files in {path}")
    return found


def name_of(path: Path) -> str:
    """What a file of sound is called, or a folder of them."""
    return path.resolve().name if path.is_dir() else path.stem


def _walk(folder: Path, found: Found, above: tuple[str, ...]) -> None:
    """Sort the entries of a folder into `found`; `above` are the real paths of the folders that led here."""
    here = os.path.realpath(folder)
    if here in above:
        found.unusable[folder] = "is a link to a folder that it lies in"
        return
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        found.unusable[folder] = f"cannot be read: {error.strerror or error}"
        return
    for entry in entries:
        if entry.is_dir():
            _walk(entry, found, (*above, here))
        else:
            _take(entry, found)


def _take(file: Path, found: Found) -> None:
    if file.suffix.lower() not in READABLE:
        found.others[file] = f"suffix {file.suffix or '(none)'} is none of {', '.join(READABLE)}"
    elif file.is_file():
        found.sounds.append(file)
    else:
        found.unusable[file] = "is a broken link" if file.is_symlink() else "is no file"
