"""A training's state small enough to be committed: the averaged subnet and its classifier in fp16, one file below 12 MiB.

    python benchmarks/resume_point.py write RUNS FILE      from RUNS/classifier and RUNS/subnet (may be running)
    python benchmarks/resume_point.py restore FILE RUNS    makes run folders again, to go on with: `duovox train subnet --init
                                                           RUNS/subnet --start STEP`, STEP being what this printed

Restored, the subnet goes on from its average with fresh optimiser moments, at the step it had. The file is safetensors; its header
(`duovox`) has step, recipe, labels, mel scale and the digest of the data. The numbers of all tensors lie in it as one deflated array, low
bytes first and high bytes after, which is lossless and a sixth smaller; `names` and `shapes` are in the header.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from duovox.files import write_tensors
from duovox.training.checkpoint import FORMAT

LIMIT = 12 * 2**20
PARTS = ("classifier", "subnet")


def write(runs: Path, out: Path) -> None:
    """Both parts' `weights.safetensors` (the averages) and the subnet's parameter groups, into `out`."""
    header: dict[str, Any] = {"format": "duovox-resume-1"}
    values: list[np.ndarray] = []
    for part in PARTS:
        with safe_open(runs / part / "weights.safetensors", "pt") as file:
            facts = json.loads(file.metadata()["duovox"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header[part] = facts | {"names": list(tensors), "shapes": [list(value.shape) for value in tensors.values()]}
        values += [value.half().numpy().ravel() for value in tensors.values()]
    with safe_open(runs / "subnet" / "checkpoint.safetensors", "pt") as file:
        header["groups"] = json.loads(file.metadata()["duovox"])["groups"]
    halves = np.concatenate(values)
    if not np.isfinite(halves).all():
        sys.exit("a weight is too large for fp16")
    packed = lzma.compress(halves.view(np.uint8).reshape(-1, 2).T.tobytes(), format=lzma.FORMAT_XZ, preset=6)
    write_tensors(out, {"packed": torch.frombuffer(bytearray(packed), dtype=torch.uint8)}, {"duovox": json.dumps(header)})
    size = out.stat().st_size
    print(f"{out}: step {header['subnet']['step']} of the subnet, {len(halves)} numbers, {size / 2**20:.2f} MiB")
    if size >= LIMIT:
        sys.exit(f"{out} has {size} bytes, more than {LIMIT}")


def restore(file: Path, runs: Path) -> None:
    """`runs`/classifier/weights.safetensors and `runs`/subnet/{weights,checkpoint}.safetensors, as the loop would have written them."""
    with safe_open(file, "pt") as opened:
        header, packed = json.loads(opened.metadata()["duovox"]), opened.get_tensor("packed").numpy().tobytes()
    halves = np.frombuffer(np.frombuffer(lzma.decompress(packed), np.uint8).reshape(2, -1).T.tobytes(), np.float16)
    for part in PARTS:
        if (runs / part).exists():
            sys.exit(f"{runs / part} is there already; nothing changed")
    for part in PARTS:
        facts = header[part]
        tensors: dict[str, Tensor] = {}
        for name, shape in zip(facts.pop("names"), facts.pop("shapes"), strict=True):
            count = int(np.prod(shape, dtype=int))
            tensors[name] = torch.from_numpy(halves[:count].astype(np.float32)).reshape(shape)
            halves = halves[count:]
        write_tensors(runs / part / "weights.safetensors", tensors, {"duovox": json.dumps(facts)})
        run = {key: value for key, value in facts.items() if key not in ("step", "seconds")}
        (runs / part / "run.json").write_text(json.dumps(run, indent=2))
        (runs / part / "log.jsonl").write_text("")
    step = facts["step"]
    state = {f"module/subnet/{name}": value.clone() for name, value in tensors.items()}
    state |= {f"module/average/module.{name}": value for name, value in tensors.items()}
    state["module/average/n_averaged"] = torch.tensor(step)
    checkpoint = {"format": FORMAT, "step": step, "seconds": facts["seconds"], "groups": header["groups"], "facts": run}
    write_tensors(runs / "subnet" / "checkpoint.safetensors", state, {"duovox": json.dumps(checkpoint)})
    print(f"{runs}: classifier and subnet at step {step}; go on with `duovox train subnet --resume --out {runs} ...`")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("write", "restore"):
        sys.exit(__doc__)
    (write if sys.argv[1] == "write" else restore)(Path(sys.argv[2]), Path(sys.argv[3]))
