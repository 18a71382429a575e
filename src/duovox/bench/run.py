"""A benchmark from beginning to end: takes voices and options, gives a `Bench`.

Everything that can be refused is refused before anything is timed. Times are taken interleaved, all rows of a setup in one round; the
clips whose quality stands beside a time are made afterwards, with the same settings and precision.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from duovox.bench.cold import cold_start
from duovox.bench.options import Options
from duovox.bench.quality import Listeners, Standing
from duovox.bench.rows import Bench, ColdStart, Row, Setup, baseline_row
from duovox.bench.tasks import Task, count, tasks_of
from duovox.bench.timing import interleaved, times_faster
from duovox.config import PresetName, SampleConfig, to_dict
from duovox.devices import choose_autocast, choose_device
from duovox.evaluation.systems import Generation, make_clips, read_made
from duovox.provenance import processor, versions
from duovox.voice import Duovox


@dataclass(frozen=True)
class System:
    """A voice by its name; `opened` is what a fresh process can open it by, None where it is no bundle."""

    name: str
    voice: Duovox
    opened: str | None = None
    trust_code: bool = False


@dataclass(frozen=True)
class Planned:
    """A row to be: a task of a system in a setup."""

    name: str
    system: System
    setup: Setup
    task: Task

    def run(self) -> None:
        """Do the task once, in its setup, to the end."""
        torch.set_num_threads(self.setup.threads)
        voice = self.system.voice
        voice.sample_in(self.setup.precision)  # type: ignore[arg-type]
        with torch.no_grad():
            self.task.run()
        if voice.device.type == "cuda":
            torch.cuda.synchronize(voice.device)


def measure(systems: list[System], options: Options, command: str = "", tell: Callable[[str], None] = lambda _: None) -> Bench:
    """Time everything, then judge the clips. Raises `ConfigError` for a baseline that is not measured, `BundleError` for a preset that a
    voice has no part for, and what `Listeners` raises; nothing has been timed then."""
    plan = list(_plan(systems, options))
    generations = [planned.name for planned in plan if planned.task.kind == "generate"]
    baseline = baseline_row([planned.name for planned in plan], options.baseline, generations[-1])
    listeners = {system.name: Listeners(system.voice, options.data, options.judge) for system in systems if options.n}
    threads = torch.get_num_threads()
    try:
        tell(f"timing {len(plan)} rows, {options.repeats} rounds")
        seconds = interleaved({planned.name: planned.run for planned in plan}, options.repeats)
        standings = dict(_standings(plan, listeners, options, tell))
    finally:
        torch.set_num_threads(threads)
    fresh = [_fresh(system, options, tell) for system in systems if options.cold and system.opened]
    mel = systems[0].voice.config.recipe.mel
    return Bench(
        machine=describe_machine(systems[0].voice.device),
        versions=versions(),
        systems={system.name: system.voice.config.digest for system in systems},
        seconds_of_speech=mel.clip_samples / mel.sample_rate,
        repeats=options.repeats,
        baseline=baseline,
        rows=tuple(_row(planned, seconds, baseline, plan, standings) for planned in plan),
        cold=tuple(fresh),
        notes=(*_left_out(systems, options.presets), *([] if options.n else ["quality was not measured: --n 0"])),
        command=command,
    )


def _setups(options: Options) -> list[Setup]:
    return [Setup(t, b, p) for t in options.threads for b in options.batch for p in options.precision]


def _plan(systems: list[System], options: Options) -> Iterator[Planned]:
    """Every row, in the order of the table; moves the voices to where they compute."""
    for system in systems:
        costs, voice = count(system.voice), system.voice.to(choose_device(options.device))
        presets = _presets(voice, options.presets, systems)
        for setup in _setups(options):
            for task in tasks_of(voice, setup, presets, costs):
                label = f"{task.kind} {task.name}" if task.kind in ("evaluation", "generate") else task.name
                yield Planned(f"{system.name} {label} {setup}" if len(systems) > 1 else f"{label} {setup}", system, setup, task)


def _presets(voice: Duovox, asked: tuple[PresetName, ...], systems: list[System]) -> dict[PresetName, SampleConfig]:
    """The presets to measure: those asked for, or all; without those that a bundle lacks the parts for and another has."""
    known = voice.presets()
    elsewhere = {name for system in systems for name in system.voice.presets()}
    return {name: voice.settings(preset=name) for name in asked if name in known or name not in elsewhere} if asked else known


def _left_out(systems: list[System], asked: tuple[PresetName, ...]) -> list[str]:
    """What of the presets that were asked for is not measured of a system, and why."""
    lacking = {system.name: [name for name in asked if name not in system.voice.presets()] for system in systems}
    return [f"{name} has no {' and no '.join(presets)}" for name, presets in lacking.items() if presets]


def _standings(
    plan: list[Planned], listeners: Mapping[str, Listeners], options: Options, tell: Callable[[str], None]
) -> Iterator[tuple[tuple[str, str, str], Standing]]:
    """The quality of each whole generation, by system, preset and precision; threads and batch do not change clips."""
    chosen = {_key(planned): planned for planned in plan if planned.task.kind == "generate" and listeners}
    for key, planned in chosen.items():
        tell(f"judging {planned.name}")
        voice, settings = planned.system.voice, planned.task.settings
        voice.sample_in(planned.setup.precision)  # type: ignore[arg-type]
        torch.set_num_threads(max(options.threads))
        wanted = Generation(options.n, to_dict(settings), batch=max(options.batch))
        kept = options.clips / "_".join(key) if options.clips else None
        with tempfile.TemporaryDirectory(prefix="duovox-") if kept is None else nullcontext(kept) as folder:
            make_clips(voice, Path(folder), wanted)
            yield key, listeners[planned.system.name].hear(read_made(voice, Path(folder), wanted))


def _key(planned: Planned) -> tuple[str, str, str]:
    return planned.system.name, planned.task.name, planned.setup.precision


def _row(
    planned: Planned,
    seconds: Mapping[str, list[float]],
    baseline: str,
    plan: list[Planned],
    standings: Mapping[tuple[str, str, str], Standing],
) -> Row:
    base, task, mine = next(one for one in plan if one.name == baseline), planned.task, seconds[planned.name]
    share = base.setup.batch / planned.setup.batch  # a round of the baseline may make more clips, or fewer
    whole = task.kind == "generate"
    standing = standings.get(_key(planned)) if whole else None
    return Row(
        name=planned.name,
        system=planned.system.name,
        kind=task.kind,
        task=task.name,
        setup=planned.setup,
        seconds=statistics.median(mine) / planned.setup.batch,
        fastest=min(mine) / planned.setup.batch,
        times_faster=times_faster(mine, seconds[baseline]) / share if task.kind == base.task.kind else None,
        gmacs=task.gmacs,
        evaluations=task.evaluations,
        settings=to_dict(task.settings) if task.settings else None,
        standing=asdict(standing) if standing else None,
    )


def _fresh(system: System, options: Options, tell: Callable[[str], None]) -> ColdStart:
    tell(f"starting {system.name} in a fresh process")
    assert system.opened is not None
    return cold_start(system.name, system.opened, system.voice.labels[0], max(options.batch), min(options.threads), system.trust_code)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine as a reader of the figures needs it: processor, its cores and instructions, the accelerator; no names of hosts."""
    found: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "instructions": torch.backends.cpu.get_cpu_capability()}
    found["amx"] = choose_autocast("auto", torch.device("cpu")) is not None
    found["limited to"] = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return found | ({"accelerator": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})
