"""The split lists of a data set, `validation_list.txt` and `testing_list.txt`: takes its folder, gives the split of each clip to `sources`.

An entry is `label/name.wav`, or deeper. It matches by label and name, whatever the suffix, in any spelling that editors and shells of
the common systems give it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from duovox.contracts import DataError
from duovox.text import named, printable, read_text, same_spelling

Split = Literal["train", "validation", "test"]
LISTS: dict[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}


@dataclass(frozen=True)
class Lists:
    """The clips held out: for each list its split, and what its lines stand for, `label/name` -> the line as it was written."""

    root: Path
    entries: dict[Split, dict[str, str]]

    def split_of(self, clip: str) -> Split:
        """The split of a clip by its path below the root."""
        key = clip_key(clip)
        return next((split for split, entries in self.entries.items() if key in entries), "train")

    def check(self, clips: Collection[str], labels: Collection[str]) -> tuple[str, ...]:
        """What of the lists does not fit the clips, in words. Raises `DataError` for a list that matches none of them."""
        keys = {clip_key(clip) for clip in clips}
        return tuple(note for split in self.entries for note in self._check(split, keys, labels))

    def _check(self, split: Split, keys: Collection[str], labels: Collection[str]) -> list[str]:
        entries, name = self.entries[split], LISTS[split]
        missing = {key: line for key, line in entries.items() if key not in keys}
        if entries and len(missing) == len(entries):
            found = f"{self.root}: none of the {len(entries)} clips named in {name} is there ({named(missing.values())})"
            raise DataError(f"{found}; write one a line, as label/name.wav")
        others = [line for key, line in missing.items() if key.split("/")[0] not in labels]
        absent = [line for key, line in missing.items() if key.split("/")[0] in labels]
        notes = [f"{len(absent)} of {len(entries)} entries of {name} match no clip ({named(absent)})"] if absent else []
        return notes + ([f"{len(others)} of {len(entries)} entries of {name} are of other labels ({named(others)})"] if others else [])


def read_lists(root: Path) -> Lists | None:
    """The lists of a data set; None where there are none. Raises `DataError` for one without the other, and clips that stand in both."""
    present = [name for name in LISTS.values() if (root / name).is_file()]
    if not present:
        return None
    if len(present) < len(LISTS):
        raise DataError(
            f"{root}: has {present[0]} but not both of {' and '.join(LISTS.values())}; give both, or neither to use the official rule"
        )
    entries = {split: _read_list(root / name) for split, name in LISTS.items()}
    for key, line in entries["validation"].items():
        if key in entries["test"]:
            raise DataError(f"{root}: {printable(line)} stands in both {' and '.join(LISTS.values())}; take it out of one")
    return Lists(root, entries)


def clip_key(path: str) -> str:
    """A path below the root without suffix, in one spelling: `/` between its parts, no quotes, no leading `./`."""
    plain = same_spelling(path.strip().strip("\"'").strip().replace("\\", "/"))
    return PurePosixPath(plain).with_suffix("").as_posix() if PurePosixPath(plain).name else ""


def _read_list(path: Path) -> dict[str, str]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    return {key: line.strip() for line in lines if (key := clip_key(line))}
