"""What the experiment `guides` consists of: takes the strengths that guides have of their own, gives the conditions to sample. Pure.

Every condition says the same words from the same seeds, so that conditions are compared clip by clip; target k of a condition has the clips
k * n, k * n + 1, ..., clip i the word i (in rotation) and the seed i.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from duovox.config import GuideStrength
from duovox.contracts import ConfigError

PITCHES = tuple(round(110 * (280 / 110) ** (number / 11)) for number in range(12))
"""The pitches wanted, Hz: twelve from 110 to 280, evenly apart to the ear."""

SPEAKERS, RANKED = 20, 40
"""How many speakers are wanted, and among how many (the wanted ones with them) each is ranked."""

SENTENCE = 5
"""Words of a sentence."""

SHARES = (1 / 3, 1.0, 3.0)
"""Gammas of the curve, as shares of a guide's own."""

Asked = Literal["noised", "through", "straight"]
"""Where a guide is asked and how its gradient comes back: at the noised mel; at the estimate, through the denoiser or straight."""


@dataclass(frozen=True)
class Dose:
    """How strongly a guide guides, and how: in the place of its own strength."""

    gamma: float
    asked: Asked = "through"
    capped: bool = True
    chooses: bool = True

    @property
    def changes(self) -> dict[str, Any]:
        """As `Duovox.guide` takes them."""
        place = {"at": "noised"} if self.asked == "noised" else {"at": "estimate", "way": self.asked}
        capped, chosen = {} if self.capped else {"cap": math.inf}, {} if self.chooses else {"candidates": 1}
        return {"gamma": self.gamma, **place, **capped, **chosen}

    @property
    def kind(self) -> str:
        """All but gamma, in words."""
        return self.asked + ", no cap" * (not self.capped) + ", no choice of noise" * (not self.chooses)

    def __str__(self) -> str:
        return f"gamma {self.gamma:g}, {self.kind}"


@dataclass(frozen=True)
class Steered:
    """How the clips of a condition are steered beside their word; by nothing where both are None."""

    pitch: Dose | None = None
    speaker: Dose | None = None
    recorded_pitch: bool = False
    """The pitch that is wanted is that of the speaker's recording."""

    @property
    def name(self) -> str:
        """For files and `--only`."""
        return re.sub(r"[ ,]+", "_", str(self).replace(" and ", "_").replace(":", "")).replace("gamma_", "")

    def __str__(self) -> str:
        parts = [f"{guide}: {dose}" for guide, dose in (("pitch", self.pitch), ("speaker", self.speaker)) if dose]
        return (" and ".join(parts) or "word alone") + ", the pitch of the recording" * self.recorded_pitch


PLAIN = Steered()


@dataclass(frozen=True)
class GuidesPlan:
    """The conditions in order of weight, the first `main` of them with `n` clips for each of `targets` targets, those of the curves with
    `curve_n`; `sentences` sentences with and without a speaker."""

    conditions: tuple[Steered, ...]
    pitches: tuple[int, ...]
    speakers: int
    n: int
    sentences: int
    main: int
    curve_n: int

    def targets(self, condition: Steered) -> int:
        """How many targets a condition has: pitches, speakers, or for both and for none as many as are needed for either."""
        if condition == PLAIN:
            return max(len(self.pitches) if any(c.pitch for c in self.conditions) else 0, self.speakers)
        return self.speakers if condition.speaker else len(self.pitches)

    def pitch(self, target: int) -> int:
        """The pitch (Hz) that target number k stands for."""
        return self.pitches[target % len(self.pitches)]

    def clips(self, condition: Steered, target: int, labels: Sequence[str]) -> list[tuple[str, int]]:
        """Word and seed of each clip of a target; in the curves the first ones of those that the others have."""
        count = self.n if condition in self.conditions[: self.main] else self.curve_n
        return [(labels[number % len(labels)], number) for number in range(target * self.n, target * self.n + count)]

    def condition(self, name: str) -> Steered:
        """Raises `ConfigError` for a name that is not in the plan."""
        for condition in self.conditions:
            if condition.name == name:
                return condition
        raise ConfigError(f"guides has no condition {name!r}; it has {', '.join(c.name for c in self.conditions)}")


