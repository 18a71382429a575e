"""The plan of a data set: takes what is wanted of each target, gives clips to make, cut into shards of fixed ranges of ids.

A clip's id is its place in the plan. The plan begins with as many clips of each target as are wanted, seed by seed; where some were thrown
away it goes on with further seeds. What it goes on with follows from the clips before alone, so everyone who asks finds the same plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from duovox.contracts import ConfigError
from duovox.generation import cut

LARGEST, PARTS = 256, 32
"""Clips of a shard where nothing else was asked for: at most so many, fewer where the plan would have less than so many shards."""


@dataclass(frozen=True)
class Target:
    """What clips are to say, and how many of them are wanted: one label, or what lies between two. `positive` are the words asked for;
    all others are there to be told from them. Its seeds begin `first` behind those of the data set."""

    labels: tuple[str, ...]
    want: int
    positive: bool = True
    first: int = 0

    @property
    def name(self) -> str:
        """What stands as their label in the records: three, or three+five."""
        return "+".join(self.labels)

    @property
    def kind(self) -> str:
        return "between" if len(self.labels) > 1 else "word" if self.positive else "outside"

    @property
    def shares(self) -> dict[str, float]:
        """How probable each label is to be."""
        return {label: 1 / len(self.labels) for label in self.labels}


def all_targets(words: Sequence[str], known: Sequence[str], per_word: int, between: int = 0, outside: int = 0) -> tuple[Target, ...]:
    """The words asked for, then `between` clips of each word with the others of the bundle in turn, then `outside` of each other word.

    Raises `ConfigError` where there are no others.
    """
    others = [label for label in known if label not in words]
    if outside and not others:
        raise ConfigError("--outside: all words of the bundle are asked for, and none lies outside; name some with --words")
    if between and len(known) < 2:
        raise ConfigError("--between: the bundle knows one word, and nothing lies between one")
    pairs = Counter(tuple(sorted(pair, key=known.index)) for word in words for pair in _pairs(word, known, between))
    negatives = [*pairs.items(), *[((label,), outside) for label in others if outside]]
    firsts = accumulate((count for _, count in negatives), initial=0)  # few clips of many are not all of one seed: one voice, one split
    found = [Target((word,), per_word) for word in words]
    return (*found, *[Target(labels, count, False, first) for (labels, count), first in zip(negatives, firsts, strict=False)])


def _pairs(word: str, known: Sequence[str], count: int) -> list[tuple[str, str]]:
    """So many pairs of a word with the other labels in turn."""
    others = [label for label in known if label != word]
    return [(word, others[place % len(others)]) for place in range(count)]


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
        (place, first_seed + targets[place].first + tallies[place].tried + step)
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
