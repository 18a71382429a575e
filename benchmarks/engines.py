"""The same data set by one process, by processes, torchrun and Ray, a worker killed with -9 in the middle of each: bytes, memory, rate.

    python benchmarks/engines.py OUT --clips 20000 --tiny              # a voice of random weights, so that 20,000 clips are minutes
    python benchmarks/engines.py OUT --clips 560 --steps 12    # options that are not its own go to `duovox dataset`

Each engine fills a folder of its own in OUT with `--workers` workers; the one process is not killed. Where a worker's death ends the run
(torchrun), the same command is called again. Prints a table in Markdown: whether the bytes are those of the one process, whether every
id is there once, clips a second of wall time and of CPU time, the largest worker's memory at a quarter of the clips and at the end. Linux
only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENGINES = ("one process", "local", "torchrun", "ray")
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
WORDS, TINY_WORDS = ("one", "two"), ("low", "high")
PAUSE = 0.5
"""Seconds between two looks at the processes."""


@dataclass
class Watched:
    """A run as it was seen: wall seconds, CPU seconds of each process, clips and the largest worker's MiB at each look, who was killed."""

    wall: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    killed: str = "-"
    calls: int = 0

    def memory_at(self, share: float) -> float:
        """MiB of the largest worker at the first look when so large a share of the shards was there."""
        return next((mib for done, mib in self.memory if done >= share), self.memory[-1][1])


@dataclass(frozen=True)
class Process:
    """One process as the kernel tells of it."""

    number: int
    parent: int
    command: str
    cpu: float
    mib: float


def processes() -> Iterator[Process]:
    """All there are."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                pages = int((folder / "statm").read_text().split()[1])
            except OSError:  # it has ended meanwhile
                continue
            yield Process(int(folder.name), int(fields[1]), command, (int(fields[11]) + int(fields[12])) / TICK, pages * PAGE / 2**20)


def below(root: int) -> list[Process]:
    """A process and all that descend from it."""
    known = {process.number: process for process in processes()}
    found = [known[root]] if root in known else []
    for process in found:  # grows while it is walked
        found += [other for other in known.values() if other.parent == process.number]
    return found


def workers(engine: str, root: int) -> list[Process]:
    """Those that make clips."""
    marks = {"ray": "ShardActor", "torchrun": "duovox dataset"}
    mark = marks.get(engine, "multiprocessing.spawn")
    return [
        process
        for process in below(root)
        if mark in process.command and process.number != root and "resource_tracker" not in process.command
    ]


def command(engine: str, count: int, out: Path, options: Sequence[str]) -> list[str]:
    made = ["-m", "duovox", "dataset", "--out", str(out), *options]
    if engine == "torchrun":
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--max-restarts", "0"]
        return [sys.executable, *start, *made, "--engine", "torchrun"]
    name, size = ("local", 1) if engine == "one process" else (engine, count)
    return [sys.executable, *made, "--engine", name, "--workers", str(size)]


def carry_out(engine: str, count: int, out: Path, options: Sequence[str], shards: int) -> Watched:
    """Fill a folder, kill one worker when half of the shards are there, call again what ended."""
    seen, began = Watched(), time.monotonic()
    with out.with_suffix(".log").open("w") as log:
        while seen.calls < 3:
            seen.calls += 1
            running = subprocess.Popen(command(engine, count, out, options), stdout=log, stderr=log)
            while running.poll() is None:
                look(engine, running.pid, out, shards, seen)
                time.sleep(PAUSE)
            if running.returncode == 0:
                break
    seen.wall = time.monotonic() - began
    return seen


def look(engine: str, root: int, out: Path, shards: int, seen: Watched) -> None:
    done = len(list((out / "_records").glob("*.jsonl"))) / shards
    team = workers(engine, root)
    seen.cpu |= {process.number: process.cpu for process in below(root)}
    if team and done:
        seen.memory.append((done, max(process.mib for process in team)))
    if team and done >= 0.5 and seen.killed == "-" and engine != "one process":
        victim = team[-1].number
        os.kill(victim, signal.SIGKILL)
        seen.killed = f"at {done:.0%}"


def digest_of(folder: Path) -> str:
    """SHA-256 over names and contents of all files."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def is_whole(folder: Path, clips: int) -> bool:
    """Whether every id from 0 on is on record once, and every kept clip's file is there and no other."""
    rows = [json.loads(line) for path in sorted((folder / "_records").glob("*.jsonl")) for line in path.read_text().splitlines()]
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.wav")}
    kept = [row["file"] for row in rows if row["kept"]]
    return [row["id"] for row in rows] == list(range(len(rows))) and len(kept) == clips and set(kept) == files


