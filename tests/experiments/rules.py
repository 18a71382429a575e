"""The rules that a page of results states, applied to its own figures once more: what its claims must say."""

from __future__ import annotations

from statistics import mean
from typing import Any

FREE, GUIDED = "unconditional", "gamma 3"


def verdicts_of_table1(found: dict[str, Any]) -> list[list[str]]:
    """For each of the four claims the verdicts of its comparisons, from the JSON beside the page."""

    def values(system: str, condition: str, metric: str) -> list[float | None]:
        wanted = [r for r in found["results"] if (r["system"], r["condition"]) == (system, condition)]
        return [row[metric] for result in wanted for row in result["rows"]]

    def better(ours: str, theirs: str, condition: str, metric: str, sign: int) -> str:
        gain, spread, _ = compared(values(ours, condition, metric), values(theirs, condition, metric), sign)
        return "undecided" if spread is None or abs(gain) <= spread else "holds" if gain > 0 else "does not hold"

    def matches(ours: str, theirs: str, condition: str, metric: str, sign: int) -> str:
        gain, spread, margin = compared(values(ours, condition, metric), values(theirs, condition, metric), sign)
        if spread is None:
            return "undecided"
        return "holds" if spread - gain <= margin else "does not hold" if -gain - spread > margin else "undecided"

    def share(name: str, most: float) -> str:
        costs = found["costs"]
        return "holds" if costs["subnet_logsumexp"][name] <= most * costs["unet"][name] else "does not hold"

    ours, base, bare, aware = "subnet_logsumexp", "unet", "subnet_none", "subnet_label"
    return [
        [matches(ours, base, FREE, "fid", -1), share("trained", 1 / 3)],
        [
            matches(ours, base, GUIDED, "fid", -1),
            matches(ours, base, GUIDED, "accuracy", 1),
            share("guided", 0.55),
            share("guided_gmacs", 1.0),
        ],
        [better(ours, bare, FREE, "fid", -1), better(ours, bare, FREE, "inception", 1)],
        [better(aware, ours, GUIDED, "fid", -1), matches(aware, ours, GUIDED, "accuracy", 1)],
    ]


def compared(ours: list[float | None], theirs: list[float | None], sign: int) -> tuple[float, float | None, float]:
    """By how much ours is better, the spread (None with one set of seeds, or too few clips for a figure), and what counts as a match."""
    assert ours and theirs
    if None in (*ours, *theirs):
        return 0.0, None, 0.0
    spread = max(max(each) - min(each) for each in (ours, theirs)) if min(len(ours), len(theirs)) > 1 else None
    return sign * (mean(ours) - mean(theirs)), spread, 0.1 * abs(mean(theirs))


def together(verdicts: list[str]) -> str:
    """The verdict of a claim that rests on several comparisons."""
    return "does not hold" if "does not hold" in verdicts else "holds" if set(verdicts) == {"holds"} else "undecided"


def assert_claims_follow(found: dict[str, Any]) -> None:
    """Every comparison and every claim of a page of table 1 says what its figures say."""
    expected = verdicts_of_table1(found)
    assert [[part["verdict"] for part in claim["comparisons"]] for claim in found["claims"]] == expected
    assert [claim["verdict"] for claim in found["claims"]] == [together(verdicts) for verdicts in expected]
