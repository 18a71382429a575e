"""guides.py: label guides at the noised mel and at the estimate, their temperatures, several at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import label_gradient
from torch import Tensor

from duovox.config import Calibration, MelScale, Recipe
from duovox.contracts import Evaluation, GuideAt, GuideError
from duovox.diffusion.guidance import ClassifierGuidance, Guidable, GuidanceSchedule
from duovox.diffusion.ideal import IdealDenoiser
from duovox.guides import (
    CosineClassifier,
    FunctionGuide,
    LabelGuide,
    NamedGuide,
    Rescaled,
    TargetGuide,
    log_others,
    log_target,
    temperature_at,
    weights_of,
)
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


# Targets


def logits_of(count: int = 5, labels: int = 4) -> Tensor:
    return 3 * torch.randn(count, labels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_target_of_one_label_is_the_label_guide() -> None:
    logits, label = logits_of(), torch.tensor([0, 1, 2, 3, 0])
    weights = torch.nn.functional.one_hot(label, 4).double()
    torch.testing.assert_close(log_target(logits, weights), logits.log_softmax(1).gather(1, label[:, None])[:, 0])


def test_a_soft_target_is_reached_where_the_probabilities_are_in_its_proportion() -> None:
    """Gradient ascent on the logits ends at p = weights: {"a": 0.75, "b": 0.25} wants three times as much of a as of b, and no others."""
    logits, weights = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0.75, 0.25, 0.0, 0.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(log_target(logits, weights).sum(), logits)
    torch.testing.assert_close(gradient, (weights - logits.softmax(1)).detach())


def test_a_negative_weight_is_the_probability_of_all_others() -> None:
    logits = logits_of()
    found = log_target(logits, torch.tensor([0.0, 0.0, -2.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found, 2 * torch.log(1 - logits.softmax(1)[:, 2]))


def test_the_probability_of_all_others_is_exact_where_one_is_certain() -> None:
    certain = torch.tensor([[200.0, 0.0, 0.0]], dtype=torch.float64).log_softmax(1)
    torch.testing.assert_close(log_others(certain)[0, 0], torch.tensor(-200.0 + torch.tensor(2.0).log().item(), dtype=torch.float64))


def test_a_target_may_want_one_and_keep_away_from_another() -> None:
    logits = logits_of()
    p = logits.softmax(1)
    found = log_target(logits, torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found, p[:, 0].log() + (1 - p[:, 2]).log())


def test_impossible_labels_that_nobody_wants_do_no_harm() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.5]], requires_grad=True)
    value = log_target(logits, torch.tensor([1.0, 0.0, 0.0]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all() and gradient.isfinite().all()


@torch.no_grad()
def test_the_same_weights_serve_every_item(tiny_model: ScoreModel) -> None:
    """(K,) is (B, K) with equal rows, and a target of one label is the label guide, through the whole model."""
    one = torch.tensor([1.0, 0.0, 0.0])
    guides = [
        TargetGuide(tiny_model.classifier, one, "noised"),
        TargetGuide(tiny_model.classifier, one.expand(3, 3), "noised"),
        LabelGuide(tiny_model.classifier, torch.zeros(3, dtype=torch.long)),
    ]
    _, (narrow, wide, label) = Conditioned(tiny_model).with_gradients(noised(), SIGMA, guides)
    torch.testing.assert_close(narrow, wide)
    torch.testing.assert_close(narrow, label)


def test_weights_stand_at_their_labels_and_background_has_none() -> None:
    assert weights_of({"b": -1.0, "a": 0.5}, ("a", "b", "c"), 5).tolist() == [0.5, -1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 50.0])
def test_two_targets_at_gamma_one_give_the_ideal_denoiser_of_what_both_want(sigma: float) -> None:
    """Data of four points, the classifier's posterior known exactly. "Not the points 2 and 3" and "point 1, of 0 and 1" together leave
    point 1 alone, so the guided denoiser gives it from wherever the noise is."""
    data = torch.tensor([[2.0, 1.0], [-2.0, 1.5], [0.5, -2.5], [1.0, 3.0]], dtype=torch.float64).reshape(4, 1, 1, 2)
    sigmas = torch.full((6,), sigma, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noised = data[[0, 1, 2, 3, 0, 1]] + sigma * torch.randn(6, 1, 1, 2, generator=generator, dtype=torch.float64)

    def posterior(noised: Tensor, sigma: Tensor) -> Tensor:
        """Logits of "one of 0 and 1", 2, 3."""
        each = -(noised.flatten(1)[:, None] - data.flatten(1)).square().sum(dim=2) / (2 * sigma.square()[:, None])
        return torch.cat([each[:, :2].logsumexp(dim=1, keepdim=True), each[:, 2:]], dim=1)

    def of_two(noised: Tensor, sigma: Tensor) -> Tensor:
        return -(noised.flatten(1)[:, None] - data[:2].flatten(1)).square().sum(dim=2) / (2 * sigma.square()[:, None])

    neither = TargetGuide(posterior, torch.tensor([1.0, 0.0, 0.0]), "noised")
    second = TargetGuide(of_two, torch.tensor([-1.0, 0.0]), "noised")  # away from 0, of 0 and 1
    guidance = ClassifierGuidance(Guidable(IdealDenoiser(data)), ((neither, GuidanceSchedule(1.0)), (second, GuidanceSchedule(1.0))))
    torch.testing.assert_close(guidance(noised, sigmas), data[[1] * 6], rtol=0, atol=1e-6)


# Embeddings, functions, other scales


def test_cosine_logits_are_those_of_directions() -> None:
    anchors = torch.tensor([[3.0, 0.0], [0.0, 5.0], [-1.0, -1.0]])
    classifier = CosineClassifier(lambda mel, sigma: mel[:, 0, 0, :2], anchors)
    found = classifier(torch.tensor([[[[2.0, 0.0, 9.0]]], [[[1.0, 1.0, 9.0]]]]), torch.ones(2))
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, -half], [half, half, -1.0]]))


def test_a_classifier_of_another_scale_hears_the_same_sound_at_its_own_noise_level() -> None:
    """Noised data of our scale and its scale are the same log-mel, with noise of the same size in it."""
    own, given = MelScale("standard", -5.0, 2.0), MelScale("standard", -3.0, 4.0)
    log_mel, eps, sigma = 2 * noised(), noised().flip(0), SIGMA
    heard: list[Tensor] = []

    class Keep(torch.nn.Module):
        def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
            heard.extend((noised, sigma))
            return noised.mean(dim=(2, 3))

    ours = (log_mel - given.shift) / given.scale + sigma.reshape(3, 1, 1, 1) * eps
    Rescaled(Keep(), own, given)(ours, sigma)
    theirs = (log_mel - own.shift) / own.scale + (sigma * given.scale / own.scale).reshape(3, 1, 1, 1) * eps
    torch.testing.assert_close(heard[0], theirs)
    torch.testing.assert_close(heard[1], sigma * 2)


def test_a_function_sees_the_log_mel() -> None:
    guide = FunctionGuide(lambda log_mel: log_mel.mean(dim=(1, 2, 3)), MelScale("standard", -5.0, 2.0))
    mels = noised()
    torch.testing.assert_close(guide.log_probability(Evaluation(mels, SIGMA, mels)), (2 * mels - 5).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("function", [lambda x: x.mean(), lambda x: x.mean((2, 3)), lambda x: 3.0])
def test_a_function_must_give_a_value_a_clip(function: Callable[[Tensor], Tensor]) -> None:
    mels = noised()
    with pytest.raises(GuideError, match=r"must give one value a clip, a tensor of shape \(3,\), not"):
        FunctionGuide(function, MelScale()).log_probability(Evaluation(mels, SIGMA, mels))


def test_values_that_have_no_gradient_are_told_with_the_guides_name() -> None:
    guide = NamedGuide("deaf", FunctionGuide(lambda x: x.detach().mean((1, 2, 3)), MelScale()))
    mels = noised().requires_grad_()
    with pytest.raises(GuideError, match=r"^the guide deaf gives values from which no gradient leads back"):
        guide.log_probability(Evaluation(mels, SIGMA, mels))


def test_nan_is_told_with_the_guides_name_and_the_noise_level() -> None:
    class Breaks(torch.nn.Module):
        def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
            return noised.mean(dim=(2, 3)) * torch.tensor([[1.0, 2.0]]) + torch.where(SIGMA > 5, torch.nan, 0.0)[:, None]

    guide = NamedGuide("pitch-low", TargetGuide(Breaks(), torch.tensor([1.0, 0.0])))
    with pytest.raises(GuideError, match=r"^the guide pitch-low answers NaN at noise level 20; let it guide at lower noise alone"):
        guide.log_probability(Evaluation(noised(), SIGMA, noised()))
    lost = noised()
    lost[2] = torch.nan  # an item that ran off by itself
    assert guide.log_probability(Evaluation(lost, SIGMA, lost))[:2].isfinite().all()