def tiny_bundle(folder: Path) -> Path:
    """A voice of random weights, mels of 16 x 16, two labels that no judge knows: what engines cost, not networks."""
    import torch

    from duovox.bundle import FORMAT, Bundle, BundleConfig, write_bundle
    from duovox.config import EncoderConfig, MelConfig, MelScale, Recipe, SampleConfig, SubnetConfig, VocoderConfig
    from duovox.model import build_classifier, build_model
    from duovox.sound.vocoder.istft_net import ISTFTNet

    mel = MelConfig(n_mels=16, frames=16, clip_samples=3840)
    encoder = EncoderConfig(patch=4, widths=(8,), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)
    subnet = SubnetConfig(widths=(8,), blocks=1, embedding=16, group_size=4, fusion="concat", gradient_taps="label")
    small = VocoderConfig(width=16, hidden=32, blocks=1, pitch_width=8)
    recipe = Recipe("tiny", mel=mel, classifier=encoder, subnet=subnet, vocoder=small, sample=SampleConfig(steps=1))
    torch.manual_seed(0)
    vocoder = ISTFTNet(small, mel).eval().requires_grad_(False)
    model = build_model(recipe, build_classifier(recipe, 2)).eval().requires_grad_(False)
    model.classifier.freeze()
    config = BundleConfig(FORMAT, TINY_WORDS, recipe, MelScale("standard", -5.0, 0.25))
    write_bundle(Bundle(config, model, vocoder), folder, force=True)
    return folder


def row(engine: str, count: int, seen: Watched, clips: int, same: bool, whole: bool) -> str:
    cpu = sum(seen.cpu.values())
    rates = f"{clips / seen.wall:.1f} | {clips / cpu:.1f}"
    memory = f"{seen.memory_at(0.25):.0f} | {seen.memory_at(0.999):.0f}"
    marks = " | ".join("yes" if mark else "NO" for mark in (same, whole))
    size = 1 if engine == "one process" else count
    return f"| {engine} | {size} | {seen.killed} | {seen.calls} | {marks} | {rates} | {memory} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--tiny", action="store_true", help="a voice of random weights")
    given, options = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.tiny:
        options += ["--bundle", str(tiny_bundle(given.out / "voice"))]
    options += [
        "--words",
        *(TINY_WORDS if given.tiny else WORDS),
        "--per-word",
        str(given.clips // 2),
        "--keep-faulty",
        "--manifest",
        "jsonl",
    ]
    clips, digests, passed = given.clips // 2 * 2, set(), True
    print("| engine | workers | killed | calls | same bytes | all there once | clips/s | clips/CPU s | MiB, a quarter | MiB, end |")
    print("|---" * 10 + "|")
    for engine in given.engines:
        out = given.out / engine.replace(" ", "_")
        seen = carry_out(engine, given.workers, out, options, shards_of(out, options))
        digests.add(digest_of(out))
        whole = is_whole(out, clips)
        passed = passed and whole and len(digests) == 1
        print(row(engine, given.workers, seen, clips, len(digests) == 1, whole), flush=True)
    sys.exit(not passed)


def shards_of(out: Path, options: Sequence[str]) -> int:
    """How many shards it will be, as a dry run says."""
    words = [sys.executable, "-m", "duovox", "dataset", "--out", str(out), *options, "--dry-run"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(said.rpartition(" shards of ")[0].rpartition(" ")[2])


if __name__ == "__main__":
    main()
