"""Run by torchrun in tests of several processes: trains parts of a recipe, as `duovox train` would, one after the other.

python -m torch.distributed.run --nproc-per-node 2 shared.py RECIPE FEATURES RUNS PARTS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from duovox.config import read_recipe
from duovox.training.shares import shared_job
from duovox.training.start import start_training

torch.set_num_threads(1)


def main() -> None:
    recipe, features, runs, parts = read_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4].split(",")
    budget = float(os.environ.get("STOP_AFTER", "inf"))
    with shared_job(torch.device("cpu")):
        for part in parts:
            start_training(part, recipe, features, runs, device="cpu", precision="fp32", time_budget=budget)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
