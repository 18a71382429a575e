"""Batches out of a feature folder: takes `Features`, gives tensors to training and evaluation. Keeps no state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duovox.contracts import DataError
from duovox.data.features import FULL_SCALE, Features


@dataclass(frozen=True, eq=False)
class Batch:
    """log_mel (B, 1, M, T) float32, unscaled · wave (B, S) float32 in [-1, 1) · label (B,) int64."""

    log_mel: Tensor
    wave: Tensor
    label: Tensor


class Batches:
    """Endless full batches of one split in random order: `at(step)` depends on (seed, step) alone, so a resumed run needs no state.

    Every epoch is a permutation drawn from (seed, epoch); batches run on from one epoch into the next.
    With `balance` above 0 a clip of a rarer label comes several times an epoch (see `balanced`).
    Raises `DataError` for a split without clips or a batch size below 1.
    """

    def __init__(self, features: Features, split: str, batch: int, seed: int, balance: float = 0.0) -> None:
        if batch < 1:
            raise DataError(f"the batch size must be at least 1, not {batch}")
        self._features, self._batch, self._seed = features, batch, seed
        self._indices = balanced(_filled(features, split), features.label, balance)

    def at(self, step: int) -> Batch:
        """The batch of one step (from 0)."""
        return gather(self._features, self.indices_at(step))

    def indices_at(self, step: int) -> NDArray[np.int64]:
        """The clips (B,) of one step, as indices into the features."""
        count = len(self._indices)
        epochs, positions = np.divmod(np.arange(step * self._batch, (step + 1) * self._batch), count)
        picked = [_permutation(count, self._seed, int(epoch))[position] for epoch, position in zip(epochs, positions, strict=True)]
        return self._indices[picked]


def balanced(indices: NDArray[np.int64], labels: NDArray[np.int64], balance: float) -> NDArray[np.int64]:
    """Each clip of `indices` (N,) repeated round((n / m)^balance) times, where m clips have its label and n that of the commonest: 0
    leaves all as they are, 1 makes all labels about as common. `labels` holds the label of every clip."""
    if balance == 0:
        return indices
    own = labels[indices] - labels[indices].min()  # no label counts as one
    counts = np.bincount(own)
    repeats = np.maximum(1, np.rint((counts.max() / counts[own]) ** balance)).astype(np.int64)
    return np.repeat(indices, repeats)


def in_order(features: Features, split: str, batch: int, limit: int | None = None) -> Iterator[Batch]:
    """One pass over a split, in the order of the features; the last batch may be short. With a `limit`, over at most so many clips,
    evenly taken. Raises `DataError` as `Batches` does."""
    indices = _filled(features, split)
    if limit is not None:
        indices = indices[:: -(-len(indices) // limit)]
    for start in range(0, len(indices), batch):
        yield gather(features, indices[start : start + batch])


def gather(features: Features, indices: NDArray[np.int64]) -> Batch:
    """The clips of these indices as one batch."""
    log_mel = torch.from_numpy(features.log_mels[indices].astype(np.float32)).unsqueeze(1)
    wave = torch.from_numpy(features.waves[indices].astype(np.float32) / FULL_SCALE)
    return Batch(log_mel, wave, torch.from_numpy(features.label[indices]))


def _filled(features: Features, split: str) -> NDArray[np.int64]:
    indices = features.indices(split)
    if not len(indices):
        raise DataError(f"the {split} split has no clips; add clips of more speakers, or split lists, and prepare again")
    return indices


@lru_cache(maxsize=8)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)
