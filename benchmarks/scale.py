"""What many machines make of measured speeds: generation in shards and training in shares, by simulation. Two Markdown tables.

    python benchmarks/scale.py measure FEATURES --out measured.json    # one core, minutes; in CPU seconds, so that load does not matter
    python benchmarks/scale.py table measured.json                     # processors
    python benchmarks/scale.py table measured.json --gpu-clips 90 --gpu-updates 20 --gpu-updates-eighth 60

`--gpu-clips`: clips a second of one GPU; `--gpu-updates`: its updates a second of the whole batch, `--gpu-updates-eighth` of an eighth of
it, `--gpu-draw`: seconds to draw a batch there (a core's if left out). Prices, disks and networks are assumptions, and options (`table
--help`).
"""

from __future__ import annotations

import heapq
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Measured:
    """What one core was measured to do, in CPU seconds."""

    clip: float
    """A clip of the bundle at its own settings, judged and written."""
    start: float
    """A worker, until its first clip."""
    row: float
    """Counting a clip's record and writing its row of the manifest, by one process."""
    clip_bytes: float
    """On disk, records included."""
    bundle_bytes: float
    """What a worker reads first."""
    draw: float
    """Drawing the batch of an update and its noise, which every process does whole."""
    fixed: float
    """An update, but for what grows with the rows."""
    per_row: float
    """Each row of it."""
    batch: int
    gradient_bytes: float


@dataclass(frozen=True)
class World:
    """Assumptions: what a table's machines, disks and networks are like, and what they cost."""

    clips: int = 1_000_000
    cores: int = 16
    """Of a machine."""
    shard: int = 256
    spread: float = 0.1
    """Of the machines' speeds, standard deviation of the logarithm."""
    deaths: float = 0.01
    """Of workers, an hour each."""
    files: float = 2000.0
    """Files a second that the shared disk makes."""
    disk: float = 500e6
    """Bytes a second that it takes."""
    wire: float = 1.25e9
    """Bytes a second between machines (10 Gbit/s)."""
    latency: float = 50e-6
    """Seconds of a message."""
    gpu_wire: float = 100e9
    """Bytes a second between GPUs of a machine."""
    core_price: float = 0.04
    """Dollars of a core and hour."""
    gpu_price: float = 2.5
    """Dollars of a GPU and hour."""


@dataclass(frozen=True)
class Outcome:
    """Seconds in all, the share of them in which workers made clips that count, the leader's share at the end; the share of the making in
    which the disk was busy."""

    wall: float
    busy: float
    disk: float
    alone: float


def generation(
    workers: int, clip: float, measured: Measured, world: World, shard: int, tar: bool = False, lockstep: bool = False, seed: int = 0
) -> Outcome:
    """Workers of `1 / clip` clips a second fill a shared folder, shard by shard; each waits until its shard is on the disk.

    In `lockstep`, as ranks of torchrun do, nobody begins a shard before all have ended theirs. One process counts and writes the
    manifest in the end.
    """
    rng = random.Random(seed)
    speeds = [math.exp(rng.gauss(0, world.spread)) for _ in range(workers)]
    left = [min(shard, world.clips - first) for first in range(0, world.clips, shard)][::-1]
    events = [(measured.start / speed, number, 0) for number, speed in enumerate(speeds)]  # when, who, and with how many clips to write
    heapq.heapify(events)
    disk_free = disk_busy = useful = now = 0.0
    waiting: list[int] = []
    while events:
        now, number, ready = heapq.heappop(events)
        if ready:
            writes = max((1 if tar else ready) / world.files, ready * measured.clip_bytes / world.disk)
            disk_free = max(disk_free, now) + writes
            disk_busy, useful = disk_busy + writes, useful + ready * clip / speeds[number]
            heapq.heappush(events, (disk_free, number, 0))
            continue
        waiting.append(number)
        if lockstep and events:
            continue
        for idle in waiting[: len(left)]:
            size = left.pop()
            takes = size * clip / speeds[idle]
            died = rng.random() < -math.expm1(-world.deaths * takes / 3600)
            if died:
                left.insert(0, size)
            ends = (now + rng.random() * takes + measured.start / speeds[idle], idle, 0) if died else (now + takes, idle, size)
            heapq.heappush(events, ends)
        waiting = []
    alone = world.clips * measured.row
    wall = now + alone
    return Outcome(wall, useful / (workers * wall), disk_busy / now, alone / wall)


