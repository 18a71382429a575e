"""dataset/plan.py: what is planned first, what further, and where it is cut."""

from __future__ import annotations

import pytest

from duovox.contracts import ConfigError
from duovox.dataset.plan import Item, Tally, Target, all_targets, cut_shards, further, shard_size

THREE = (Target(("a",), 2), Target(("b",), 2), Target(("c",), 1))


def test_a_plan_begins_seed_by_seed_with_what_is_wanted() -> None:
    assert further(THREE, [Tally()] * 3, 5, 4) == [(0, 5), (1, 5), (2, 5), (0, 6), (1, 6)]


def test_it_goes_on_behind_the_seeds_that_were_tried_with_what_is_missing() -> None:
    assert further(THREE, [Tally(2, 2), Tally(2, 1), Tally(1, 0)], 5, 4) == [(1, 7), (2, 6)]
    assert further(THREE, [Tally(2, 2), Tally(3, 2), Tally(2, 1)], 5, 4) == []


def test_it_ends_at_the_limit() -> None:
    assert further(THREE[:1], [Tally(7, 0)], 0, 4) == [(0, 7)], "one of eight tries is left for the two that are missing"
    assert further(THREE[:1], [Tally(8, 0)], 0, 4) == []


def test_ids_and_numbers_of_shards_go_on_over_rounds() -> None:
    first = cut_shards([(0, 5), (1, 5), (0, 6)], 2)
    assert first == [(0, [Item(0, 0, 5), Item(1, 1, 5)]), (1, [Item(2, 0, 6)])]
    assert cut_shards([(0, 7)], 2, 3, 2) == [(2, [Item(3, 0, 7)])]
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        cut_shards([(0, 7)], 0)


@pytest.mark.parametrize(
    ("clips", "batch", "size"), [(1, 8, 8), (300, 8, 16), (8192, 8, 256), (20_000, 8, 256), (100, 300, 300), (20_000, 7, 252)]
)
def test_shards_are_whole_batches_enough_for_many_workers_and_never_large(clips: int, batch: int, size: int) -> None:
    assert shard_size(clips, batch) == size


def test_negatives_are_what_lies_between_each_word_and_the_others_and_the_words_outside() -> None:
    found = all_targets(["b", "a"], ["a", "b", "c"], 5, between=3, outside=2)
    assert [(target.name, target.kind, target.want) for target in found] == [
        ("b", "word", 5),
        ("a", "word", 5),
        ("a+b", "between", 4),
        ("b+c", "between", 1),
        ("a+c", "between", 1),
        ("c", "outside", 2),
    ], "b with a, c, a; a with b, c, b"
    assert [target.first for target in found] == [0, 0, 0, 4, 5, 6]
    planned = further(found, [Tally()] * 6, 10, 4)
    assert [seed for place, seed in planned if found[place].kind == "between"] == [10, 14, 15, 11, 12, 13], "each of a seed of its own"
    assert found[2].shares == {"a": 0.5, "b": 0.5} and found[5].shares == {"c": 1.0}
    with pytest.raises(ConfigError, match="all words of the bundle are asked for, and none lies outside"):
        all_targets(["a", "b"], ["a", "b"], 5, outside=1)
    with pytest.raises(ConfigError, match="nothing lies between one"):
        all_targets(["a"], ["a"], 5, between=1)
