"""guides_claims.py: figures of known clips, and the claims that follow from them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from duovox.experiments import guides_claims as claims
from duovox.experiments.guides_claims import Mean, Share, no_worse, reaches, summarise
from duovox.experiments.guides_run import SpokenSentence, SteeredClip


def clip(
    semitones: float | None = 0.0, rank: int | None = 1, right: bool = True, target: int = 0, hertz: float | None = 200.0
) -> SteeredClip:
    return SteeredClip(target, "one", 0, right, hertz, semitones, rank)


def test_a_clip_without_a_pitch_is_not_within_a_semitone() -> None:
    found = summarise([clip(0.5), clip(-1.0), clip(3.0), clip(None, rank=4, right=False)])
    assert (found.within.hits, found.within.n, found.off) == (2, 4, 1.0)
    assert (found.words.value, found.rank.value) == (0.75, 1.75)
    assert math.isnan(summarise([clip()], pitch=False).off) and summarise([clip()], speaker=False).rank.values == ()


def test_the_natural_range_is_that_of_clips_that_nothing_steers() -> None:
    assert claims.natural_range([clip(hertz=100.0 + number) for number in range(101)]) == pytest.approx((105.0, 195.0))
    assert claims.natural_range([clip(hertz=None)]) is None


def test_intervals() -> None:
    low, high = Share(8, 10).interval
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)  # Wilson's, by hand
    mean = Mean((1.0, 2.0, 3.0))
    assert mean.interval == pytest.approx((2 - 1.96 / math.sqrt(3), 2 + 1.96 / math.sqrt(3)))
    assert (str(Share(0, 0)), str(Mean(()))) == ("-", "-")


@pytest.mark.parametrize(
    ("figure", "bar", "lower", "verdict"),
    [
        (Share(100, 100), 0.9, False, "holds"),
        (Share(9, 10), 0.7, False, "undecided"),
        (Share(1, 100), 0.7, False, "does not hold"),
        (Mean((2.0, 2.1, 2.2)), 8.0, True, "holds"),
        (Mean((9.0, 9.1, 9.2)), 8.0, True, "does not hold"),
        (Mean((1.0, 20.0)), 8.0, True, "undecided"),
    ],
)
def test_a_bar_is_reached_by_the_whole_interval(figure: Share | Mean, bar: float, lower: bool, verdict: str) -> None:
    assert reaches("it", figure, bar, lower).verdict == verdict


def test_two_at_once_may_be_better_and_worse_by_the_interval() -> None:
    alone = Share(50, 100)
    assert no_worse("it", Share(95, 100), alone).verdict == "holds"
    assert no_worse("it", Share(45, 100), alone).verdict == "holds"
    assert no_worse("it", Share(20, 100), alone).verdict == "does not hold"
    assert no_worse("it", Mean((30.0, 31.0)), Mean((10.0, 12.0)), lower=True).verdict == "does not hold"
    assert no_worse("it", Mean((3.0, 4.0)), Mean((10.0, 12.0)), lower=True).verdict == "holds"


def test_only_targets_inside_the_natural_range_count_for_the_bar() -> None:
    plain = [clip(hertz=150.0 + number) for number in range(101)]
    inside, outside = [clip(0.1, target=0) for _ in range(200)], [clip(9.0, target=1, right=False) for _ in range(200)]
    assert claims.pitch_claim(inside + outside, plain, (200, 400)).verdict == "holds"
    assert claims.pitch_claim(inside + outside, plain, (400, 200)).verdict == "does not hold"
    assert claims.pitch_claim(inside, plain, (400,)).verdict == "undecided"
    assert claims.pitch_claim(None, plain, (200,)).verdict == claims.pitch_claim(inside, None, (200,)).verdict == "undecided"


def test_the_speaker_and_both() -> None:
    good = [clip(0.1, rank=2 + number % 2) for number in range(100)]
    bad = [clip(5.0, rank=20 + number % 2) for number in range(100)]
    assert claims.speaker_claim(good, 40).verdict == "holds" and claims.speaker_claim(bad, 40).verdict == "does not hold"
    assert claims.both_claim(good, good, good).verdict == "holds" and claims.both_claim(bad, good, good).verdict == "does not hold"
    assert claims.both_claim(None, good, good).verdict == claims.speaker_claim(None, 40).verdict == "undecided"


def test_sentences_are_by_one_speaker_where_the_least_alike_words_are_alike_enough() -> None:
    def sentences(plain: int, guided: int, n: int = 50) -> list[SpokenSentence]:
        return [SpokenSentence(0, *[0.6 if number < hits else 0.1 for hits in (plain, guided)], 5, 5) for number in range(n)]

    plain, guided = claims.one_speaker(sentences(3, 20), 0.5)
    assert (plain.hits, guided.hits, guided.n) == (3, 20, 50)
    verdicts: list[Any] = [claims.say_claim(sentences(*pair), 0.5).verdict for pair in ((2, 45), (25, 26), (5, 12))]
    assert verdicts == ["holds", "does not hold", "undecided"]
    assert claims.say_claim([], 0.5).verdict == "undecided"
