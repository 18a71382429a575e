"""Run by torchrun in tests of several processes: trains parts of a recipe, as `duovox train` would, one after the other.

python -m torch.distributed.run --nproc-per-node 2 shared.py RECIPE FEATURES RUNS PARTS
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from duovox.config import read_recipe
from duovox.training.shares import Shares, share_batch_norms, shared_job
from duovox.training.start import start_training

torch.set_num_threads(1)


def batch_norm_apart() -> float:
    """How far outputs and gradients of a shared batch normalisation are from those of one on the whole batch."""
    shares = Shares(dist.get_rank(), dist.get_world_size())
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    shared, x, target = copy.deepcopy(whole), torch.randn(5, 1, 8, 8), torch.randn(5, 4, 4, 4)
    share_batch_norms(shared.modules())
    (rows,) = shares.slices(5)
    wanted, found = whole(x), shared(x[rows])
    (wanted - target).square().mean().backward()
    ((found - target[rows]).square().mean() * len(x[rows]) / 5).backward()
    shares.add_gradients(shared)
    gradients = [(a.grad - b.grad).abs().max() for a, b in zip(shared.parameters(), whole.parameters(), strict=True)]  # type: ignore[operator]
    return float(torch.stack([(found - wanted[rows]).abs().max(), *gradients]).max())


def main() -> None:
    recipe, features, runs, parts = read_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4].split(",")
    fit = "FIT_IN" in os.environ
    budget = float(os.environ.get("FIT_IN") or os.environ.get("STOP_AFTER", "inf"))
    with shared_job(torch.device("cpu")) as shares:
        apart = batch_norm_apart()
        if shares.leads:
            print("batch norm apart", apart)
        for part in parts:
            start_training(part, recipe, features, runs, device="cpu", precision="fp32", time_budget=budget, fit=fit)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
