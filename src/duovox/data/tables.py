"""The table of speakers of a data set, `speakers.csv` in its root: takes the root, gives a row for each clip it names to `speakers`.

Columns `path` (below the root, whatever the suffix) and `speaker`; if there, `split` (train, validation, test; empty: not said) and
`language`. Other columns are not used. Separated by commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from duovox.contracts import DataError
from duovox.data.lists import Split, clip_key
from duovox.text import language_fault, named, printable, read_text, same_spelling

NAME = "speakers.csv"
_NEEDED, _OPTIONAL = ("path", "speaker"), ("split", "language")


@dataclass(frozen=True)
class Row:
    """What the table says of one clip; `path` as it was written."""

    path: str
    speaker: str
    split: Split | None
    language: str


@dataclass(frozen=True)
class Table:
    """The rows by `clip_key` of their paths, and the columns that are not used."""

    file: Path
    rows: dict[str, Row]
    unused: tuple[str, ...]

    def row(self, clip: str) -> Row | None:
        """The row of a clip by its path below the root."""
        return self.rows.get(clip_key(clip))

    def check(self, clips: Collection[str], other_labels: Collection[str]) -> tuple[str, ...]:
        """What of the table does not fit the files of its root, in words; rows of `other_labels` are passed over. Raises `DataError`
        for rows of files that are not there."""
        keys = {clip_key(clip) for clip in clips}
        absent = [row.path for key, row in self.rows.items() if key not in keys and key.split("/")[0] not in other_labels]
        if absent:
            raise DataError(
                f"{self.file}: {len(absent)} paths match no clip ({named(absent)}); write them below the root, as label/name.wav"
            )
        bare = [clip for clip in clips if clip_key(clip) not in self.rows]
        notes = [f"{NAME} names no speaker for {len(bare)} of {len(clips)} clips ({named(bare)})"] if bare else []
        return (*notes, *([f"columns of {NAME} that are not used: {named(self.unused, 10)}"] if self.unused else []))


def read_table(root: Path) -> Table | None:
    """The table of a data set; None where there is none. Raises `DataError` for one that cannot be used, with the line."""
    file = root / NAME
    if not file.is_file():
        return None
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from None
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count) if lines else ",", skipinitialspace=True)
    columns = [same_spelling((name or "").strip()) for name in reader.fieldnames or ()]
    if missing := [name for name in _NEEDED if name not in columns]:
        raise DataError(f"{file}: the first line has no column {' and '.join(missing)} (it has {named(columns, 10) or 'none'}); name both")
    reader.fieldnames = columns
    rows: dict[str, Row] = {}
    for key, row, line in _read_rows(file, reader):
        if (other := rows.setdefault(key, row)) and (other.speaker, other.split, other.language) != (row.speaker, row.split, row.language):
            raise DataError(f"{file}, line {line}: {printable(row.path)} has another row that says otherwise; keep one")
    return Table(file, rows, tuple(name for name in columns if name not in (*_NEEDED, *_OPTIONAL)))


def _read_rows(file: Path, reader: csv.DictReader[str]) -> Iterator[tuple[str, Row, int]]:
    """Key, content and line of each row that is not empty."""
    try:
        for cells in reader:
            values = {name: (cells.get(name) or "").strip() for name in (*_NEEDED, *_OPTIONAL)}
            if any(values.values()):
                where = f"{file}, line {reader.line_num}"
                yield clip_key(values["path"]), _row(where, values, "language" in (reader.fieldnames or ())), reader.line_num
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}; write one clip a line") from None


def _row(where: str, values: dict[str, str], with_language: bool) -> Row:
    for name in _NEEDED:
        if not values[name]:
            raise DataError(f"{where}: the {name} is empty; write one, or take the line out")
    if values["split"] not in ("", *get_args(Split)):
        raise DataError(f"{where}: the split {printable(values['split'])!r} is none of {', '.join(get_args(Split))}")
    if with_language and (fault := language_fault(values["language"])):
        raise DataError(f"{where}: the language {printable(values['language'])!r} {fault}")
    split = cast(Split, values["split"]) if values["split"] else None
    return Row(values["path"], same_spelling(values["speaker"]), split, values["language"])
