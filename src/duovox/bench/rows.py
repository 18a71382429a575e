"""What a benchmark found, as plain data: rows, cold starts, the machine; JSON out and in.

Takes figures from `run`; gives them to `page`, and to files that later versions can read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from duovox.contracts import ConfigError, DataError

FORMAT = "duovox-bench-1"
Kind = Literal["classify", "evaluation", "generate", "vocoder"]


@dataclass(frozen=True)
class Setup:
    """Where and how a row computed: threads of the processor, clips at once, precision of the networks."""

    threads: int
    batch: int
    precision: str

    def __str__(self) -> str:
        return f"t{self.threads} b{self.batch} {self.precision}"


@dataclass(frozen=True)
class Row:
    """One task of one system: the median `seconds` of each clip, how many times faster than the baseline row (None for other kinds than
    the baseline's), evaluations and GMACs of each clip. Of whole generations also `settings`, and the figures of `quality.Standing`."""

    name: str
    system: str
    kind: Kind
    task: str
    setup: Setup
    seconds: float
    fastest: float
    times_faster: float | None
    gmacs: float
    evaluations: int | None = None
    settings: dict[str, Any] | None = None
    standing: dict[str, Any] | None = None


@dataclass(frozen=True)
class ColdStart:
    """A fresh process: seconds to import, to open the bundle, to make the first clip, and the peak of its memory in MiB after each; and
    after a batch of `batch`."""

    system: str
    import_seconds: float
    load_seconds: float
    first_clip_seconds: float
    import_mib: float
    load_mib: float
    first_clip_mib: float
    batch_mib: float
    batch: int


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark: `machine` and `versions` describe where, `systems` the digest of each voice by its name."""

    machine: dict[str, Any]
    versions: dict[str, str]
    systems: dict[str, str]
    seconds_of_speech: float
    repeats: int
    baseline: str
    rows: tuple[Row, ...]
    cold: tuple[ColdStart, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""
    format: str = field(default=FORMAT)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def read_bench(path: Path) -> Bench:
    """A benchmark from a file that `to_json` wrote. Raises `DataError` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give a file that duovox bench --json wrote") from None
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise DataError(f"{path} has the format {version!r}, this duovox reads {FORMAT}; give a file that duovox bench --json wrote")
    try:
        rows = tuple(Row(**{**row, "setup": Setup(**row["setup"])}) for row in data["rows"])
        cold = tuple(ColdStart(**one) for one in data["cold"])
        return Bench(**{**data, "rows": rows, "cold": cold, "notes": tuple(data["notes"])})
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is no whole benchmark ({error}); measure it again") from None


def baseline_row(rows: list[str], wanted: str | None, default: str) -> str:
    """The name of the baseline row. Raises `ConfigError` for one that is not measured."""
    if wanted is not None and wanted not in rows:
        raise ConfigError(f"--baseline {wanted!r} is no row of this benchmark; its rows are {', '.join(rows)}")
    return wanted if wanted is not None else default
