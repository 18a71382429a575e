"""The plan of a data set: takes what is wanted of each target, gives clips to make, cut into shards of fixed ranges of ids.

A clip's id is its place in the plan. The plan begins with as many clips of each target as are wanted, seed by seed; where some were thrown
away it goes on with further seeds. What it goes on with follows from the clips before alone, so everyone who asks finds the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from duovox.generation import cut

LARGEST, PARTS = 256, 32
"""Clips of a shard where nothing else was asked for: at most so many, fewer where the plan would have less than so many shards."""


@dataclass(frozen=True)
class Target:
    """What clips are to say, and how many of them are wanted."""

    label: str
    want: int


class Item(NamedTuple):
    """One clip to make: its place in the plan, the place of its target among the targets, its seed."""

    id: int
    target: int
    seed: int


class Shard(NamedTuple):
    """Clips that are made by one worker, and are there all or not at all."""

    number: int
    items: Sequence[Item]


@dataclass(frozen=True)
class Tally:
    """How many clips of a target were made so far, and how many of them kept."""

    tried: int = 0
    kept: int = 0

    def lacks(self, target: Target, tries: int) -> int:
        """How many more are to be made: as many as are missing, but no more than `tries` for each that is wanted."""
        return max(0, min(target.want - self.kept, target.want * tries - self.tried))


def further(targets: Sequence[Target], tallies: Sequence[Tally], first_seed: int, tries: int) -> list[tuple[int, int]]:
    """(place of the target, seed) of the clips that are to be made next, seed by seed; none where nothing is missing or the limit is
    reached."""
    lacks = [tally.lacks(target, tries) for target, tally in zip(targets, tallies, strict=True)]
    return [
        (place, first_seed + tallies[place].tried + step)
        for step in range(max(lacks, default=0))
        for place, lack in enumerate(lacks)
        if step < lack
    ]


def shard_size(clips: int, batch: int) -> int:
    """How large shards are where nobody says it: whole batches, decided by the plan and not by who carries it out."""
    batches = -(-clips // (PARTS * batch))
    return batch * max(1, min(batches, LARGEST // batch))


def cut_shards(wanted: Sequence[tuple[int, int]], size: int, first_id: int = 0, first_shard: int = 0) -> list[Shard]:
    """Clips (target, seed) numbered from `first_id` on, in shards numbered from `first_shard` on."""
    items = [Item(first_id + place, *pair) for place, pair in enumerate(wanted)]
    return [Shard(first_shard + number, part) for number, part in enumerate(cut(items, size))]
