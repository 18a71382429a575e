"""Which clips a data set has: takes a folder of words, gives every clip's path, label, split and speaker to `features`.

Knows the official layout of Google Speech Commands v0.01 and v0.02 (P. Warden, arXiv 1804.03209) and its split rule.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duovox.contracts import DataError
from duovox.sound.audio import READABLE

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SC09 = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABEL_SETS = {"sc09": SC09}
LISTS: dict[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}
MIN_LABELS = 2
MIN_CLIPS = 2
_HASHES = 2**27  # MAX_NUM_WAVS_PER_CLASS + 1


@dataclass(frozen=True)
class Source:
    """One sound file of a data set."""

    path: Path
    label: str
    split: Split

    @property
    def speaker(self) -> str:
        return speaker_of(self.path.stem)


@dataclass(frozen=True)
class Scan:
    """What a data set holds: labels in order, clips in order, and the files left out with their reasons."""

    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    skipped: dict[str, str]


def speaker_of(stem: str) -> str:
    """The speaker part of a clip's name: what stands before `_nohash_`, else all of it."""
    return re.sub(r"_nohash_.*$", "", stem)


def which_split(stem: str) -> Split:
    """The official rule: SHA-1 of the speaker, 10 % validation, 10 % test (`which_set` in the data set's README)."""
    number = int(hashlib.sha1(speaker_of(stem).encode(errors="surrogateescape"), usedforsecurity=False).hexdigest(), 16)
    percent = number % _HASHES * (100 / (_HASHES - 1))
    return "validation" if percent < 10 else "test" if percent < 20 else "train"


def scan(root: str | Path, labels: str | Sequence[str] | None = None) -> Scan:
    """List the clips of `<root>/<label>/*` with their splits: by the official lists where present, else by `which_split`.

    `labels` is a named set (`sc09`), a comma list or a sequence; None takes every sub-folder whose name does not start with
    `_` or `.`. List entries match by label and stem, whatever the suffix. Raises `DataError` for a missing folder, fewer than
    two labels, a label with fewer than two clips, a speaker in two splits, or lists that do not fit.
    """
    root = Path(root)
    chosen = _choose_labels(root, labels)
    lists = _read_lists(root)
    sources: list[Source] = []
    skipped: dict[str, str] = {}
    for label in chosen:
        for path in sorted(p for p in (root / label).iterdir() if p.is_file() and not p.name.startswith(".")):
            if path.suffix.lower() in READABLE:
                split = which_split(path.stem) if lists is None else lists.get(f"{label}/{path.stem}", "train")
                sources.append(Source(path, label, split))
            else:
                skipped[f"{label}/{path.name}"] = f"suffix {path.suffix or '(none)'} is none of {', '.join(READABLE)}"
    check_counts(root, chosen, (source.label for source in sources))
    if lists and all(source.split == "train" for source in sources):
        raise DataError(f"{root}: none of the {len(lists)} clips named in {' and '.join(LISTS.values())} is there")
    check_speakers(sources)
    return Scan(chosen, tuple(sources), skipped)


def check_counts(root: Path, labels: Sequence[str], label_of_clips: Iterable[str]) -> None:
    """Raise `DataError` unless every label has enough clips to train on and to hold out."""
    counts = Counter(label_of_clips)
    if not counts:
        raise DataError(f"{root}: no usable audio in the folders {', '.join(labels)}")
    for label in labels:
        if counts[label] < MIN_CLIPS:
            raise DataError(
                f"{root}: label {label!r} has {counts[label]} usable clips; add some (at least {MIN_CLIPS}) or leave the label out"
            )


def check_speakers(sources: Iterable[Source]) -> None:
    """Raise `DataError` where one speaker stands in two splits, naming the speaker and both."""
    first: dict[str, Source] = {}
    for source in sources:
        other = first.setdefault(source.speaker, source)
        if other.split != source.split:
            raise DataError(
                f"speaker {source.speaker!r} is in two splits: {other.label}/{other.path.name} in {other.split}, "
                f"{source.label}/{source.path.name} in {source.split}; mend the split lists, or remove both to use the official rule"
            )


def _choose_labels(root: Path, labels: str | Sequence[str] | None) -> tuple[str, ...]:
    """The labels to use, in order, each with its folder."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold one folder of sound files per word")
    found = [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))]
    found.sort(key=lambda name: (SC09.index(name) if name in SC09 else len(SC09), name))
    if labels is None:
        chosen = tuple(found)
    elif isinstance(labels, str):
        chosen = LABEL_SETS.get(labels, tuple(name.strip() for name in labels.split(",") if name.strip()))
    else:
        chosen = tuple(labels)
    missing = [name for name in chosen if name not in found]
    if missing:
        raise DataError(f"{root}: no folder for the labels {', '.join(missing)}; there are {', '.join(found) or 'none'}")
    if len(set(chosen)) < max(MIN_LABELS, len(chosen)):
        raise DataError(f"{root}: at least {MIN_LABELS} different labels are needed, got {', '.join(chosen) or 'none'}")
    return chosen


def _read_lists(root: Path) -> dict[str, Split] | None:
    """`label/stem` -> split, from the official lists; None where there are none."""
    present = [name for name in LISTS.values() if (root / name).is_file()]
    if not present:
        return None
    if len(present) < len(LISTS):
        raise DataError(
            f"{root}: has {present[0]} but not both of {' and '.join(LISTS.values())}; give both, or neither to use the official rule"
        )
    splits: dict[str, Split] = {}
    for split, name in LISTS.items():
        for line in filter(None, map(str.strip, _read_text(root / name).splitlines())):
            label, _, file = line.rpartition("/")
            if splits.setdefault(f"{label}/{Path(file).stem}", split) != split:
                raise DataError(f"{root}: {line} stands in both {' and '.join(LISTS.values())}")
    return splits


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
