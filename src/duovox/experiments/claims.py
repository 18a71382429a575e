"""The paper's claims, answered by stated rules on the figures: takes `Result`s and costs, gives `Claim`s to `page`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from duovox.experiments.plan import GUIDED, REGIME_GAMMAS, UNCONDITIONAL, Condition
from duovox.experiments.results import Result, Spread, SystemCosts, find

Verdict = Literal["holds", "does not hold", "undecided"]

MARGIN = 0.1
"""Share of the other's figure by which one may be worse and still match it."""

QUARTER, HALF = 1 / 3, 0.55
"""What still counts as about a quarter, and as half."""

ENOUGH_ACCURACY = 0.95

RULES = (
    "Spread is the larger of the two ranges over sampling seeds; with one set of seeds every comparison of figures is undecided. "
    "Better: the means differ by more than the spread, in that direction (it does not hold if they do so in the other). "
    f"Matches: even with the spread added, the mean is worse by at most {MARGIN:.0%} of the other's (it does not hold if it is worse by "
    f"more than that even with the spread taken off). About a quarter: at most {QUARTER:.2f}; half: at most {HALF:.2f}. A claim holds if "
    "all its parts hold, does not hold if one of them does not, and is undecided otherwise. Each system was trained once: the spread is "
    "that of sampling alone."
)


@dataclass(frozen=True)
class Comparison:
    """One comparison: what was compared with its values in words, and the verdict."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A claim and the comparisons it rests on."""

    text: str
    comparisons: tuple[Comparison, ...]

    @property
    def verdict(self) -> Verdict:
        verdicts = {comparison.verdict for comparison in self.comparisons}
        if "does not hold" in verdicts:
            return "does not hold"
        return "holds" if verdicts == {"holds"} else "undecided"


def better(ours: Spread, theirs: Spread, lower: bool = True) -> Verdict:
    """Whether one value is better than another by more than the spread."""
    if not (ours.known and theirs.known):
        return "undecided"
    gain = theirs.mean - ours.mean if lower else ours.mean - theirs.mean
    if abs(gain) <= max(ours.range, theirs.range):
        return "undecided"
    return "holds" if gain > 0 else "does not hold"


def matches(ours: Spread, theirs: Spread, lower: bool = True) -> Verdict:
    """Whether one value is no worse than another but for the margin."""
    if not (ours.known and theirs.known):
        return "undecided"
    loss = ours.mean - theirs.mean if lower else theirs.mean - ours.mean
    spread, margin = max(ours.range, theirs.range), MARGIN * abs(theirs.mean)
    if loss + spread <= margin:
        return "holds"
    return "does not hold" if loss - spread > margin else "undecided"


def ratio(name: str, ours: float, theirs: float, most: float) -> Comparison:
    """Whether a cost is at most this share of another's."""
    text = f"{name} {ours:.2f} against {theirs:.2f}, a share of {ours / theirs:.2f}"
    return Comparison(text, "holds" if ours <= most * theirs else "does not hold")


def compare(
    kind: Literal["better", "matches"], name: str, ours: Result | None, theirs: Result | None, metric: str = "fid", lower: bool = True
) -> Comparison:
    """One metric of two results; undecided where one of them is missing."""
    a, b = (result.metric(metric) if result else None for result in (ours, theirs))
    if a is None or b is None:
        return Comparison(f"{name}: not measured yet", "undecided")
    verdict = (better if kind == "better" else matches)(a, b, lower)
    return Comparison(f"{name} {a.text()} against {b.text()}", verdict)


def table1_claims(results: Sequence[Result], costs: Mapping[str, SystemCosts]) -> tuple[Claim, ...]:
    """What the paper says of its table 1, and what we say of label-aware taps."""
    ours, unet = costs["subnet_logsumexp"], costs["unet"]

    def at(kind: str, condition: Condition) -> Result | None:
        return find(results, kind=kind, condition=condition)

    free, guided = UNCONDITIONAL, Condition(GUIDED)
    net, base, bare, aware = "subnet_logsumexp", "unet", "subnet_none", "subnet_label"
    return (
        Claim(
            "(a) Unconditionally the Score Subnet matches the U-Net with about a quarter of the trained parameters",
            (
                compare("matches", "FID", at(net, free), at(base, free)),
                ratio("trained parameters (M)", ours.trained, unet.trained, QUARTER),
            ),
        ),
        Claim(
            "(b) Guided, it matches U-Net and classifier with half the parameters and fewer MACs",
            (
                compare("matches", "FID", at(net, guided), at(base, guided)),
                compare("matches", "accuracy", at(net, guided), at(base, guided), "accuracy", lower=False),
                ratio("parameters (M)", ours.guided, unet.guided, HALF),
                ratio("GMACs", ours.guided_gmacs, unet.guided_gmacs, 1.0),
            ),
        ),
        Claim(
            "(c) Gradient taps help (unconditionally)",
            (
                compare("better", "FID", at(net, free), at(bare, free)),
                compare("better", "IS", at(net, free), at(bare, free), "inception", lower=False),
            ),
        ),
        Claim(
            "(not the paper's) Label-aware taps help (guided)",
            (
                compare("better", "FID", at(aware, guided), at(net, guided)),
                compare("matches", "accuracy", at(aware, guided), at(net, guided), "accuracy", lower=False),
            ),
        ),
    )


def regimes_claims(results: Sequence[Result]) -> tuple[Claim, ...]:
    """Claim (d): lower FID than the guided U-Net at every gamma."""
    return tuple(
        Claim(f"(d) {what}: the Score Subnet lies below the guided U-Net throughout", _throughout(results, regime, group))
        for what, regime, group in (
            ("With little data", "share", "all"),
            ("Zero-shot, some labels seen", "few", "unseen"),
            ("Zero-shot, one label seen", "one", "unseen"),
        )
    )


def _throughout(results: Sequence[Result], regime: str, group: str) -> tuple[Comparison, ...]:
    def at(kind: str, gamma: float) -> Result | None:
        return find(results, kind=kind, regime=regime, group=group, condition=Condition(gamma))

    return tuple(compare("better", f"gamma {gamma:g}: FID", at("subnet_logsumexp", gamma), at("unet", gamma)) for gamma in REGIME_GAMMAS)


def recommended(results: Sequence[Result]) -> Result | None:
    """The condition of smallest FID among those of accuracy >= `ENOUGH_ACCURACY`; where none has FID and that accuracy, the most
    accurate."""
    known = [result for result in results if result.accuracy is not None]
    good = [r for r in known if r.accuracy and r.accuracy.mean >= ENOUGH_ACCURACY and r.metric("fid")]
    if good:
        return min(good, key=lambda r: fid.mean if (fid := r.metric("fid")) else float("inf"))
    return max(known, key=lambda r: r.accuracy.mean if r.accuracy else 0.0, default=None)
