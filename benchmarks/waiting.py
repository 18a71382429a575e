"""How long threads should look for work before they sleep: one word by two threads under settings of OpenMP, alone or beside other work.

    python benchmarks/waiting.py --bundle words --preset turbo --busy 0 --rounds 3

Every setting has its turn in each round, in a process of its own, as OpenMP reads its settings at the start. `--busy` starts so many
processes that do nothing but compute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "OpenMP's own": {},
    "asleep at once (OMP_WAIT_POLICY=passive)": {"OMP_WAIT_POLICY": "passive"},
    "the commands' (GOMP_SPINCOUNT=5000)": {"GOMP_SPINCOUNT": "5000"},
}

SPEAK = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
from duovox import Duovox
voice = Duovox.from_pretrained(sys.argv[1])
settings = voice.settings(preset=sys.argv[2])
for _ in range(4):
    start = time.perf_counter()
    voice.generate_batch([(voice.labels[0], 0)], settings)
    print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="words")
    parser.add_argument("--preset", default="turbo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with others(given.busy):
        for _ in range(given.rounds):
            for name, variables in SETTINGS.items():
                found[name].append(seconds_a_word(given.bundle, given.preset, given.threads, variables))
    for name, seconds in found.items():
        print(f"{name}: {1000 * statistics.median(seconds):.0f} ms ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})")


def seconds_a_word(bundle: str, preset: str, threads: int, variables: dict[str, str]) -> float:
    """The median of three words after the first, in a new process."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    words = [sys.executable, "-c", SPEAK, bundle, preset, str(threads)]
    said = subprocess.run(words, env=known | variables, capture_output=True, text=True, check=True).stdout.split()
    return statistics.median(map(float, said[1:]))


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
