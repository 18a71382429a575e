"""experiments/claims.py on made-up results: each verdict, each claim, the recommended guidance."""

from __future__ import annotations

import pytest

from duovox.experiments.claims import better, matches, ratio, recommended, regimes_claims, table1_claims
from duovox.experiments.plan import Condition
from duovox.experiments.results import Result, Spread, SystemCosts

COSTS = {"subnet_logsumexp": SystemCosts(4.4, 12.3, 12.3, 12.07, 16.44), "unet": SystemCosts(16.6, 16.6, 24.5, 14.56, 22.74)}


def result(kind: str, gamma: float | None, fids: list[float | None], accuracy: float | None = 0.9, **where: str) -> Result:
    scored = accuracy if gamma is not None else None
    rows = tuple({"fid": fid, "accuracy": scored, "inception": 5 - (fid or 0) + 0.001 * i, "n": 100} for i, fid in enumerate(fids))
    return Result(kind, kind, where.get("regime", ""), Condition(gamma), where.get("group", "all"), rows)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((1.0, 1.1), (1.3, 1.4), "holds"),
        ((1.0, 1.1), (1.1, 1.2), "undecided"),
        ((1.3, 1.4), (1.0, 1.1), "does not hold"),
        ((1.0,), (2.0,), "undecided"),
    ],
)
def test_better_is_by_more_than_the_spread(ours: tuple[float, ...], theirs: tuple[float, ...], verdict: str) -> None:
    assert better(Spread(ours), Spread(theirs)) == verdict
    assert better(Spread(tuple(-x for x in ours)), Spread(tuple(-x for x in theirs)), lower=False) == verdict


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((0.50, 0.51), (1.0, 1.01), "holds"),
        ((1.03, 1.04), (1.0, 1.01), "holds"),
        ((1.0, 1.2), (1.0, 1.2), "undecided"),
        ((1.3, 1.31), (1.0, 1.01), "does not hold"),
        ((1.0,), (1.0,), "undecided"),
    ],
)
def test_matching_allows_a_margin(ours: tuple[float, ...], theirs: tuple[float, ...], verdict: str) -> None:
    assert matches(Spread(ours), Spread(theirs)) == verdict


def test_costs_are_compared_exactly() -> None:
    assert ratio("parameters", 1.0, 4.0, 1 / 3).verdict == "holds"
    assert ratio("parameters", 2.0, 4.0, 1 / 3).verdict == "does not hold"


def test_the_claims_of_table_1() -> None:
    near, far = [0.17, 0.171, 0.172], [0.28, 0.281, 0.282]
    results = [result("unet", None, near), result("subnet_logsumexp", None, near), result("subnet_none", None, far)]
    results += [result("unet", 3.0, near), result("subnet_logsumexp", 3.0, far), result("subnet_label", 3.0, near)]
    verdicts = [claim.verdict for claim in table1_claims(results, COSTS)]
    assert verdicts == ["holds", "does not hold", "holds", "holds"]
    assert [claim.verdict for claim in table1_claims([], COSTS)] == ["undecided"] * 4
    assert "0.171 (0.170 - 0.172) against 0.171" in table1_claims(results, COSTS)[0].comparisons[0].text


def test_a_regime_is_won_at_every_gamma_or_not() -> None:
    low, high = [0.2, 0.21], [0.5, 0.51]
    where = {"regime": "few", "group": "unseen"}
    results = [result("unet", gamma, high, **where) for gamma in (1.0, 3.0, 6.0)]
    ours = [result("subnet_logsumexp", gamma, low, **where) for gamma in (1.0, 3.0, 6.0)]
    claims = regimes_claims([*results, *ours])
    assert [claim.verdict for claim in claims] == ["undecided", "holds", "undecided"]
    lost = [ours[0], result("subnet_logsumexp", 3.0, [0.6, 0.61], **where), ours[2]]
    assert regimes_claims([*results, *lost])[1].verdict == "does not hold"
    missing = regimes_claims([*results, *ours[:2]])
    assert missing[1].verdict == "undecided" and missing[1].comparisons[2].text == "gamma 6: FID: not measured yet"


def test_the_recommended_guidance_is_accurate_enough_and_then_nearest() -> None:
    results = [result("s", 1.0, [0.1], 0.9), result("s", 2.0, [0.4], 0.96), result("s", 3.0, [0.3], 0.99), result("s", 5.0, [0.5], 1.0)]
    assert recommended(results) == results[2]
    assert recommended(results[:1]) == results[0]
    vague = [result("s", gamma, [None], accuracy) for gamma, accuracy in ((1.0, 0.5), (2.0, 0.97), (3.0, 0.96))]
    assert recommended(vague) == vague[1], "without FID, accuracy alone"
    assert recommended([result("s", None, [0.1])]) is None


def test_accuracy_has_the_interval_of_all_clips_together() -> None:
    low, high = result("s", 3.0, [0.1, 0.1, 0.1], 0.9).accuracy_interval or (0, 0)
    assert 0.85 < low < 0.9 < high < 0.93
    assert result("s", None, [0.1]).accuracy_interval is None
