"""What tests of data sets share: options that make few clips, an engine without other processes, what lies in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duovox.dataset.engines.base import Run
from duovox.dataset.options import Options
from duovox.dataset.plan import Shard
from duovox.dataset.run import Outcome, make_dataset, plan_dataset
from duovox.dataset.shards import Advance, Job, Maker


def options(bundle: Path, out: Path, /, **others: Any) -> Options:
    given: dict[str, Any] = {"per_word": 4, "batch": 2, "shard": 4, "keep_faulty": True, "bundle": str(bundle)}
    return Options(out, **given | others)


@contextmanager
def here(stop_before: int | None = None) -> Iterator[Run]:
    """An engine without other processes, which may be interrupted before a shard."""

    def run(job: Job, shards: Sequence[Shard], advance: Advance) -> None:
        maker = Maker(job)
        for shard in shards:
            if shard.number == stop_before:
                raise KeyboardInterrupt
            maker.make(shard, advance)

    yield run


def make(bundle: Path, out: Path, /, **others: Any) -> Outcome:
    return make_dataset(plan_dataset(options(bundle, out, **others)), here())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
