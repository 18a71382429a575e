"""What a step of a training is given: its share of the learning rate, and its randomness."""

from __future__ import annotations

import math

import torch

from duovox.config import TrainConfig


def learning_rate_factor(step: int, train: TrainConfig, first: int = 0) -> float:
    """Share of the full rate at `step`: linear warm-up from step `first` on, constant, then a cosine fall to 0 over the cooldown."""
    rise = min(1.0, (step - first + 1) / max(1, train.warmup))
    cooling = train.cooldown * train.updates
    past = step - (train.updates - cooling)
    return rise if past <= 0 else rise * 0.5 * (1 + math.cos(math.pi * min(1.0, past / cooling)))


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of step `step`; also seeds the global ones, from which dropout draws."""
    mixed = (seed * 1_000_003 + step) % 2**63
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)
