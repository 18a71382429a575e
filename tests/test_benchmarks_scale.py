"""benchmarks/scale.py: the simulation, where the answer can be worked out by hand."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_scale", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured(scale: ModuleType, **others: float):  # type: ignore[no-untyped-def]
    given = {"clip": 0.5, "start": 3.0, "row": 0.0, "clip_bytes": 0.0, "bundle_bytes": 0.0}
    return scale.Measured(**{**given, "draw": 0.1, "fixed": 0.2, "per_row": 0.01, "batch": 64, "gradient_bytes": 1e6, **others})


def world(scale: ModuleType, **others: float):  # type: ignore[no-untyped-def]
    return scale.World(**{"clips": 1000, "shard": 100, "spread": 0.0, "deaths": 0.0, "files": 1e12, "disk": 1e15, **others})


def test_one_worker_makes_clip_after_clip(scale: ModuleType) -> None:
    known, here = measured(scale, row=0.01), world(scale)
    found = scale.generation(1, known.clip, known, here, 100)
    assert found.wall == pytest.approx(3 + 1000 * 0.5 + 1000 * 0.01)
    assert found.busy == pytest.approx(500 / 513) and found.alone == pytest.approx(10 / 513)


def test_workers_share_shards_not_clips(scale: ModuleType) -> None:
    known, here = measured(scale), world(scale)
    walls = {workers: scale.generation(workers, known.clip, known, here, 100).wall for workers in (1, 2, 5, 7, 10, 1000)}
    assert walls == pytest.approx({1: 503, 2: 253, 5: 103, 7: 103, 10: 53, 1000: 53})


def test_a_disk_gives_way_to_one_shard_after_the_other(scale: ModuleType) -> None:
    known, here = measured(scale), world(scale, files=10.0)
    files, tar = (scale.generation(10, known.clip, known, here, 100, tar) for tar in (False, True))
    assert files.wall == pytest.approx(3 + 50 + 10 * 100 / 10) and files.disk == pytest.approx(100 / 153)
    assert tar.wall == pytest.approx(3 + 50 + 10 / 10)
    slow = scale.generation(10, known.clip, replace(known, clip_bytes=1000.0), replace(here, disk=1e4), 100, True)
    assert slow.wall == pytest.approx(3 + 50 + 10 * 100 * 1000 / 1e4)


def test_who_waits_for_others_is_no_faster(scale: ModuleType) -> None:
    known, here = measured(scale), world(scale, spread=0.3, clips=100_000)
    free, ranks = (scale.generation(16, known.clip, known, here, 100, lockstep=lockstep).wall for lockstep in (False, True))
    assert ranks > 1.2 * free
    alike = world(scale)
    assert scale.generation(5, known.clip, known, alike, 100, lockstep=True).wall == pytest.approx(103)


def test_deaths_cost_time_and_lose_nothing(scale: ModuleType) -> None:
    known, here = measured(scale), world(scale, clips=10_000)
    calm, deadly = (scale.generation(4, known.clip, known, replace(here, deaths=deaths), 100) for deaths in (0.0, 20.0))
    assert deadly.wall > 1.1 * calm.wall
    assert deadly.busy * deadly.wall == pytest.approx(calm.busy * calm.wall), "as much useful work, all clips once"


def test_an_update_is_what_is_whole_and_what_is_shared(scale: ModuleType) -> None:
    args = (0.1, 0.2, 0.01, 64, 1e6, 1e6, 0.001)
    assert scale.update_seconds(1, *args) == pytest.approx(0.1 + 0.2 + 0.64)
    assert scale.update_seconds(4, *args) == pytest.approx(0.1 + 0.2 + 0.16 + 6 * (0.25 + 0.001))
    assert scale.update_seconds(5, *args) == pytest.approx(0.1 + 0.2 + 0.13 + 8 * (0.2 + 0.001)), "13 rows at most"


def test_two_batches_tell_what_a_gpu_pays_whatever_the_rows(scale: ModuleType) -> None:
    known, here = measured(scale), world(scale)
    seconds = scale._gpu_seconds(known, here, 0.0, 1 / (0.02 + 64 * 0.001), 1 / (0.02 + 8 * 0.001))
    assert seconds(1) == pytest.approx(0.084) and seconds(8) == pytest.approx(0.028, rel=0.05)
    assert scale._gpu_seconds(known, here, 0.01, 1 / 0.65, None)(64) == pytest.approx(0.02, rel=0.4), "without the second, all grows"


def test_what_holds_back_is_named(scale: ModuleType) -> None:
    assert scale.limit_of(scale.Outcome(10, 0.2, 0.9, 0.5), 10, 1000) == "the disk"
    assert scale.limit_of(scale.Outcome(10, 0.2, 0.1, 0.0), 1000, 3999) == "3,999 shards for 1,000 workers"
    assert scale.limit_of(scale.Outcome(10, 0.8, 0.1, 0.2), 10, 1000) == "the manifest"
    assert scale.limit_of(scale.Outcome(10, 0.9, 0.1, 0.0), 10, 1000) == "nothing yet"
