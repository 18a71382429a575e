"""A benchmark as people read it: takes a `Bench`, gives lines for a terminal and a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from duovox.bench.rows import Bench, ColdStart, Row

_SPEED = ["row", "ms a clip", "times real time", "times faster", "GMACs a clip", "evaluations"]
_QUALITY = ["judge (95 %)", "recogniser (95 %)", "FID ±", "nearest own clip"]


def table(bench: Bench) -> str:
    """Every row in columns of equal width, then cold starts, what is missing and why, and the machine."""
    lines = [[*_SPEED, *_QUALITY], *([*_speed(row, bench), *_quality(row)] for row in bench.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*rows, "", *(_cold_line(one) for one in bench.cold), *_remarks(bench)]) + "\n"


def markdown(bench: Bench) -> str:
    """The page: whole generations with their quality, then parts, cold starts, and where the figures come from."""
    whole = [row for row in bench.rows if row.kind == "generate"]
    parts = [row for row in bench.rows if row.kind != "generate"]
    lines = ["# How fast, and how good at that speed", "", *_grid([*_SPEED, *_QUALITY], [[*_speed(r, bench), *_quality(r)] for r in whole])]
    lines += ["", "Parts:", "", *_grid(_SPEED, [_speed(row, bench) for row in parts])]
    if bench.cold:
        lines += ["", "A fresh process:", "", *_grid(["", "seconds", "peak memory, MiB"], _cold_rows(bench.cold))]
    return "\n".join([*lines, "", *(f"{remark}  " for remark in _remarks(bench))]) + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _speed(row: Row, bench: Bench) -> list[str]:
    heard = row.kind in ("generate", "vocoder", "classify")
    return [
        row.name + (" (baseline)" if row.name == bench.baseline else ""),
        f"{1000 * row.seconds:.1f}",
        f"{bench.seconds_of_speech / row.seconds:.1f}" if heard else "-",
        "-" if row.times_faster is None else f"{row.times_faster:.2f}",
        f"{row.gmacs:.3g}",
        "-" if row.evaluations is None else str(row.evaluations),
    ]


def _quality(row: Row) -> list[str]:
    found = row.standing
    if found is None:
        return ["-"] * len(_QUALITY)
    fid = "-" if found["fid"] is None else f"{found['fid']:.2f} ± {found['fid_deviation'] or 0:.2f}"
    shares = [_share(found[name], found[f"{name}_interval"]) for name in ("accuracy", "understood")]
    return [*shares, fid, "-" if found["nearest_own"] is None else f"{found['nearest_own']:.2f}"]


def _share(value: float | None, interval: Sequence[float] | None) -> str:
    return "-" if value is None or interval is None else f"{value:.3f} ({interval[0]:.3f} - {interval[1]:.3f})"


def _cold_rows(cold: Sequence[ColdStart]) -> list[list[str]]:
    rows = []
    for one in cold:
        rows.append([f"{one.system}: import duovox and torch", f"{one.import_seconds:.2f}", f"{one.import_mib:.0f}"])
        rows.append([f"{one.system}: open the bundle", f"{one.load_seconds:.2f}", f"{one.load_mib:.0f}"])
        rows.append([f"{one.system}: the first clip", f"{one.first_clip_seconds:.2f}", f"{one.first_clip_mib:.0f}"])
        rows.append([f"{one.system}: a batch of {one.batch}", "-", f"{one.batch_mib:.0f}"])
    return rows


def _cold_line(one: ColdStart) -> str:
    return (
        f"{one.system}, a fresh process: import {one.import_seconds:.2f} s, open {one.load_seconds:.2f} s, first clip "
        f"{one.first_clip_seconds:.2f} s; peak memory {one.load_mib:.0f} MiB opened, {one.first_clip_mib:.0f} after a clip, "
        f"{one.batch_mib:.0f} after a batch of {one.batch}"
    )


def _remarks(bench: Bench) -> list[str]:
    """What a reader needs beside the figures, in sentences."""
    machine = ", ".join(f"{name} {value}" for name, value in bench.machine.items() if value != "")
    found = [f"Medians of {bench.repeats} interleaved rounds; times faster than {bench.baseline!r}, within each round."]
    standings = [row.standing for row in bench.rows if row.standing is not None]
    if standings:
        found.append(f"Quality: {standings[0]['n']} clips a row; judge and recogniser never guide.")
    reasons = dict.fromkeys(f"No {name}: {why}." for standing in standings for name, why in standing["missing"].items())
    found += [*reasons, *(f"Note: {note}." for note in bench.notes), f"Machine: {machine}."]
    found.append("Versions: " + ", ".join(f"{name} {version}" for name, version in bench.versions.items()) + ".")
    found += [f"System {name}: digest {digest[:16]}." for name, digest in bench.systems.items()]
    return found + [f"Command: `{bench.command}`"] * bool(bench.command)