def update_seconds(
    processes: int, draw: float, fixed: float, per_row: float, batch: int, size: float, wire: float, latency: float
) -> float:
    """An update shared by processes: all draw all of it, each computes its rows, the gradients go round a ring."""
    rows = -(-batch // processes)
    ring = 0.0 if processes == 1 else 2 * (processes - 1) * (size / processes / wire + latency)
    return draw + fixed + per_row * rows + ring


def limit_of(outcome: Outcome, workers: int, shards: int) -> str:
    """What holds most back, in words."""
    if outcome.disk > 0.8:
        return "the disk"
    if shards < 4 * workers:
        return f"{shards:,} shards for {workers:,} workers"
    return "the manifest" if outcome.alone > 0.1 else "nothing yet"


def generation_row(name: str, workers: int, clip: float, price: float, measured: Measured, world: World, shard: int, form: str) -> str:
    found, shards = generation(workers, clip, measured, world, shard, "tar" in form, "ranks" in form), -(-world.clips // shard)
    rate = world.clips / found.wall
    dollars = price * workers * found.wall / 3600 / world.clips * 1e6
    cells = [
        name,
        form,
        str(shard),
        f"{rate:,.0f}",
        f"{found.busy:.0%}",
        f"{found.wall / 3600:.2f}",
        f"{rate * measured.clip_bytes / 1e6:.1f}",
        f"{dollars:,.0f}",
        limit_of(found, workers, shards),
    ]
    return f"| {' | '.join(cells)} |"


def table(
    measured: tyro.conf.Positional[Path],
    world: World = World(),
    gpu_clips: float | None = None,
    gpu_updates: float | None = None,
    gpu_updates_eighth: float | None = None,
    gpu_draw: float | None = None,
) -> None:
    """What many machines would do."""
    known = Measured(**json.loads(measured.read_text()))
    heads = ["machines", "as", "shard", "clips/s", "of the sum", f"h for {world.clips:,}", "MB/s", "$ a million", "held back by"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    small = max(8, world.shard // 8)
    for name, machines in (("1", 1), ("10", 10), ("100", 100), ("1,000", 1000)):
        forms = ((world.shard, "files"), (world.shard, "tar"), (small, "tar"), (small, "tar, ranks"))
        for shard, form in forms if machines > 1 else forms[:1]:
            label = f"{name} x {world.cores} cores"
            print(generation_row(label, machines * world.cores, known.clip, world.core_price, known, world, shard, form))
    for gpus in (1, 8, 64) if gpu_clips else ():
        assert gpu_clips is not None
        print(generation_row(f"{gpus} GPU", gpus, 1 / gpu_clips, world.gpu_price, known, world, world.shard, "files"))
    print("\n| processes | updates/s, 10 Gbit/s | of the sum |" + (" GPUs, updates/s | of the sum |" if gpu_updates else ""))
    print("|---" * (5 if gpu_updates else 3) + "|")
    draw = known.draw if gpu_draw is None else gpu_draw
    gpu = _gpu_seconds(known, world, draw, gpu_updates, gpu_updates_eighth) if gpu_updates else None
    for processes in (1, 2, 4, 8, 16, 32, 64):
        print(training_row(processes, known, world, gpu))


def _gpu_seconds(known: Measured, world: World, draw: float, whole: float, eighth: float | None) -> Callable[[int], float]:
    """Seconds of an update by GPUs: what grows with the rows follows from two batches; without the second, all but drawing."""
    small = 1 / eighth - draw / 8 if eighth else (1 / whole - draw) / 8
    per_row = (1 / whole - draw - small) / (known.batch - known.batch // 8)
    fixed = max(0.0, 1 / whole - draw - per_row * known.batch)
    rows = draw, fixed, per_row, known.batch
    return lambda processes: update_seconds(processes, *rows, known.gradient_bytes, world.gpu_wire, world.latency)


def training_row(processes: int, known: Measured, world: World, gpu: Callable[[int], float] | None) -> str:
    def seconds(count: int) -> float:
        rows = known.draw, known.fixed, known.per_row, known.batch
        return update_seconds(count, *rows, known.gradient_bytes, world.wire, world.latency)

    cells = [str(processes), f"{1 / seconds(processes):.2f}", f"{seconds(1) / seconds(processes) / processes:.0%}"]
    if gpu is not None:
        cells += [f"{1 / gpu(processes):.1f}", f"{gpu(1) / gpu(processes) / processes:.0%}"]
    return f"| {' | '.join(cells)} |"


# measuring


def measure(data: tyro.conf.Positional[Path], out: Path, bundle: str = "words", clips: int = 16, precision: str = "auto") -> None:
    """Measure one core of this machine, and write it down."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        made = _measure_generation(Path(place) / "set", bundle, clips, precision)
    found = Measured(**made, **_measure_training(data, precision))
    out.write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(out.read_text())


def _measure_generation(out: Path, bundle: str, clips: int, precision: str) -> dict[str, float]:
    from collections.abc import Iterator, Sequence
    from contextlib import contextmanager

    from duovox.bundle import locate
    from duovox.dataset.options import Options
    from duovox.dataset.plan import Shard
    from duovox.dataset.records import read_records
    from duovox.dataset.run import make_dataset, plan_dataset
    from duovox.dataset.shards import Advance, Job, Maker

    seconds: dict[str, float] = {}

    @contextmanager
    def engine() -> Iterator[Callable[[Job, Sequence[Shard], Advance], None]]:
        def run(job: Job, shards: Sequence[Shard], advance: Advance) -> None:
            began = time.process_time()
            maker = Maker(job)
            seconds["start"] = time.process_time() - began
            maker.make(shards[0])  # pays for what is done once
            began = time.process_time()
            for shard in shards[1:]:
                maker.make(shard)
            seconds["clip"] = (time.process_time() - began) / sum(len(shard.items) for shard in shards[1:])

        yield run

    options = Options(out, clips, bundle=bundle, precision=precision, shard=24, words=("one", "two", "three"), keep_faulty=True)  # type: ignore[arg-type]
    imported = time.process_time()
    planned = plan_dataset(options)
    make_dataset(planned, engine())
    seconds["row"] = _row_seconds(out, planned)
    seconds["start"] += imported  # importing and opening, as a worker does
    rows = sum(1 for _ in read_records(out, range(len(list((out / "_records").iterdir())))))
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    place = locate(bundle)
    return seconds | {"clip_bytes": sum(sizes) / rows, "bundle_bytes": float(sum(path.stat().st_size for path in place.iterdir()))}


def _row_seconds(out: Path, planned: object, times: int = 50) -> float:
    """Of one record: read to be counted, read for the lists, read and written into the manifest; over many, the same ones again."""
    from itertools import chain

    from duovox.dataset.manifest import write_manifest
    from duovox.dataset.records import read_records
    from duovox.dataset.run import Planned

    assert isinstance(planned, Planned)
    numbers = range(len(list((out / "_records").iterdir())))
    began = time.process_time()
    rows = sum(1 for _ in chain.from_iterable(read_records(out, numbers) for _ in range(times)))
    counted = time.process_time()
    again = chain.from_iterable(read_records(out, numbers) for _ in range(times))
    write_manifest(out, planned.form, again, planned.job.common, *planned.labels)
    return (2 * (counted - began) + time.process_time() - counted) / rows


def _measure_training(data: Path, precision: str) -> dict[str, float]:
    """Of the recipe words' Score Subnet, on an untrained classifier: weights do not change what an update costs."""
    import torch

    from duovox.config import read_recipe
    from duovox.data import open_features
    from duovox.devices import choose_autocast
    from duovox.model import build_classifier
    from duovox.runs import scale_of_data
    from duovox.training.optim import update
    from duovox.training.schedule import step_generator
    from duovox.training.shares import ALONE
    from duovox.training.subnet import SubnetTraining

    recipe, device = read_recipe("words"), torch.device("cpu")
    features = open_features(data, recipe.mel)
    classifier = build_classifier(recipe, len(features.labels)).eval().requires_grad_(False)
    batch = recipe.train_subnet.batch

    def trainee(rows: int) -> SubnetTraining:
        from dataclasses import replace

        smaller = replace(recipe, train_subnet=replace(recipe.train_subnet, batch=rows))
        autocast = choose_autocast(precision, device)  # type: ignore[arg-type]
        return SubnetTraining(smaller, features, scale_of_data(recipe, features), classifier, device, autocast)

    def mean(work: Callable[[int], object], times: int = 4) -> float:
        work(0)
        began = time.process_time()
        for step in range(1, times + 1):
            work(step)
        return (time.process_time() - began) / times

    whole, eighth = trainee(batch), trainee(batch // 8)
    draws = [mean(lambda step, one=one: one.draw(step, step_generator(0, step, device))) for one in (whole, eighth)]  # type: ignore[misc]
    takes = [mean(lambda step, one=one: update(one, step, step_generator(0, step, device), ALONE)) for one in (whole, eighth)]  # type: ignore[misc]
    computes = [total - drawn for total, drawn in zip(takes, draws, strict=True)]
    per_row = (computes[0] - computes[1]) / (batch - batch // 8)
    size = 4.0 * sum(parameter.numel() for parameter in whole.updater.network.parameters())
    return {"draw": draws[0], "fixed": computes[0] - per_row * batch, "per_row": per_row, "batch": batch, "gradient_bytes": size}


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"measure": measure, "table": table})
