"""Quality against evaluations: which sampler, how many steps, and guided over which noise levels.

    python benchmarks/curve.py FEATURES OUT                      # every row with n = 300, seeds from 0
    python benchmarks/curve.py FEATURES OUT --rows dpmpp_2m:12 heun:14 --firsts 0 1000 2000

FEATURES is made by `duovox data prepare`. A row is named sampler:steps, or sampler:steps:low for guidance above the noise level `low`
alone, or sampler:steps:low:high; @last behind it is the noise level of the last evaluation (dpmpp_2m:12@0.05). Clips and figures of
each row are kept in OUT; what is there is not made again. Prints a table in Markdown, cheapest row first. docs/speed.md and the presets
go by it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from duovox import Duovox
from duovox.bench.quality import Listeners
from duovox.devices import choose_autocast
from duovox.evaluation.quality import Quality, load_quality, sampled
from duovox.evaluation.systems import Generation, make_clips, read_made
from duovox.files import write_whole

STEPS = {"heun": (3, 4, 5, 6, 7, 10, 14, 20), "dpmpp_2m": (4, 6, 8, 10, 12, 14, 20, 27, 40), "euler_maruyama": (10, 20, 40, 100)}
LOW = 0.3
"""Below this noise level guidance is left out in the rows with an interval: the classifier is sure of the word by then."""


def every_row() -> list[str]:
    names = [f"{sampler}:{steps}" for sampler, numbers in STEPS.items() for steps in numbers]
    return [name + interval for name in names for interval in ("", f":{LOW}") if not (interval and name.startswith("euler"))]


def settings_of(row: str) -> dict[str, Any]:
    """sampler:steps[:low[:high]][@last] -> fields of `SampleConfig`."""
    grid, _, last = row.partition("@")
    sampler, steps, *interval = grid.split(":")
    low, high = (float(interval[0]) if interval else 0.0), (float(interval[1]) if len(interval) > 1 else math.inf)
    return {"sampler": sampler, "steps": int(steps), "last_sigma": float(last or 0), "guidance_low": low, "guidance_high": high}


def evaluations(row: str) -> int:
    settings = settings_of(row)
    return 2 * settings["steps"] - 1 if settings["sampler"] == "heun" else settings["steps"]


def measure(voice: Duovox, listeners: Listeners, quality: Quality | None, row: str, out: Path, n: int, first: int) -> dict[str, Any]:
    """The figures of a row, made or read again."""
    place = out / f"{row.replace(':', '_')}_{n}_{first}"
    record = place.with_name(place.name + ".json")
    if not record.is_file():
        wanted = Generation(n, settings_of(row), batch=30, first=first)
        make_clips(voice, place, wanted)
        clips = read_made(voice, place, wanted)
        standing = listeners.hear(clips)
        heard = {} if quality is None else {"quality": float(quality.score(clips.waves).mean())}
        faults = len(list(place.rglob("*.json"))) - 1  # beside the folder's settings
        write_whole(
            record, json.dumps({"row": row, "evaluations": evaluations(row), "faults": faults, **heard, **asdict(standing)}).encode()
        )
    return dict(json.loads(record.read_text(encoding="utf-8")))


def table(found: Sequence[Sequence[dict[str, Any]]]) -> str:
    """A line a row; figures are means over the sets of clips, and their range where there are several."""

    def cell(sets: Sequence[dict[str, Any]], name: str, digits: int) -> str:
        values = [one[name] for one in sets if one.get(name) is not None]
        if not values:
            return "-"
        spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
        return f"{sum(values) / len(values):.{digits}f}{spread}"

    lines = ["| row | evaluations | FID | judge | recogniser | nearest own clip | quality | ran off |", "|---" * 8 + "|"]
    for sets in found:
        cells = [
            cell(sets, "fid", 2),
            cell(sets, "accuracy", 3),
            cell(sets, "understood", 3),
            cell(sets, "nearest_own", 2),
            cell(sets, "OVRL", 3),
        ]
        lines.append(f"| {sets[0]['row']} | {sets[0]['evaluations']} | {' | '.join(cells)} | {sum(one['faults'] for one in sets)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", default="sc06")
    parser.add_argument("--rows", nargs="*", default=every_row())
    parser.add_argument("--n", type=int, default=50, help="clips of each word")
    parser.add_argument("--firsts", type=int, nargs="*", default=[0], help="first seed of each set of clips")
    parser.add_argument("--quality", help="also dnsmos, as `duovox evaluate --quality`, of 150 clips a set")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args()
    voice = Duovox.from_pretrained(options.bundle)
    voice.bundle.model.autocast = choose_autocast(options.precision, torch.device("cpu"))
    listeners = Listeners(voice, options.features)
    quality = sampled(load_quality(options.quality), 150) if options.quality else None
    found = []
    for row in options.rows:
        found.append([measure(voice, listeners, quality, row, options.out, options.n, first) for first in options.firsts])
        print(table(found[-1:]).splitlines()[-1], flush=True)
    print(table(sorted(found, key=lambda sets: sets[0]["evaluations"])))


if __name__ == "__main__":
    main()