def make_guides_plan(
    pitch: GuideStrength | None,
    speaker: GuideStrength | None,
    n: int,
    speakers: int = SPEAKERS,
    sentences: int = 20,
    pitches: Sequence[int] = PITCHES,
    curve_n: int | None = None,
) -> GuidesPlan:
    """The plan for guides of these strengths, None where there is no such guide. What they are by themselves comes first, then both at
    once, for pitches of the plan and for the recordings' own, then those that choose the noise to begin with without that, then the curves.
    Raises `ConfigError` where there is neither, and for numbers that make no sense."""
    curve_n = n if curve_n is None else curve_n
    if pitch is None and speaker is None:
        raise ConfigError("the experiment guides needs a guide: --pitch, --speaker, or both")
    if n < 1 or sentences < 0:
        raise ConfigError(f"n must be at least 1 and sentences at least 0, not {n} and {sentences}")
    if not 1 <= curve_n <= n:
        raise ConfigError(
            f"curve-n must lie between 1 and n, {n}, not {curve_n}: clips of the curves are among those of the other conditions"
        )
    own = own_doses(pitch, speaker)
    first = [PLAIN, Steered(pitch=own.pitch), Steered(speaker=own.speaker), own]
    first += [replace(own, recorded_pitch=True)] * bool(own.pitch and own.speaker)
    if pitch and own.pitch and pitch.candidates > 1:
        first.append(Steered(pitch=replace(own.pitch, chooses=False)))
    if speaker and own.speaker and speaker.candidates > 1:
        first.append(Steered(speaker=replace(own.speaker, chooses=False)))
    first = list(dict.fromkeys(first))
    curves = [Steered(pitch=dose) for dose in curve(pitch)] + [Steered(speaker=dose) for dose in curve(speaker)]
    conditions = tuple(dict.fromkeys([*first, *curves]))
    return GuidesPlan(conditions, tuple(pitches), speakers if speaker else 0, n, sentences if speaker else 0, len(first), curve_n)


def own_doses(pitch: GuideStrength | None, speaker: GuideStrength | None) -> Steered:
    """Both guides as they are by themselves."""
    return Steered(own_dose(pitch) if pitch else None, own_dose(speaker) if speaker else None)


def own_dose(strength: GuideStrength) -> Dose:
    return Dose(strength.gamma, "noised" if strength.at == "noised" else strength.way)


def ways_of(strength: GuideStrength) -> tuple[Asked, ...]:
    """How a guide can be asked: at the estimate in both ways, and at the noised mel where that is its own."""
    return ("noised", "through", "straight") if strength.at == "noised" else ("through", "straight")


def curve(strength: GuideStrength | None) -> list[Dose]:
    """The doses of a curve around a guide's own gamma, in all its ways, with its cap and without; nothing for no guide. None chooses the
    noise to begin with, so that what is seen is guidance alone."""
    if strength is None:
        return []
    gammas = [round(share * strength.gamma, 6) for share in SHARES]
    leaves = strength.candidates == 1
    return [Dose(gamma, way, capped, leaves) for capped, way, gamma in product((True, False), ways_of(strength), gammas)]


def pitch_target(hertz: float, labels: Sequence[str]) -> dict[str, float]:
    """What is wanted of a pitch guide: shares of the two labels a pitch lies between, to the ear; of pitches beyond them the outermost.
    Raises `ConfigError` where no label is a frequency, as 196Hz."""
    matches = {label: re.fullmatch(r"(\d+(?:\.\d+)?) ?hz", label.lower()) for label in labels}
    known = sorted((math.log2(float(match[1])), label) for label, match in matches.items() if match and float(match[1]))
    if not known:
        raise ConfigError(f"the pitch guide has no label that is a frequency, as 196Hz; it knows {', '.join(labels[:5])}")
    place = min(max(math.log2(hertz), known[0][0]), known[-1][0])
    low, high = max(one for one in known if one[0] <= place), min(one for one in known if one[0] >= place)
    share = (place - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
    return {label: weight for label, weight in ((low[1], 1 - share), (high[1], share)) if weight}
