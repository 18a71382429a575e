"""verdicts.py: where generated clips help, by the rule, with known answers."""

from __future__ import annotations

from duovox.experiments.spotting.mixtures import Mixture
from duovox.experiments.spotting.spotters import Heard
from duovox.experiments.spotting.verdicts import ALARMS, compare, in_words, measures


def heard(*accuracies: float, alarms: float | None = 0.5) -> list[Heard]:
    return [Heard({"clean": one, "0 dB": one / 2}, alarms, None if alarms is None else 0.9) for one in accuracies]


ALL = Mixture(0, "all", 100)
GRADES = {
    Mixture(10): heard(0.50, 0.52),
    Mixture(100): heard(0.80, 0.84),
    Mixture(480): heard(0.90, 0.91, alarms=0.2),
    ALL: heard(0.7, 0.7),
    Mixture(10, "all", 100): heard(0.70, 0.71),
    Mixture(100, "all", 100): heard(0.83, 0.84),
    Mixture(480, "all", 100): heard(0.85, 0.86, alarms=0.4),
}


def test_a_verdict_needs_more_than_the_range_of_the_seeds() -> None:
    found = {(one.mixture.real, one.measure): one.verdict for one in compare(GRADES)}
    assert found == {
        (10, "clean"): "helps",
        (10, "0 dB"): "helps",
        (10, ALARMS): "no difference",
        (100, "clean"): "no difference",
        (100, "0 dB"): "no difference",
        (100, ALARMS): "no difference",
        (480, "clean"): "hurts",
        (480, "0 dB"): "hurts",
        (480, ALARMS): "hurts",
    }


def test_fewer_false_alarms_help() -> None:
    grades = {Mixture(10): heard(0.5, 0.5, alarms=0.6), Mixture(10, "all", 100): heard(0.5, 0.5, alarms=0.3)}
    assert [one.verdict for one in compare(grades) if one.measure == ALARMS] == ["helps"]


def test_hard_negatives_are_held_against_the_same_without_them() -> None:
    grades = {ALL: heard(0.7, 0.7, alarms=0.8), Mixture(0, "all", 100, between=True): heard(0.7, 0.7, alarms=0.3)}
    assert in_words(compare(grades))[-1] == (
        "- hard negatives beside 100 generated, voice trained on all data, false alarms: helps at no real (0.800 to 0.300)."
    )


def test_one_seed_says_nothing() -> None:
    grades = {Mixture(10): heard(0.1), Mixture(10, "all", 100): heard(0.9)}
    assert {one.verdict for one in compare(grades)} == {"no difference"}


def test_what_has_nothing_to_be_held_against_is_left_out() -> None:
    assert compare({ALL: heard(0.5, 0.5), Mixture(10, "all", 100): heard(0.5, 0.5)}) == []
    assert measures({ALL: heard(0.5, alarms=None)}) == ["clean", "0 dB"]


def test_the_lines_say_it_plainly() -> None:
    lines = in_words(compare(GRADES))
    assert lines[0] == (
        "- 100 generated, voice trained on all data, accuracy on clean clips: helps at 10 real (0.510 to 0.705); hurts at 480 real "
        "(0.905 to 0.855); no difference at 100 real (0.820 to 0.835)."
    )
    assert len(lines) == 3 and lines[2].startswith("- 100 generated, voice trained on all data, false alarms: hurts at 480 real")
