"""experiments/plan.py: equal budgets, which systems and trials there are, what each regime sees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest

from duovox.config import ExternalConfig, Recipe, SeenConfig, TrainConfig, WaveInput, read_recipe
from duovox.contracts import ConfigError
from duovox.experiments.plan import Condition, Experiment, Trial, make_plan, regimes, with_updates

DIGITS = ("five", "four", "one", "three", "two", "zero")


@pytest.mark.parametrize("name", get_args(Experiment))
@pytest.mark.parametrize("recipe", ["compact", "paper"])
def test_all_systems_of_an_experiment_have_the_same_budget_data_order_and_classifier(name: Experiment, recipe: str) -> None:
    plan = make_plan(name, read_recipe(recipe), DIGITS, updates=100)
    assert {system.recipe.train_subnet for system in plan.systems} == {plan.training} and plan.training.updates == 100
    trained = [system for system in plan.systems if not system.random_classifier]
    assert len({(s.recipe.name, s.recipe.classifier, s.recipe.train_classifier) for s in trained}) == 1
    assert len({s.name for s in plan.systems}) == len(plan.systems) and len(set(plan.trials)) == len(plan.trials)


def test_table1_samples_what_each_system_can_do() -> None:
    plan = make_plan("table1", read_recipe("compact"), DIGITS)
    assert plan.draws == 3 and len(plan.trials) == 3 * (4 * 2 + 1 + 1)
    said = {system.name: [str(c) for c in plan.conditions(system.name)] for system in plan.systems}
    assert said.pop("subnet_random") == ["unconditional"]
    assert said.pop("subnet_label") == ["unconditional", "gamma 0", "gamma 3"]
    assert said == {name: ["unconditional", "gamma 3"] for name in ("unet", "subnet_logsumexp", "subnet_none")}
    assert plan.system("subnet_random").recipe.train_classifier.updates == 0


def test_the_forms_of_the_score_model() -> None:
    forms = {
        s.name: (s.recipe.score_model, s.recipe.subnet.gradient_taps) for s in make_plan("table1", read_recipe("paper"), DIGITS).systems
    }
    assert forms == {
        "unet": ("unet", "logsumexp"),
        "subnet_logsumexp": ("subnet", "logsumexp"),
        "subnet_none": ("subnet", "none"),
        "subnet_label": ("subnet", "label"),
        "subnet_random": ("subnet", "logsumexp"),
    }


def test_regimes_see_the_words_named_or_else_the_first_half() -> None:
    assert regimes(DIGITS) == {
        "share": SeenConfig(0.03),
        "few": SeenConfig(1.0, ("three", "five", "two")),
        "one": SeenConfig(1.0, ("four",)),
    }
    assert regimes(("high", "low", "mid"))["few"].labels == ("high",)
    assert regimes(("five", "three", "two"))["few"].labels == ("five",), "one label at least stays unseen"
    assert regimes(("high", "low", "mid"))["one"].labels == ("mid",)
    with pytest.raises(ConfigError, match="at least two labels"):
        regimes(("yes",))


def test_regimes_score_the_seen_and_the_unseen_apart() -> None:
    plan = make_plan("regimes", read_recipe("compact"), DIGITS)
    assert plan.system("unet_few").groups == (("seen", ("three", "five", "two")), ("unseen", ("four", "one", "zero")))
    assert plan.system("unet_share").groups == (("all", ()),)
    assert len(plan.systems) == 6
    assert [c.gamma for c in plan.conditions("subnet_logsumexp_one")] == [c.gamma for c in plan.conditions("unet_one")] == [1, 3, 6]


def test_gamma_varies_guidance_of_the_recipe_s_own_system() -> None:
    plan = make_plan("gamma", read_recipe("compact"), DIGITS)
    assert [s.name for s in plan.systems] == ["subnet_label"], "named as in table1, so that they can share it"
    assert [c.name for c in plan.conditions("subnet_label")] == [
        *("gamma0", "gamma0.5", "gamma1", "gamma2", "gamma3", "gamma5", "gamma8"),
        *("gamma3_0.2_to_inf", "gamma3_0.2_to_10", "gamma3_0.5_to_5"),
        *("gamma3_early", "gamma6_early", "gamma3_late", "gamma6_late"),
    ]


def test_shift_trains_on_other_data_than_the_classifier_s() -> None:
    plan = make_plan("shift", read_recipe("compact"), DIGITS)
    assert [s.name for s in plan.systems] == ["subnet_logsumexp_noise", "subnet_logsumexp_words"]
    assert {s.shift for s in plan.systems} == {"noise", "words"} and all(s.recipe.subnet_sees.other_data for s in plan.systems)
    assert [str(c) for c in plan.conditions("subnet_logsumexp_words")] == ["unconditional", "gamma 3"]


def test_seeds_of_the_sets_do_not_meet() -> None:
    assert [Trial("unet", Condition(None), draw).first_seed for draw in range(3)] == [0, 100_000, 200_000]
    with pytest.raises(ConfigError, match="at most 100000"):
        make_plan("gamma", read_recipe("compact"), DIGITS, n=20_000)


def test_fewer_updates_shorten_warm_up_and_averaging() -> None:
    train = TrainConfig(updates=1000, warmup=100, ema_decay=0.999)
    short = with_updates(train, 100)
    assert (short.updates, short.warmup) == (100, 10) and math.isclose(short.ema_decay, 0.99)
    assert with_updates(train, 1).ema_decay == 0.0
    assert with_updates(train, 0) == replace(train, updates=0, warmup=0, ema_decay=0.0)
    assert with_updates(train, 5000) == replace(train, updates=5000)


def test_what_cannot_be_planned(tiny_recipe: Recipe) -> None:
    external = replace(tiny_recipe, external=ExternalConfig(labels=("a", "b"), wave_input=WaveInput()))
    with pytest.raises(ConfigError, match="someone else's"):
        make_plan("table1", external, ("a", "b"))
    for wrong in ({"n": 0}, {"draws": 0}, {"updates": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            make_plan("table1", tiny_recipe, ("a", "b"), **wrong)
    with pytest.raises(ConfigError, match="1 clips a label are too few: each set that is scored needs two clips"):
        make_plan("regimes", tiny_recipe, ("a", "b", "c"), n=1)
    assert make_plan("table1", tiny_recipe, ("a", "b", "c"), n=1).n == 1
    with pytest.raises(ConfigError, match="no system 'wavenet'; it has unet, subnet_logsumexp"):
        make_plan("table1", tiny_recipe, ("a", "b")).system("wavenet")
