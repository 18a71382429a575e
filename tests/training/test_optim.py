"""training/optim.py: what one update does to a network and its average, against arithmetic by hand; the groups of AdamW."""

from __future__ import annotations

import pytest
import torch
from line import SETTINGS, Line
from torch import nn

from duovox.config import Recipe, TrainConfig
from duovox.model import build_classifier, build_model
from duovox.training.ema import averaged
from duovox.training.optim import Updater, decayed_groups, set_rates, update
from duovox.training.schedule import step_generator


def a_weight(value: list[float]) -> nn.Linear:
    network = nn.Linear(2, 1, bias=False)
    network.weight.data = torch.tensor([value])
    return network


@pytest.mark.parametrize(("clip", "expected"), [(10.0, [1 - 0.1 * 3, 2 + 0.1 * 4]), (1.0, [1 - 0.1 * 0.6, 2 + 0.1 * 0.8])])
def test_an_update_follows_the_clipped_gradient(clip: float, expected: list[float]) -> None:
    """The gradient is (3, -4), of norm 5; what was left of an earlier one does not count."""
    network = a_weight([1.0, 2.0])
    network.weight.grad = torch.full((1, 2), 100.0)
    updater = Updater(network, torch.optim.SGD(network.parameters(), lr=0.1), clip)
    norm = updater.step(network(torch.tensor([[3.0, -4.0]])).sum())
    assert norm.item() == pytest.approx(5)
    assert network.weight[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_average_follows_after_each_update() -> None:
    network = a_weight([0.0, 0.0])
    average = averaged(network, 0.5)
    updater = Updater(network, torch.optim.SGD(network.parameters(), lr=1.0), 10.0, average)
    means = [0.0]
    for _ in range(3):
        updater.step(-network.weight[0, 0])  # one further at each update
        means.append(average.module.weight[0, 0].item())
    # the first is taken as it is; then decay is (1 + n) / (10 + n) after n updates: 2/11, 3/12
    assert means == pytest.approx([0.0, 1.0, 2 - 2 / 11, 3 - (3 - (2 - 2 / 11)) * 3 / 12])


def test_figures_are_numbers_and_the_norm_is_one_of_them() -> None:
    trainee = Line()
    trainee.network.eval()
    x = torch.randn(4, 3, generator=step_generator(0, 5, torch.device("cpu")))
    expected = (trainee.network(x)[:, 0] - x.sum(1)).square().mean()
    expected.backward()
    norm = torch.cat([p.grad.flatten() for p in trainee.network.parameters() if p.grad is not None]).norm().item()
    assert update(trainee, 5, step_generator(0, 5, torch.device("cpu"))) == pytest.approx({"loss": expected.item(), "gradient_norm": norm})


def test_rates_are_shares_of_those_that_each_group_began_with() -> None:
    one, other = a_weight([0.0, 0.0]), a_weight([0.0, 0.0])
    groups = [{"params": one.parameters()}, {"params": other.parameters(), "lr": 4 * SETTINGS.rate}]
    optimizers = {"adamw": torch.optim.AdamW(groups, lr=SETTINGS.rate)}
    for factor in (0.5, 0.25, 1.0):
        set_rates(optimizers, factor)
        rates = [group["lr"] for group in optimizers["adamw"].param_groups]
        assert rates == pytest.approx([factor * SETTINGS.rate, 4 * factor * SETTINGS.rate])


def test_every_trainable_parameter_is_in_one_group(tiny_recipe: Recipe) -> None:
    model = build_model(tiny_recipe, build_classifier(tiny_recipe, 3))
    for module, trainable in ((model, model.score_network), (build_classifier(tiny_recipe, 3),) * 2):
        groups = decayed_groups(module, TrainConfig(weight_decay=0.25))
        grouped = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        assert sorted(grouped) == sorted(id(p) for p in trainable.parameters())
        assert [group["weight_decay"] for group in groups] == [0.25, 0.0]


def test_weights_decay_and_biases_norms_and_gains_do_not() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 4), "conv": nn.Conv2d(2, 3, 3), "norm": nn.GroupNorm(1, 3)})
    module.register_parameter("gain", nn.Parameter(torch.ones(1, 3, 1, 1)))
    matrices, vectors = ({id(p) for p in group["params"]} for group in decayed_groups(module, TrainConfig()))  # type: ignore[attr-defined]
    names = {id(p): name for name, p in module.named_parameters()}
    assert {names[i] for i in matrices} == {"linear.weight", "conv.weight"}
    assert {names[i] for i in vectors} == {"linear.bias", "conv.bias", "norm.weight", "norm.bias", "gain"}
