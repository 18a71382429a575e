"""A cold start: takes the name of a bundle, opens it in a process of its own, and gives what that took in seconds and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from duovox.bench.rows import ColdStart
from duovox.contracts import BundleError

SCRIPT = """
import json, pathlib, resource, sys, time
bundle, label, batch, threads, trust = json.loads(sys.argv[1])
found, start = {}, time.perf_counter()

def peak():
    status = pathlib.Path("/proc/self/status")  # getrusage would count what the starting process held
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2

def note(name):
    global start
    found[name + "_seconds"], found[name + "_mib"] = time.perf_counter() - start, peak()
    start = time.perf_counter()

from duovox import Duovox
import torch
Duovox.from_pretrained
note("import")
torch.set_num_threads(threads)
voice = Duovox.from_pretrained(bundle, trust_code=trust)
note("load")
voice.generate(label, keep_faulty=True)
note("first_clip")
voice.generate(label, n=batch, batch=batch, steps=2, keep_faulty=True)
note("batch")
del found["batch_seconds"]
print(json.dumps(found))
"""


def cold_start(system: str, bundle: str, label: str, batch: int, threads: int, trust_code: bool = False) -> ColdStart:
    """Start Python anew, import duovox, open the bundle, make a clip with its own settings, then a batch. Raises `BundleError`."""
    words = json.dumps([bundle, label, batch, threads, trust_code])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, words], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise BundleError(f"{bundle} could not be opened in a process of its own: {last}")
    return ColdStart(system=system, batch=batch, **json.loads(done.stdout.splitlines()[-1]))
