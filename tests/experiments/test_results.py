"""experiments/results.py: which records count for what; the costs of both forms of score model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from duovox.config import Recipe, UNetConfig
from duovox.experiments.plan import Plan, System, Trial, make_plan
from duovox.experiments.results import costs_of, gather
from duovox.model import build_classifier

SMALL = UNetConfig(patch=2, widths=(8, 12), up_widths=(8, 12), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)


@dataclass
class Records:
    """What `gather` asks of a bench: a plan, and a record for each trial, made up by its name."""

    plan: Plan
    lacking: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def trials(self, system: System) -> list[Trial]:
        return [trial for trial in self.plan.trials if trial.system == system.name]

    def record(self, trial: Trial) -> dict[str, Any] | None:
        name = f"{trial.system} {trial.name}"
        if name in self.lacking:
            return None
        if name in self.failed:
            return {"failed": "ran off"}
        groups = self.plan.system(trial.system).groups
        return {"groups": {group: [{"of": f"{name} {group}"}, {"real": f"{name} {group}"}] for group, _ in groups}, "shifted_fid": None}


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Recipe) -> Recipe:
    return replace(tiny_recipe, unet=SMALL)


def test_results_are_in_the_plan_s_order_and_leave_out_what_is_missing(recipe: Recipe) -> None:
    plan = make_plan("regimes", recipe, ("a", "b", "c"), draws=2)
    lacking = ("unet_few gamma1_s0", "unet_few gamma3_s0", "unet_few gamma3_s1")
    found = gather(Records(plan, lacking, ("unet_one gamma6_s1",)))  # type: ignore[arg-type]
    few = [(str(r.condition), r.group, [row["of"] for row in r.rows]) for r in found.results if r.system == "unet_few"]
    assert few == [
        ("gamma 1", "seen", ["unet_few gamma1_s1 seen"]),
        ("gamma 1", "unseen", ["unet_few gamma1_s1 unseen"]),
        ("gamma 6", "seen", ["unet_few gamma6_s0 seen", "unet_few gamma6_s1 seen"]),
        ("gamma 6", "unseen", ["unet_few gamma6_s0 unseen", "unet_few gamma6_s1 unseen"]),
    ]
    assert list(dict.fromkeys(r.system for r in found.results)) == [system.name for system in plan.systems]
    assert found.failures == ("unet_one, gamma 6: no clips, ran off",)
    assert [len(r.rows) for r in found.results if r.system == "unet_one" and r.condition.gamma == 6] == [1, 1]


def test_real_rows_are_those_beside_the_last_guided_trial(recipe: Recipe) -> None:
    found = gather(Records(make_plan("table1", recipe, ("a", "b"), draws=2)))  # type: ignore[arg-type]
    assert found.real == {"all": [{"real": "subnet_label gamma3_s1 all"}]}, "the random classifier's clips are not guided"
    assert list(found.costs) == ["unet", "subnet_logsumexp", "subnet_none", "subnet_label", "subnet_random"]


def test_an_unguided_unet_runs_without_the_classifier(recipe: Recipe) -> None:
    classifier = sum(parameter.numel() for parameter in build_classifier(recipe, 3).parameters()) / 1e6
    unet, subnet = costs_of(replace(recipe, score_model="unet"), 3), costs_of(recipe, 3)
    assert unet.unconditional == unet.trained == pytest.approx(unet.guided - classifier)
    assert subnet.unconditional == subnet.guided == pytest.approx(subnet.trained + classifier)
    assert all(0 < costs.unconditional_gmacs < costs.guided_gmacs for costs in (unet, subnet))
