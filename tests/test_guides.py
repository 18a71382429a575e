"""guides.py: label guides at the noised mel and at the estimate, their temperatures, several at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import label_gradient
from torch import Tensor

from duovox.config import Calibration, Recipe
from duovox.contracts import Evaluation, GuideAt
from duovox.diffusion.guidance import ClassifierGuidance, GuidanceSchedule
from duovox.guides import LabelGuide, temperature_at
from duovox.model import Conditioned, ScoreModel, build_classifier

SIGMA = torch.tensor([0.1, 1.0, 20.0])
LABEL = torch.tensor([0, 1, 2])
MakeModel = Callable[[Recipe], ScoreModel]


def noised(count: int = 3) -> Tensor:
    return 2 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


# Temperatures


def test_temperatures_are_interpolated_in_logarithms_and_held_beyond_the_ends() -> None:
    calibration = Calibration("estimate", sigmas=(0.1, 1.0, 100.0), temperatures=(1.0, 4.0, 16.0))
    sigma = torch.tensor([0.01, 0.1, 10**-0.5, 1.0, 10.0, 10**1.5, 100.0, 500.0])
    expected = torch.tensor([1.0, 1.0, 2.0, 4.0, 8.0, 4 * 4**0.75, 16.0, 16.0])
    torch.testing.assert_close(temperature_at(calibration, sigma, "estimate"), expected)
    torch.testing.assert_close(temperature_at(calibration, sigma.double(), "estimate"), expected.double(), rtol=1e-6, atol=0)
    assert temperature_at(calibration, sigma, "noised") is None


def test_a_single_temperature_holds_everywhere() -> None:
    calibration = Calibration("noised", sigmas=(1.0,), temperatures=(3.0,))
    torch.testing.assert_close(temperature_at(calibration, SIGMA, "noised"), torch.full((3,), 3.0))


def test_without_a_calibration_there_is_no_temperature() -> None:
    assert temperature_at(Calibration(), SIGMA, "noised") is None
    assert temperature_at(Calibration(), SIGMA, "estimate") is None


@pytest.mark.parametrize(
    ("fitted", "asked"), [("noised", "noised"), ("estimate", "estimate"), ("noised", "estimate"), ("estimate", "noised")]
)
@torch.no_grad()
def test_a_temperature_tempers_the_guidance_it_was_fitted_for(
    tiny_recipe: Recipe, make_model: MakeModel, fitted: GuideAt, asked: GuideAt
) -> None:
    """Far above every logit it makes all labels equally probable: their gradients then add up to nothing."""
    model = make_model(replace(tiny_recipe, subnet=replace(tiny_recipe.subnet, gradient_taps="logsumexp")))
    calibration = Calibration(fitted, sigmas=(0.1, 20.0), temperatures=(1e4, 1e4))
    denoised, plain = label_gradient(model, LABEL, noised(), SIGMA, asked)
    same, tempered = label_gradient(model, LABEL, noised(), SIGMA, asked, calibration)
    assert torch.equal(same, denoised)
    assert torch.equal(tempered, plain) == (fitted != asked)
    if fitted == asked:
        every = [label_gradient(model, (LABEL + k) % 3, noised(), SIGMA, asked, calibration)[1] * 1e4 for k in range(3)]
        assert (every[0] - plain).abs().max() > 1e-3
        assert min(gradient.abs().max().item() for gradient in every) > 1e-2
        torch.testing.assert_close(every[0] + every[1] + every[2], torch.zeros_like(plain), rtol=0, atol=1e-4)


def test_the_temperature_divides_the_logits() -> None:
    """log p = log softmax(logits / T) at the label, T interpolated at each item's sigma."""
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    calibration = Calibration("noised", sigmas=(0.1, 20.0), temperatures=(2.0, 2.0))

    def classifier(noised: Tensor, sigma: Tensor) -> Tensor:
        return logits

    found = LabelGuide(classifier, LABEL, calibration=calibration).log_probability(Evaluation(noised(), SIGMA))
    by_hand = logits[torch.arange(3), LABEL] / 2 - torch.log((logits / 2).exp().sum(dim=1))
    torch.testing.assert_close(found, by_hand)


# Several at once


