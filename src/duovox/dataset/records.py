"""What is on record of every clip of a data set: a file of JSON lines for each shard, written when all else of the shard is there.

So a shard is finished if its records are there. `shards` writes them, `run` counts by them, `manifest` puts them together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from duovox.contracts import DataError, OutputError
from duovox.dataset.plan import Shard, Tally
from duovox.files import write_whole
from duovox.generation import SETTINGS

FOLDER = "_records"
"""Below the data set; who reads a folder of words passes over names that begin so."""


class Record(TypedDict):
    """One clip. `target` is its place among the targets, `kind` word, between or outside. `file` and `sha256` are empty where it was thrown
    away, `bytes` 0, `dropped` says why, `fault` how it ran off; `judge` is None where no judge knows the words."""

    id: int
    target: int
    label: str
    kind: str
    seed: int
    file: str
    split: str
    kept: bool
    dropped: str
    fault: str
    bytes: int
    sha256: str
    classifier: dict[str, float]
    judge: dict[str, float] | None
    augmentation: dict[str, Any]


def record_file(folder: Path, shard: int) -> Path:
    return folder / FOLDER / f"{shard:06d}.jsonl"


def missing(shards: Iterable[Shard], folder: Path) -> list[Shard]:
    """The shards that are not finished, whose records are of other clips, or of which a file is gone or of another size. Raises `DataError`
    for damaged records."""
    return [shard for shard in shards if not _is_there(folder, shard)]


def _is_there(folder: Path, shard: Shard) -> bool:
    if not record_file(folder, shard.number).is_file():
        return False
    records = list(read_records(folder, [shard.number]))
    if [(record["id"], record["target"], record["seed"]) for record in records] != [tuple(item) for item in shard.items]:
        return False
    return all(_has(folder / record["file"], record["bytes"]) for record in records if record["kept"])


def _has(place: Path, size: int) -> bool:
    """Whether a sound is there, as a file of its size, or in a tar that is larger."""
    try:
        return place.stat().st_size == size
    except NotADirectoryError:
        return place.parent.stat().st_size > size
    except OSError:
        return False


def write_records(folder: Path, shard: int, records: Sequence[Record]) -> None:
    """Say that a shard is finished. Raises `OutputError`."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_whole(record_file(folder, shard), lines.encode(), force=True)


def read_records(folder: Path, shards: Iterable[int]) -> Iterator[Record]:
    """The records of finished shards, one at a time. Raises `DataError` for files that are damaged or gone."""
    for shard in shards:
        path = record_file(folder, shard)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from (json.loads(line) for line in lines)
        except (OSError, ValueError) as error:
            require_folder(folder)
            raise DataError(f"{path} cannot be read ({error}); remove it, and the same command makes its clips again") from None


def counted(records: Iterable[Record], before: Sequence[Tally]) -> list[Tally]:
    """The tallies of the targets with these records added."""
    tallies = list(before)
    for record in records:
        place = record["target"]
        tallies[place] = Tally(tallies[place].tried + 1, tallies[place].kept + record["kept"])
    return tallies


def require_folder(folder: Path) -> None:
    """Raise `OutputError` where a data set's folder is no longer there."""
    if not (folder / SETTINGS).is_file():
        raise OutputError(f"{folder} has vanished while clips were made for it; put it back, or begin again with another --out")


def rounded(probabilities: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in probabilities.items()}
