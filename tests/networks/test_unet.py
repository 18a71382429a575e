"""baselines/unet.py and the model around it: shapes, what it may know, and that training and guidance take it like the other model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import awaken, label_gradient

from duovox.config import NoiseConfig, Recipe, UNetConfig, read_recipe
from duovox.contracts import ConfigError
from duovox.costs import count_costs
from duovox.diffusion.noise import precondition
from duovox.model import ScoreModel, build_classifier, build_model
from duovox.networks.unet import UNet

SMALL = UNetConfig(patch=2, widths=(8, 12), up_widths=(8, 16), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)
SIGMA = torch.tensor([0.02, 1.0, 30.0])


def noised() -> torch.Tensor:
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_recipe: Recipe) -> ScoreModel:
    torch.manual_seed(0)
    recipe = replace(tiny_recipe, score_model="unet", unet=SMALL)
    made = build_model(recipe, build_classifier(recipe, 3))
    awaken(made)
    made.classifier.freeze()
    return made.eval()


def test_a_fresh_network_gives_nothing_and_every_parameter_takes_part() -> None:
    network, c = UNet(SMALL), precondition(SIGMA, NoiseConfig())
    assert not network(noised(), c).any()
    awaken(network)
    network(noised(), c).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_denoising_is_preconditioned(model: ScoreModel) -> None:
    c = precondition(SIGMA, model.noise)
    wide = [values[:, None, None, None] for values in (c.c_skip, c.c_out)]
    expected = wide[0] * noised() + wide[1] * model.score_network(noised(), c, None)
    assert torch.equal(model(noised(), SIGMA), expected)


def test_the_classifier_is_not_run_unless_it_guides(model: ScoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(model.classifier.network, "forward", lambda *_: calls.append(1))
    model(noised(), SIGMA)
    assert calls == []


@pytest.mark.parametrize("guide_at", ["noised", "estimate"])
def test_guidance_leaves_the_estimate_as_it_is(model: ScoreModel, guide_at: str) -> None:
    label = torch.tensor([0, 1, 2])
    denoised, gradient = label_gradient(model, label, noised(), SIGMA, guide_at)  # type: ignore[arg-type]
    assert torch.equal(denoised, model(noised(), SIGMA))
    assert gradient.abs().amax(dim=(1, 2, 3)).gt(0).all()
    source = noised().requires_grad_()
    (direct,) = torch.autograd.grad(torch.log_softmax(model.classifier(source, SIGMA), dim=1)[torch.arange(3), label].sum(), source)
    assert torch.allclose(gradient, direct) == (guide_at == "noised")


def test_the_gradient_through_the_estimate_is_that_of_finite_differences(model: ScoreModel) -> None:
    model.double()
    label, sigma, x = torch.tensor([0, 1, 2]), SIGMA.double(), noised().double()
    _, gradient = label_gradient(model, label, x, sigma, "estimate")
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(step: float) -> torch.Tensor:
        logits = model.classifier(model(x + step * direction, sigma), torch.full_like(sigma, model.noise.sigma_min))
        return torch.log_softmax(logits.double(), dim=1).gather(1, label[:, None])[:, 0]

    slope = (value(1e-3) - value(-1e-3)) / 2e-3
    assert torch.allclose((gradient * direction).sum(dim=(1, 2, 3)), slope.detach(), rtol=0.02, atol=1e-4)


def test_the_papers_sizes() -> None:
    """arXiv 2606.20457, table 1: U-Net 16.6 M and 14.56 GMACs; with the classifier 24.5 M, of which 16.6 M trained."""
    recipe = replace(read_recipe("paper"), score_model="unet")
    costs = count_costs(build_model(recipe, build_classifier(recipe, 10)))
    assert costs.subnet_parameters == pytest.approx(16.6e6, rel=0.02)
    assert costs.unconditional_gmacs == pytest.approx(14.56, rel=0.02)
    assert costs.subnet_parameters + costs.classifier_parameters == pytest.approx(24.5e6, rel=0.02)


def test_a_mel_that_its_stride_does_not_divide_is_refused(tiny_recipe: Recipe) -> None:
    deep = replace(SMALL, widths=(8, 8, 8, 8, 8), up_widths=(8, 8, 8, 8, 8))
    with pytest.raises(ConfigError, match=r"16 x 16.*U-Net's total stride 32"):
        replace(tiny_recipe, score_model="unet", unet=deep)
    assert replace(tiny_recipe, unet=deep).unet == deep  # as long as it is not the score model


def test_unequal_ways_down_and_up_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unet.widths \(8, 12\) and up_widths \(8,\)"):
        UNetConfig(widths=(8, 12), up_widths=(8,))
