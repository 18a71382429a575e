"""guides_plan.py: the conditions of the experiment `guides`, the clips they share, the targets of any pitch guide."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from duovox.config import GuideStrength
from duovox.contracts import ConfigError
from duovox.experiments.guides_plan import PITCHES, PLAIN, Dose, Steered, curve, make_guides_plan, own_dose, pitch_target


def own(gamma: float, **changes: Any) -> GuideStrength:
    return GuideStrength(gamma, **changes)


def test_own_strengths_come_first_then_both_then_the_curves() -> None:
    plan = make_guides_plan(own(10.0), own(6.0), n=2)
    both = Steered(Dose(10.0), Dose(6.0))
    assert plan.conditions[:4] == (PLAIN, Steered(pitch=Dose(10.0)), Steered(speaker=Dose(6.0)), both)
    assert plan.conditions[4] == Steered(Dose(10.0), Dose(6.0), recorded_pitch=True)
    assert len(plan.conditions) == 5 + 2 * 11, "three gammas, two ways, with a cap and without, the own one once"
    assert len({condition.name for condition in plan.conditions}) == len(plan.conditions)
    assert [dose.gamma for dose in curve(own(6.0))[:3]] == [2.0, 6.0, 18.0]
    assert curve(own(6.0))[-1] == Dose(18.0, "straight", False)


def test_a_guide_that_is_asked_at_the_noised_mel_has_a_curve_for_that_too() -> None:
    plan = make_guides_plan(own(10.0), own(6.0, at="noised"), n=2)
    assert plan.conditions[2] == Steered(speaker=Dose(6.0, "noised")) and plan.conditions[3].speaker == Dose(6.0, "noised")
    kinds = [condition.speaker.kind for condition in plan.conditions if condition.speaker and not condition.pitch]
    assert sorted(set(kinds)) == sorted(way + cap for way in ("noised", "through", "straight") for cap in ("", ", no cap"))
    assert len(plan.conditions) == 5 + 11 + 17
    straight = own_dose(own(3.0, way="straight"))
    assert straight == Dose(3.0, "straight")


def test_a_plan_of_one_guide_asks_nothing_of_the_other() -> None:
    alone = make_guides_plan(own(10.0), None, n=2)
    assert not any(condition.speaker for condition in alone.conditions) and (alone.speakers, alone.sentences) == (0, 0)
    other = make_guides_plan(None, own(3.0), n=2)
    assert not any(condition.pitch for condition in other.conditions)
    assert [plan.targets(PLAIN) for plan in (alone, other, make_guides_plan(own(1.0), own(1.0), 2))] == [12, 20, 20]


def test_all_conditions_say_the_same_words_from_the_same_seeds() -> None:
    plan, labels = make_guides_plan(own(10.0), own(6.0), n=3), ("a", "b")
    assert plan.clips(PLAIN, 0, labels) == [("a", 0), ("b", 1), ("a", 2)]
    assert plan.clips(PLAIN, 1, labels) == [("b", 3), ("a", 4), ("b", 5)]
    assert [plan.targets(condition) for condition in plan.conditions[:4]] == [20, 12, 20, 20]
    assert (plan.pitch(0), plan.pitch(11), plan.pitch(12)) == (110, 280, 110)


def test_the_curves_have_some_of_the_same_clips_and_no_choice_of_noise() -> None:
    plan = make_guides_plan(own(10.0, candidates=8), own(6.0), n=3, curve_n=2)
    strong, without = Steered(pitch=Dose(30.0, chooses=False)), Steered(pitch=Dose(10.0, chooses=False))
    assert plan.clips(strong, 1, ("a", "b")) == [("b", 3), ("a", 4)] and len(plan.clips(without, 1, ("a", "b"))) == 3
    assert strong in plan.conditions[plan.main :] and without in plan.conditions[: plan.main]
    curves = [part for one in plan.conditions[plan.main :] for part in (one.pitch, one.speaker) if part]
    assert [dose.chooses for dose in curves] == [False] * 11 + [True] * 11, "the speaker guide chooses nowhere"
    for wrong in (0, 4):
        with pytest.raises(ConfigError, match=f"curve-n must lie between 1 and n, 3, not {wrong}"):
            make_guides_plan(own(10.0), None, n=3, curve_n=wrong)


def test_the_targets_are_twelve_from_110_to_280_hz() -> None:
    assert (len(PITCHES), PITCHES[0], PITCHES[-1]) == (12, 110, 280)
    steps = [math.log2(high / low) for low, high in pairwise(PITCHES)]
    assert max(steps) < 1.12 * min(steps)


def test_a_dose_is_what_a_guide_takes() -> None:
    assert Dose(3.0).changes == {"gamma": 3.0, "at": "estimate", "way": "through"}
    assert Dose(3.0, "straight", False).changes == {"gamma": 3.0, "at": "estimate", "way": "straight", "cap": math.inf}
    assert Dose(3.0, "noised").changes == {"gamma": 3.0, "at": "noised"}
    assert str(Steered(Dose(3.0, "straight", False))) == "pitch: gamma 3, straight, no cap"
    assert Steered(Dose(3.0), Dose(1.5)).name == "pitch_3_through_speaker_1.5_through" and PLAIN.name == "word_alone"


def test_a_pitch_is_wanted_of_the_labels_it_lies_between() -> None:
    labels = ("low", "100Hz", "400 hz", "200Hz")
    assert pitch_target(200, labels) == {"200Hz": 1.0}
    assert pitch_target(200 * 2**0.25, labels) == pytest.approx({"200Hz": 0.75, "400 hz": 0.25})
    assert (pitch_target(50, labels), pitch_target(999, labels)) == ({"100Hz": 1.0}, {"400 hz": 1.0})


def test_what_cannot_be_planned() -> None:
    with pytest.raises(ConfigError, match="needs a guide: --pitch, --speaker, or both"):
        make_guides_plan(None, None, 2)
    with pytest.raises(ConfigError, match="n must be at least 1"):
        make_guides_plan(own(1.0), None, 0)
    with pytest.raises(ConfigError, match=r"no label that is a frequency, as 196Hz; it knows low, high"):
        pitch_target(200, ("low", "high"))
    with pytest.raises(ConfigError, match="no condition 'x'; it has word_alone, pitch_1_through"):
        make_guides_plan(own(1.0), None, 1).condition("x")


def test_a_guide_that_chooses_its_noise_is_tried_without_that_too() -> None:
    plan = make_guides_plan(own(20), own(3, candidates=16), 1)
    (without,) = [one for one in plan.conditions[: plan.main] if "no choice" in str(one)]
    assert plan.conditions.index(without) == 5 and without.pitch is None
    assert str(without) == "speaker: gamma 3, through, no choice of noise" and without.name == "speaker_3_through_no_choice_of_noise"
    assert without.speaker is not None and without.speaker.changes == {"gamma": 3, "at": "estimate", "way": "through", "candidates": 1}
    assert not any("no choice" in str(one) for one in make_guides_plan(own(20), own(3), 1).conditions)
