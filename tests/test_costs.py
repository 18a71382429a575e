"""costs.py: multiply-accumulates against layers whose count is a product one can write down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from duovox.config import Recipe
from duovox.costs import count_costs, gmacs, parameters
from duovox.diffusion.noise import precondition
from duovox.model import ScoreModel

CONV = nn.Conv2d(3, 8, 5, padding=2)
CONV_MACS = 3 * 8 * 5 * 5 * 10 * 7


def test_a_convolution() -> None:
    with torch.no_grad():
        assert gmacs(lambda: CONV(torch.zeros(1, 3, 10, 7))) == pytest.approx(CONV_MACS / 1e9)
        assert gmacs(lambda: CONV(torch.zeros(4, 3, 10, 7))) == pytest.approx(4 * CONV_MACS / 1e9)


def test_a_linear_layer() -> None:
    linear = nn.Linear(30, 7)
    with torch.no_grad():
        assert gmacs(lambda: linear(torch.zeros(2, 30))) == pytest.approx(2 * 30 * 7 / 1e9)


def test_a_backward_to_the_input_counts_once_more() -> None:
    """Input gradient: as much as the forward. With the weight's gradient: twice as much."""

    def run(through_weight: bool) -> None:
        CONV.requires_grad_(through_weight)
        source = torch.zeros(1, 3, 10, 7, requires_grad=True).view(1, 3, 10, 7)
        wanted = [source, CONV.weight] if through_weight else [source]
        torch.autograd.grad(CONV(source).sum(), wanted)

    assert gmacs(lambda: run(False)) == pytest.approx(2 * CONV_MACS / 1e9)
    assert gmacs(lambda: run(True)) == pytest.approx(3 * CONV_MACS / 1e9)


def test_parameters_count_trained_or_not() -> None:
    assert parameters(nn.Conv2d(3, 8, 5).requires_grad_(False)) == 3 * 8 * 25 + 8


def test_a_model_adds_up(tiny_model: ScoreModel) -> None:
    """With gradient taps one evaluation is a forward, a backward to the first tap and the subnet; guidance adds a backward."""
    costs = count_costs(tiny_model)
    assert costs.classifier_parameters == sum(p.numel() for p in tiny_model.classifier.parameters())
    assert costs.subnet_parameters == sum(p.numel() for p in tiny_model.score_network.parameters())
    assert 0 < costs.classifier_gmacs < costs.unconditional_gmacs < costs.guided_gmacs
    backward = costs.guided_gmacs - costs.unconditional_gmacs
    assert backward == pytest.approx(costs.classifier_gmacs, rel=0.1)


def test_gradient_taps_cost_about_one_forward_more(tiny_recipe: Recipe, make_model: Callable[[Recipe], ScoreModel]) -> None:
    """Without them nothing runs backwards before guidance does."""
    plain = make_model(replace(tiny_recipe, subnet=replace(tiny_recipe.subnet, gradient_taps="none")))
    costs = count_costs(plain)
    with torch.no_grad():
        taps = plain.taps(torch.zeros(1, 1, 16, 16), torch.ones(1))
        subnet = gmacs(lambda: plain.score_network(torch.zeros(1, 1, 16, 16), precondition(torch.ones(1), plain.noise), taps))
    assert costs.unconditional_gmacs == pytest.approx(costs.classifier_gmacs + subnet)
    assert costs.guided_gmacs == pytest.approx(2 * costs.classifier_gmacs + subnet, rel=0.05)


def test_guidance_at_the_estimate_costs_the_subnet_and_the_classifier_again(tiny_model: ScoreModel) -> None:
    """One more forward at the estimate, and a backward through all three: estimate, subnet, classifier."""
    costs = count_costs(tiny_model, "estimate")
    subnet = costs.unconditional_gmacs - 2 * costs.classifier_gmacs
    assert costs.guided_gmacs == pytest.approx(5 * costs.classifier_gmacs + 2 * subnet, rel=0.1)
