"""Who speaks in a clip: takes the path of a clip below its root, gives the speaker, and how it was found, to `sources`.

The first of these that says something: the clip's row in the root's `speakers.csv`; the caller's pattern; a name with `_nohash_`
(as in Speech Commands); a folder `<label>/<speaker>/`. Else the speaker is unknown, and the clip counts as a speaker of its own.
One name given by tables, pattern or `_nohash_` is one person in all roots of a call; folders of two roots are different persons.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from duovox.contracts import DataError
from duovox.data.tables import Table
from duovox.text import same_spelling

Rule = Literal["label", "table", "pattern", "name", "folder", "unknown"]

_RULES: dict[Rule, str] = {
    "label": "by their labels",
    "table": "by speakers.csv",
    "pattern": "by the pattern",
    "name": "by names with _nohash_",
    "folder": "by folders <label>/<speaker>",
    "unknown": "unknown, each clip counting as one",
}
_OFFICIAL = "_nohash_"


@dataclass(frozen=True)
class Speakers:
    """How the clips of one root get their speakers; `prefix` goes before the names that mean nothing outside the root. Where the `labels`
    are speakers, nothing else is asked."""

    table: Table | None = None
    pattern: re.Pattern[str] | None = None
    prefix: str = ""
    labels: bool = False

    def of(self, clip: str) -> tuple[str, Rule]:
        """The speaker of a clip by its path below the root, `<label>/.../<name>`."""
        if self.labels:
            return same_spelling(PurePosixPath(clip).parts[0]), "label"
        if self.table and (row := self.table.row(clip)):
            return row.speaker, "table"
        if self.pattern and (found := self.pattern.search(clip)) and found[1]:
            return same_spelling(found[1]), "pattern"
        path = PurePosixPath(clip)
        if _OFFICIAL in path.stem:
            return speaker_of(path.stem), "name"
        folders = path.parts[1:-1]
        return (f"{self.prefix}{same_spelling(folders[0])}", "folder") if folders else (f"{self.prefix}{path.stem}", "unknown")


def speaker_of(stem: str) -> str:
    """The speaker part of a clip's name: what stands before `_nohash_`, else all of it."""
    return re.sub(rf"{_OFFICIAL}.*$", "", stem)


def compile_pattern(text: str) -> re.Pattern[str]:
    """The pattern that finds a speaker. Raises `DataError` for one that is none, or has no group or several."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"the speaker pattern {text!r} is no regular expression ({error}); write one such as 'speaker-(\\d+)'") from None
    if pattern.groups != 1:
        raise DataError(
            f"the speaker pattern {text!r} has {pattern.groups} groups; it needs exactly one, around the speaker, as 'speaker-(\\d+)'; "
            "write (?:...) for others"
        )
    return pattern


def count_rules(clips: Iterable[tuple[str, Rule]]) -> dict[str, int]:
    """How many clips each rule gave a speaker to, in the order of the rules."""
    counted = Counter(rule for _, rule in clips)
    return {rule: counted[rule] for rule in _RULES if counted[rule]}


def speaker_notes(clips: Iterable[tuple[str, Rule]]) -> tuple[str, ...]:
    """How the speakers were found, in words; nothing where all names are official ones."""
    clips = list(clips)
    counted = count_rules(clips)
    if set(counted) <= {"name"}:
        return ()
    known = [rule for rule in _RULES if counted.get(rule) and rule != "unknown"]
    ways = [f"{len({name for name, by in clips if by == rule})} {_RULES[rule]} ({counted[rule]} clips)" for rule in known]
    return tuple(text for text in (unknown_note(counted), f"speakers: {', '.join(ways)}" if ways else "") if text)


def unknown_note(counted: Mapping[str, int]) -> str:
    """One sentence where some clips have no known speaker, or the labels are speakers; else empty. It goes with a data set into
    cards and result pages."""
    if counted.get("label"):
        return "the labels are speakers and the split is by clip, so each is heard in training and test alike"
    unknown, total = counted.get("unknown", 0), sum(counted.values())
    heard = "so a voice may be heard in training and test alike"
    if not unknown:
        return ""
    if unknown == total:
        return f"the speakers are unknown and the split is by clip, {heard}"
    return f"the speakers of {unknown} of {total} clips are unknown and these are split by clip, {heard}"
