"""The command `bench`: takes voices and where to measure, gives a table, a JSON file, a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from duovox.bench.options import Options
from duovox.commands.options import refuse_existing
from duovox.contracts import ConfigError
from duovox.shipped import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from duovox.bench.rows import Bench
    from duovox.bench.run import System


def bench(
    bundle: Positional[str] = DEFAULT_BUNDLE,
    /,
    options: Annotated[Options, arg(name="")] = Options(),  # noqa: B008 (frozen)
    also: Annotated[tuple[str, ...], UseAppendAction] = (),
    recipe: str | None = None,
    trust_code: bool = False,
    json: Path | None = None,
    page: Path | None = None,
    read: Path | None = None,
    force: bool = False,
) -> None:
    """Measure how fast a voice is here, and how good at that speed.

    Times classifying, one evaluation (plain, tapped, guided), the vocoder and whole generations by preset, and a cold start in a fresh
    process; counts multiply-accumulates; judges the clips of every whole generation.

    Args:
        bundle: Name of a bundle in the package, a bundle folder, a hub id, or a folder of runs.
        options: What to measure.
        also: Another bundle or folder of runs to measure beside it, such as the two-model baseline (score_model = "unet"); repeatable.
        recipe: The recipe of folders of runs; `compact` if left out.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        json: Write all figures to this file.
        page: Write a page in Markdown to this file.
        read: Measure nothing; show the figures of a file that --json wrote, and write their --page.
        force: Overwrite files that exist.
    """
    refuse_existing([path for path in (json, page) if path is not None], force)
    if read is not None and json is not None:
        raise ConfigError("--read shows a file that is there, --json writes a new one; give one of them")
    from duovox.bench.page import markdown, table
    from duovox.bench.rows import read_bench
    from duovox.files import write_whole

    found = read_bench(read) if read is not None else _measured([bundle, *also], options, recipe, trust_code)
    for path, text in ((json, found.to_json()), (page, markdown(found))):
        if path is not None:
            write_whole(path, text.encode(), force=force, parents=True)
    print(table(found), end="")


def _measured(names: Sequence[str], options: Options, recipe: str | None, trust_code: bool) -> Bench:
    from duovox.bench.run import measure

    systems = [_open(name, recipe, trust_code) for name in names]
    if len({system.name for system in systems}) < len(systems):
        raise ConfigError(f"--also names a system twice ({', '.join(names)}); give each a folder name of its own")
    command = "duovox " + shlex.join(sys.argv[1:])
    return measure(systems, options, command, lambda line: print(line, file=sys.stderr, flush=True))


def _open(name: str, recipe: str | None, trust_code: bool) -> System:
    from duovox.bench.run import System
    from duovox.evaluation.systems import open_system

    runs = (Path(name) / "subnet" / "weights.safetensors").is_file()
    voice = open_system(name, recipe if runs else None, trust_code)
    if isinstance(voice, Path):
        raise ConfigError(f"{name} is a folder of clips; give a bundle, or a folder of runs")
    return System(Path(name).resolve().name, voice, None if runs else name, trust_code)
