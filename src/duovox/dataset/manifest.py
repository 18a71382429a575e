"""What is written of a whole data set, by one process, when all its shards are there: lists of the splits, and one table of all clips.

Takes the records of the shards in their order, so the same shards give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from duovox.contracts import ConfigError, OutputError
from duovox.data.lists import LISTS
from duovox.dataset.options import ManifestForm
from duovox.dataset.records import Record
from duovox.files import write_whole

GROUP = 8192
"""Rows of a row group of Parquet: so many are in memory at once."""


def choose_form(asked: ManifestForm) -> ManifestForm:
    """`auto` takes Parquet where pyarrow is installed. Raises `ConfigError` where Parquet is asked for and pyarrow is not."""
    there = find_spec("pyarrow") is not None
    if asked == "parquet" and not there:
        raise ConfigError("a manifest in Parquet needs pyarrow: pip install 'duovox[dataset]', or take --manifest jsonl")
    return asked if asked != "auto" else "parquet" if there else "jsonl"


def manifest_file(folder: Path, form: ManifestForm) -> Path:
    return folder / f"manifest.{form}"


def write_lists(folder: Path, records: Iterable[Record]) -> None:
    """validation_list.txt and testing_list.txt, as Speech Commands has them."""
    held: dict[str, list[str]] = {split: [] for split in LISTS}
    for record in records:
        if record["kept"] and record["split"] in held:
            held[record["split"]].append(record["file"])
    for split, name in LISTS.items():
        write_whole(folder / name, "".join(f"{file}\n" for file in sorted(held[split])).encode(), force=True)


def write_manifest(
    folder: Path, form: ManifestForm, records: Iterable[Record], common: Mapping[str, Any], voice: tuple[str, ...], judge: tuple[str, ...]
) -> Path:
    """One row a clip, those thrown away too, `common` in each; a manifest of the other form goes. `voice` and `judge` are the labels of
    theirs that have a probability. Raises `OutputError`."""
    rows = ({**record, **common} for record in records)
    path = manifest_file(folder, form)
    if form == "jsonl":
        _replaced(path, lambda temporary: _write_lines(temporary, rows))
    else:
        _replaced(path, lambda temporary: _write_parquet(temporary, rows, voice, judge))
    manifest_file(folder, "parquet" if form == "jsonl" else "jsonl").unlink(missing_ok=True)
    return path


def _replaced(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written piece by piece under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; mend that, and the same command goes on") from None


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, rows: Iterator[Mapping[str, Any]], voice: tuple[str, ...], judge: tuple[str, ...]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(voice, judge)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist([_flat(row) for row in group], schema))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with tables of free form as JSON."""
    return {**row, **{name: json.dumps(row[name]) for name in ("settings", "guides", "augmentation")}}


def _schema(voice: tuple[str, ...], judge: tuple[str, ...]) -> Any:
    import pyarrow as pa

    text, probabilities = (
        pa.string(),
        [pa.struct([(label, pa.float32()) for label in labels]) if labels else pa.null() for labels in (voice, judge)],
    )
    fields = [
        ("id", pa.int64()),
        ("target", pa.int64()),
        ("label", text),
        ("kind", text),
        ("seed", pa.int64()),
        ("file", text),
        ("split", text),
        ("kept", pa.bool_()),
    ]
    fields += [
        ("dropped", text),
        ("fault", text),
        ("bytes", pa.int64()),
        ("sha256", text),
        ("classifier", probabilities[0]),
        ("judge", probabilities[1]),
        ("augmentation", text),
    ]
    return pa.schema([*fields, ("settings", text), ("guides", text), ("vocoder", text), ("bundle", text), ("judged_by", text)])
