"""How long an exported voice takes from a cold start, and how much memory: python benchmarks/lite.py FOLDER [--steps 8 --sampler dpmpp_2m]

Prints seconds on the clock and of the processor from the first import to the first word, of a second word, and the largest memory.
"""

from __future__ import annotations

import time

began, processor = time.perf_counter(), time.process_time()

import argparse  # noqa: E402 (the clock runs from here)
import resource  # noqa: E402
import sys  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--sampler")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    from duovox.lite import Voice

    voice = Voice(given.folder, given.threads)
    word, changes = voice.labels[0], {"sampler": given.sampler, "steps": given.steps}
    for name in ("first word", "second word"):
        start = (began, processor) if name == "first word" else (time.perf_counter(), time.process_time())
        voice.generate(word, seed=7, **changes)
        print(f"{name}: {time.perf_counter() - start[0]:.2f} s, {time.process_time() - start[1]:.2f} s of the processor")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB; torch loaded: {'torch' in sys.modules}")


if __name__ == "__main__":
    main()