@dataclass(frozen=True, eq=False)
class Loudness:
    """A guide that is a plain function: the nearer the mean of what it looks at to `wanted`, the more probable."""

    wanted: float
    at: GuideAt

    def log_probability(self, seen: Evaluation) -> Tensor:
        looked_at = seen.noised if self.at == "noised" else seen.denoised
        assert looked_at is not None
        return -(looked_at.mean(dim=(1, 2, 3)) - self.wanted).square()


@pytest.mark.parametrize("places", [("noised", "noised"), ("estimate", "estimate"), ("noised", "estimate"), ("estimate", "noised")])
@torch.no_grad()
def test_guides_together_give_what_each_gives_alone(tiny_model: ScoreModel, places: tuple[GuideAt, GuideAt]) -> None:
    guides = [LabelGuide(tiny_model.classifier, LABEL, places[0]), Loudness(3.0, places[1])]
    denoiser = Conditioned(tiny_model, LABEL)
    denoised, together = denoiser.with_gradients(noised(), SIGMA, guides)
    torch.testing.assert_close(denoised, denoiser(noised(), SIGMA))
    for guide, gradient in zip(guides, together, strict=True):
        _, (alone,) = denoiser.with_gradients(noised(), SIGMA, [guide])
        torch.testing.assert_close(gradient, alone, rtol=1e-5, atol=1e-6)
        assert gradient.any() and not gradient.requires_grad


@torch.no_grad()
def test_the_shift_of_two_guides_is_the_sum_of_their_shifts(tiny_model: ScoreModel) -> None:
    denoiser, plain = Conditioned(tiny_model, LABEL), Conditioned(tiny_model, LABEL)(noised(), SIGMA)
    parts = [(LabelGuide(tiny_model.classifier, LABEL), GuidanceSchedule(1.5)), (Loudness(3.0, "estimate"), GuidanceSchedule(4.0))]
    shifts = [ClassifierGuidance(denoiser, (part,))(noised(), SIGMA) - plain for part in parts]
    both = ClassifierGuidance(denoiser, tuple(parts))(noised(), SIGMA)  # type: ignore[arg-type]
    torch.testing.assert_close(both - plain, shifts[0] + shifts[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_label_guides_of_the_models_own_classifier_share_its_forward(
    tiny_model: ScoreModel, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *inputs: calls.append(name) or run(*inputs)

    other = build_classifier(tiny_recipe, 3).eval()
    monkeypatch.setattr(tiny_model.classifier.network, "forward", counted("own", tiny_model.classifier.network.forward))
    monkeypatch.setattr(other, "forward", counted("other", other.forward))
    guides = [LabelGuide(tiny_model.classifier, LABEL), LabelGuide(tiny_model.classifier, LABEL.roll(1)), LabelGuide(other, LABEL)]
    Conditioned(tiny_model, LABEL).with_gradients(noised(), SIGMA, guides)
    assert sorted(calls) == ["other", "own"]


# shares of several labels


def test_shares_are_the_mean_of_the_labels_guides_and_a_share_of_one_is_the_label() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    seen = Evaluation(noised(), SIGMA, classifier=None, logits=logits)

    def log_probability(label: Tensor) -> Tensor:
        return LabelGuide(None, label).log_probability(seen)  # type: ignore[arg-type]

    halves = torch.tensor([[0.5, 0.5, 0.0]] * 3)
    hard = [log_probability(torch.full((3,), label)) for label in range(3)]
    torch.testing.assert_close(log_probability(halves), (hard[0] + hard[1]) / 2)
    for label in range(3):
        assert torch.equal(log_probability(torch.eye(3)[[label] * 3]), hard[label])


def test_shares_guide_to_where_the_classifier_gives_each_label_its_share() -> None:
    """Three labels, their logits linear in the data: followed to its end, the guide finds p = shares."""
    weights, shares = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]), torch.tensor([[0.5, 0.4, 0.1]])
    x = torch.zeros(1, 2, requires_grad=True)

    def classifier(noised: Tensor, sigma: Tensor) -> Tensor:
        return noised @ weights.T

    for _ in range(2000):
        guide = LabelGuide(classifier, shares)
        (gradient,) = torch.autograd.grad(guide.log_probability(Evaluation(x, torch.ones(1))).sum(), x)
        x = (x + 0.5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(torch.softmax(classifier(x, x), dim=1), shares, atol=1e-3, rtol=0)
