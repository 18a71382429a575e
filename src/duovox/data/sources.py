"""Which clips a data set has: takes a folder of words, gives every clip's path, label, split and speaker to `features`.

Knows the official layout of Google Speech Commands v0.01 and v0.02 (P. Warden, arXiv 1804.03209) and its split rule.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duovox.contracts import DataError
from duovox.data.lists import Split, read_lists
from duovox.sound.audio import READABLE
from duovox.sound.folders import find_sounds
from duovox.text import label_fault, printable, same_spelling

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SC09 = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABEL_SETS = {"sc09": SC09}
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
    """What a data set holds: labels in order, clips in order, the files left out with their reasons, and what else to know of it."""

    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


def speaker_of(stem: str) -> str:
    """The speaker part of a clip's name: what stands before `_nohash_`, else all of it."""
    return re.sub(r"_nohash_.*$", "", stem)


def which_split(stem: str) -> Split:
    """The official rule: SHA-1 of the speaker, 10 % validation, 10 % test (`which_set` in the data set's README)."""
    number = int(hashlib.sha1(speaker_of(stem).encode(errors="surrogateescape"), usedforsecurity=False).hexdigest(), 16)
    percent = number % _HASHES * (100 / (_HASHES - 1))
    return "validation" if percent < 10 else "test" if percent < 20 else "train"


def scan(root: str | Path, labels: str | Sequence[str] | None = None) -> Scan:
    """List the clips below `<root>/<label>`, at any depth, with their splits: by the lists where present, else by `which_split`.

    `labels` is a named set (`sc09`), a comma list or a sequence; None takes every sub-folder whose name does not start with
    `_` or `.`. Names are compared in one Unicode form. Raises `DataError` for a missing folder, fewer than two labels, a name that
    cannot be a label, a label with fewer than two clips, a speaker in two splits, or lists that do not fit.
    """
    root = Path(root)
    folders, skipped = _label_folders(root)
    chosen = _choose_labels(root, folders, labels)
    lists = read_lists(root)
    sources: list[Source] = []
    for label, path in _clips(root, chosen, folders, skipped):
        split = which_split(path.stem) if lists is None else lists.split_of(relative_name(path, root))
        sources.append(Source(path, label, split))
    check_counts(root, chosen, (source.label for source in sources), skipped)
    notes = lists.check([relative_name(source.path, root) for source in sources], chosen) if lists else ()
    check_speakers(sources)
    return Scan(chosen, tuple(sources), skipped, notes)


def relative_name(path: Path, root: Path) -> str:
    """How a clip is called: its path below the root, with the parts separated by /."""
    return path.relative_to(root).as_posix()


def check_counts(root: Path, labels: Sequence[str], label_of_clips: Iterable[str], skipped: Mapping[str, str] | None = None) -> None:
    """Raise `DataError` unless every label has enough clips to train on and to hold out; the message says why one that was `skipped`
    was."""
    counts = Counter(label_of_clips)
    for label in labels:
        if counts[label] < MIN_CLIPS:
            lost = [f"{name}: {reason}" for name, reason in (skipped or {}).items() if same_spelling(name.split("/")[0]) == label]
            why = f" ({len(lost)} were left out, the first, {printable(lost[0])})" if lost else ""
            raise DataError(
                f"{root}: label {label!r} has {counts[label]} usable clips{why}; add some (at least {MIN_CLIPS}) or leave the label out"
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


def _label_folders(root: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Label -> its folders (two that differ in Unicode form alone are one label), and sounds and links beside them with the reason why
    they are left out."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold one folder of sound files per word")
    folders: dict[str, list[Path]] = {}
    skipped: dict[str, str] = {}
    for entry in sorted(entry for entry in root.iterdir() if not entry.name.startswith(("_", "."))):
        if entry.is_dir():
            folders.setdefault(same_spelling(entry.name), []).append(entry)
        elif not entry.exists():
            skipped[entry.name] = "is a broken link"
        elif entry.suffix.lower() in READABLE:
            skipped[entry.name] = "lies in no folder of a label"
    return folders, skipped


def _clips(root: Path, labels: Sequence[str], folders: Mapping[str, list[Path]], skipped: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Label and path of each clip, in order; what cannot be one goes to `skipped`."""
    for label in labels:
        for folder in folders[label]:
            found = find_sounds(folder)
            skipped |= {relative_name(path, root): reason for path, reason in sorted({**found.unusable, **found.others}.items())}
            yield from ((label, path) for path in found.sounds)


def _choose_labels(root: Path, folders: Mapping[str, list[Path]], labels: str | Sequence[str] | None) -> tuple[str, ...]:
    """The labels to use, in order, each with its folders."""
    found = sorted(folders, key=lambda name: (SC09.index(name) if name in SC09 else len(SC09), name))
    if labels is None:
        chosen = tuple(found)
    elif isinstance(labels, str):
        chosen = LABEL_SETS.get(labels, tuple(same_spelling(name.strip()) for name in labels.split(",") if name.strip()))
    else:
        chosen = tuple(map(same_spelling, labels))
    missing = [name for name in chosen if name not in folders]
    if missing:
        raise DataError(f"{root}: no folder for the labels {', '.join(missing)}; there are {', '.join(found) or 'none'}")
    for label in chosen:
        if fault := label_fault(label):
            raise DataError(f"{root}: the folder {label!r} cannot be a label, its name {fault}; rename it")
    if len(set(chosen)) < max(MIN_LABELS, len(chosen)):
        raise DataError(f"{root}: at least {MIN_LABELS} different labels are needed, got {', '.join(chosen) or 'none'}")
    return chosen
