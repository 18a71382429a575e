"""Which words a data set has, and their languages: takes the folders of its roots and what a caller asks for, gives both to `sources`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from duovox.contracts import DataError
from duovox.text import label_fault, language_fault, named, same_spelling

SC09 = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABEL_SETS = {"sc09": SC09}
MIN_LABELS = 2

Folders = Mapping[str, Sequence[Path]]
"""Label -> its folders in one root."""


def choose_labels(place: str, roots: Sequence[tuple[Path, Folders]], labels: str | Sequence[str] | None) -> tuple[str, ...]:
    """The labels to use, in order; every root must have one of them. Raises `DataError`."""
    known = {label for _, folders in roots for label in folders}
    found = sorted(known, key=lambda name: (SC09.index(name) if name in SC09 else len(SC09), name))
    chosen = tuple(found) if labels is None else _wanted(labels)
    missing = [name for name in chosen if name not in known]
    if missing:
        raise DataError(f"{place}: no folder for the labels {', '.join(missing)}; there are {', '.join(found) or 'none'}")
    for label in chosen:
        if fault := label_fault(label):
            raise DataError(f"{place}: the folder {label!r} cannot be a label, its name {fault}; rename it")
    if len(set(chosen)) < max(MIN_LABELS, len(chosen)):
        hint = "" if known else "; give the folder that holds a folder for each word"
        raise DataError(f"{place}: at least {MIN_LABELS} different labels are needed, got {', '.join(chosen) or 'none'}{hint}")
    for root, folders in roots:
        if not set(chosen) & set(folders):
            raise DataError(f"{root} has no folder for any of the labels ({named(chosen, 12)}); leave it out")
        _refuse_twins(root, folders, chosen)
    return chosen


def _wanted(labels: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str):
        return LABEL_SETS.get(labels, tuple(same_spelling(name.strip()) for name in labels.split(",") if name.strip()))
    return tuple(map(same_spelling, labels))


def _refuse_twins(root: Path, folders: Folders, chosen: Sequence[str]) -> None:
    """Raise `DataError` for folders of one root that are one label in another Unicode form, and labels that differ in case alone."""
    for label in chosen:
        if len(folders.get(label, ())) > 1:
            raise DataError(
                f"{root} has {len(folders[label])} folders called {label!r} that differ in their Unicode form alone; merge them"
            )
    first: dict[str, str] = {}
    for label in chosen:
        other = first.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(
                f"the labels {other!r} and {label!r} differ in case alone; rename or merge their folders, or choose with --labels"
            )


def choose_languages(by_root: Sequence[str], roots: Sequence[str], clips: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """Label -> language, of those that have one. A clip (label, root, language of the table or "") without one has its root's: `by_root`
    is one for all roots or one for each. Raises `DataError` for a code that is none, and a label of two languages."""
    for code in by_root:
        if fault := language_fault(code):
            raise DataError(f"the language {code!r} {fault}")
    if len(by_root) not in (0, 1, len(roots)):
        raise DataError(f"{len(by_root)} languages for {len(roots)} folders ({named(roots, 12)}); give one for all, or one for each")
    codes = tuple(by_root) * len(roots) if len(by_root) == 1 else tuple(by_root) or ("",) * len(roots)
    found: dict[str, tuple[str, int]] = {}
    for label, root, language in clips:
        if code := language or codes[root]:
            other, place = found.setdefault(label, (code, root))
            if other != code:
                raise DataError(
                    f"the label {label!r} has two languages, {other} in {roots[place]} and {code} in {roots[root]}; rename a folder"
                )
    return {label: code for label, (code, _) in found.items()}
