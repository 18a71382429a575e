"""Where generated clips help: takes graded spotters, gives a verdict for each mixture beside its baseline. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from duovox.experiments.claims import better
from duovox.experiments.results import Spread
from duovox.experiments.spotting.mixtures import Mixture
from duovox.experiments.spotting.spotters import Heard

Verdict = Literal["helps", "hurts", "no difference"]

ALARMS = "false alarms"

RULE = (
    "A mixture helps (or hurts) where its mean over the seeds is better (or worse) than that of the same real clips alone (hard "
    "negatives: of the same clips without them) by more than the larger of the two ranges over the seeds; else there is no difference that "
    "these seeds show."
)

_WORDS: dict[str, Verdict] = {"holds": "helps", "does not hold": "hurts", "undecided": "no difference"}

Grades = Mapping[Mixture, Sequence[Heard]]
"""Of each mixture how its spotters hear, seed by seed."""


@dataclass(frozen=True)
class Comparison:
    """A mixture beside its baseline, in one measure."""

    mixture: Mixture
    measure: str
    before: Spread
    after: Spread

    @property
    def verdict(self) -> Verdict:
        return _WORDS[better(self.after, self.before, lower=self.measure == ALARMS)]


def spread_of(heard: Sequence[Heard], measure: str) -> Spread | None:
    """A measure over the seeds, None where it was not taken: a kind of test clips, of which the accuracy; or the false alarms."""
    values = [one.false_alarms if measure == ALARMS else one.accuracy.get(measure) for one in heard]
    known = tuple(value for value in values if value is not None)
    return Spread(known) if known else None


def measures(grades: Grades) -> list[str]:
    """Everything that was measured."""
    heard = next(iter(grades.values()))[0]
    return [*heard.accuracy, *[ALARMS] * (heard.false_alarms is not None)]


def compare(grades: Grades) -> list[Comparison]:
    """All mixtures that have a baseline, beside it, in every measure."""
    found = []
    for mixture, heard in grades.items():
        beside = mixture.baseline
        if beside is not None and beside in grades:
            for measure in measures(grades):
                before, after = spread_of(grades[beside], measure), spread_of(heard, measure)
                if before and after:
                    found.append(Comparison(mixture, measure, before, after))
    return found


def in_words(comparisons: Sequence[Comparison]) -> list[str]:
    """One line for each voice and measure: at which numbers of real clips it helps, and at which not."""
    lines = []
    for addition in dict.fromkeys(_addition(one.mixture) for one in comparisons):
        for measure in dict.fromkeys(one.measure for one in comparisons):
            chosen = [one for one in comparisons if (_addition(one.mixture), one.measure) == (addition, measure)]
            said = [_of_verdict(chosen, verdict) for verdict in ("helps", "hurts", "no difference")]
            lines.append(f"- {addition}, {_named(measure)}: " + "; ".join(text for text in said if text) + ".")
    return lines


def _addition(mixture: Mixture) -> str:
    """What is added to the baseline."""
    generated = str(Mixture(0, mixture.voice, mixture.generated, mixture.heard))
    return f"hard negatives beside {generated}" if mixture.between else generated


def _named(measure: str) -> str:
    return measure if measure == ALARMS else f"accuracy on {measure} clips" if measure == "clean" else f"accuracy at {measure}"


def _of_verdict(comparisons: Sequence[Comparison], verdict: Verdict) -> str:
    found = [
        f"{one.mixture.real or 'no'} real ({one.before.mean:.3f} to {one.after.mean:.3f})" for one in comparisons if one.verdict == verdict
    ]
    return f"{verdict} at {', '.join(found)}" if found else ""
