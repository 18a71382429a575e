"""What the experiment `guides` has found, and its claims answered by rule: takes rows of clips and sentences, gives `Summary`s and `Claim`s
to `guides_page`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duovox.evaluation.metrics import wilson_interval
from duovox.experiments.claims import Claim, Comparison, Verdict
from duovox.experiments.guides_run import SpokenSentence, SteeredClip

SEMITONE = 1.0
WITHIN, ACCURATE = 0.7, 0.97
"""What a pitch guide has to reach inside the natural range: the share within a semitone, and word accuracy."""

RANK, ACCURATE_SPEAKER = 8.0, 0.95
TIMES = 2.0
"""How many times as often a sentence has to be by one speaker with the guide as without."""

NATURAL = (5.0, 95.0)
"""Percentiles of the pitches of clips that nothing steers: what lies between is the voice's natural range."""

RULES = (
    "Intervals are 95 %: Wilson's for shares, 1.96 standard errors for means. A figure that has to reach a bar holds if its whole interval "
    "does, does not hold if none of it does, and is undecided otherwise. Two guides at once are no worse than one alone if the figure of "
    "both does not lie beyond the interval of the one alone, on its worse side."
)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """Hits of n; a share with its interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.hits, self.n) if self.n else (0.0, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f} - {high:.2f})" if self.n else "-"


@dataclass(frozen=True)
class Mean:
    """A mean of n values with its interval."""

    values: tuple[float, ...]

    @property
    def value(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def interval(self) -> Interval:
        if len(self.values) < 2:
            return -math.inf, math.inf
        half = 1.96 * float(np.std(self.values, ddof=1)) / math.sqrt(len(self.values))
        return self.value - half, self.value + half

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1f}" + (f" ({low:.1f} - {high:.1f})" if len(self.values) > 1 else "") if self.values else "-"


@dataclass(frozen=True)
class Summary:
    """A set of clips: words right; clips whose pitch is within a semitone of the target's (those without a pitch are not); the median of
    how far it is off (semitones, of those with one); ranks of the target's speaker."""

    words: Share
    within: Share
    off: float
    rank: Mean


def summarise(clips: Sequence[SteeredClip], pitch: bool = True, speaker: bool = True) -> Summary:
    """The figures of clips, those of what they were not measured against left empty."""
    tones = [clip.semitones for clip in clips] if pitch else []
    known = [abs(tone) for tone in tones if tone is not None]
    ranks = tuple(float(clip.rank) for clip in clips if clip.rank is not None) if speaker else ()
    words = Share(sum(clip.right for clip in clips), len(clips))
    off = float(np.median(known)) if known else math.nan
    return Summary(words, Share(sum(tone <= SEMITONE for tone in known), len(tones)), off, Mean(ranks))


def natural_range(plain: Sequence[SteeredClip]) -> Interval | None:
    """The pitches (Hz) between which most clips lie that nothing steers."""
    hertz = [clip.hertz for clip in plain if clip.hertz is not None]
    if not hertz:
        return None
    low, high = np.percentile(hertz, NATURAL)
    return float(low), float(high)


def reaches(name: str, figure: Share | Mean, bar: float, lower: bool = False) -> Comparison:
    """Whether a figure is at least (or, `lower`, at most) a bar."""
    ends = [end - bar for end in figure.interval]
    good = [end <= 0 if lower else end >= 0 for end in ends]
    verdict: Verdict = "holds" if all(good) else "undecided" if any(good) else "does not hold"
    return Comparison(f"{name} {figure}, the bar {bar:g}", verdict)


def no_worse(name: str, both: Share | Mean, alone: Share | Mean, lower: bool = False) -> Comparison:
    """Whether a figure of two guides at once lies within the interval of one alone, or beyond it on the better side."""
    low, high = alone.interval
    fine = both.value <= high if lower else both.value >= low
    return Comparison(f"{name} {both} against {alone} alone", "holds" if fine else "does not hold")


def missing(name: str) -> Comparison:
    return Comparison(f"{name}: not measured yet", "undecided")


def pitch_claim(clips: Sequence[SteeredClip] | None, plain: Sequence[SteeredClip] | None, pitches: Sequence[int]) -> Claim:
    """Inside the natural range."""
    text = f"Pitch inside the natural range: within a semitone in at least {WITHIN:g} of the clips at word accuracy {ACCURATE:g}"
    span = natural_range(plain) if plain else None
    if clips is None or span is None:
        return Claim(text, (missing("pitch"),))
    inside = [clip for clip in clips if span[0] <= pitches[clip.target % len(pitches)] <= span[1]]
    found = summarise(inside, speaker=False)
    if not inside:
        return Claim(text, (Comparison(f"no target lies between {span[0]:.0f} and {span[1]:.0f} Hz", "undecided"),))
    return Claim(text, (reaches("within a semitone", found.within, WITHIN), reaches("words", found.words, ACCURATE)))


def speaker_claim(clips: Sequence[SteeredClip] | None, ranked: int) -> Claim:
    text = f"Speaker: the wanted one has a mean rank of at most {RANK:g} among {ranked} at word accuracy {ACCURATE_SPEAKER:g}"
    if clips is None:
        return Claim(text, (missing("speaker"),))
    found = summarise(clips, pitch=False)
    return Claim(text, (reaches("rank", found.rank, RANK, lower=True), reaches("words", found.words, ACCURATE_SPEAKER)))


def both_claim(both: Sequence[SteeredClip] | None, pitch: Sequence[SteeredClip] | None, speaker: Sequence[SteeredClip] | None) -> Claim:
    text = "Word, pitch and speaker at once: nothing is worse than with one guide alone by more than its interval"
    if both is None or pitch is None or speaker is None:
        return Claim(text, (missing("both"),))
    two, one, other = summarise(both), summarise(pitch, speaker=False), summarise(speaker, pitch=False)
    return Claim(
        text,
        (
            no_worse("within a semitone", two.within, one.within),
            no_worse("rank", two.rank, other.rank, lower=True),
            no_worse("words, beside pitch", two.words, one.words),
            no_worse("words, beside speaker", two.words, other.words),
        ),
    )


def one_speaker(sentences: Sequence[SpokenSentence], threshold: float) -> tuple[Share, Share]:
    """How many sentences are by one speaker in all their words, without the guide and with it."""
    shares = [[one.plain >= threshold for one in sentences], [one.guided >= threshold for one in sentences]]
    plain, guided = (Share(sum(each), len(sentences)) for each in shares)
    return plain, guided


def say_claim(sentences: Sequence[SpokenSentence], threshold: float) -> Claim:
    """Answered by the intervals: of twice the share without the guide, and of the share with it."""
    text = f"Sentences of five words are by one speaker at least {TIMES:g} times as often with the speaker guide as without"
    if not sentences:
        return Claim(text, (missing("sentences"),))
    plain, guided = one_speaker(sentences, threshold)
    low, high = (TIMES * end for end in plain.interval)
    verdict: Verdict = "holds" if guided.interval[0] >= high else "does not hold" if guided.interval[1] < low else "undecided"
    return Claim(text, (Comparison(f"{guided} with, {plain} without", verdict),))
