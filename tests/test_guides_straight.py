"""guides.py, straight guides: exact for normal data, a known share of the exact shift for points, and no backward through the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from duovox.bundle import Bundle
from duovox.contracts import ConfigError, Evaluation, Guide, GuideAt, GuideError
from duovox.costs import guided_gmacs
from duovox.diffusion.guidance import ClassifierGuidance, Guidable, GuidanceSchedule
from duovox.diffusion.ideal import IdealDenoiser
from duovox.guides import LabelGuide, StraightGuide
from duovox.model import Conditioned, ScoreModel
from duovox.voice import Duovox

SPREAD = 0.5
"""Standard deviation of the normal data."""


@dataclass(frozen=True, eq=False)
class Tilt:
    """log p(wanted | clean) = slope . clean, whose guidance at gamma 1 is exact: normal data tilted by it are normal data moved."""

    slope: Tensor
    at: GuideAt = "estimate"

    def log_probability(self, seen: Evaluation) -> Tensor:
        assert seen.denoised is not None
        return (seen.denoised * self.slope).flatten(1).sum(dim=1)


def normal(noised: Tensor, sigma: Tensor) -> Tensor:
    """The ideal denoiser of N(0, SPREAD^2)."""
    return noised * (SPREAD**2 / (SPREAD**2 + sigma.square())).reshape(-1, 1, 1, 1)


def drawn(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noised, slope = (torch.randn(size, 1, 2, 3, generator=generator, dtype=torch.float64) for size in (count, 1))
    return noised, torch.tensor([0.05, 0.4, 2.0, 30.0], dtype=torch.float64)[:count], slope


@pytest.mark.parametrize("straight", [False, True])
def test_for_normal_data_both_ways_give_the_denoiser_of_what_is_wanted(straight: bool) -> None:
    """Tilted by exp(slope . clean), N(0, s^2) becomes N(s^2 slope, s^2), whose denoiser is that of the plain data, moved by
    sigma^2 s^2 / (sigma^2 + s^2) slope."""
    noised, sigma, slope = drawn()
    tilt = Tilt(slope)
    guide: Guide = StraightGuide(tilt, SPREAD) if straight else tilt
    found = ClassifierGuidance(Guidable(normal), ((guide, GuidanceSchedule(1.0)),))(noised, sigma)
    variance = (sigma.square() * SPREAD**2 / (sigma.square() + SPREAD**2)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found, normal(noised, sigma) + variance * slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_for_two_points_the_shifts_are_in_the_proportion_of_the_variances(sigma: float) -> None:
    """Halfway between the points -a and a the posterior's variance is a^2 (the ideal denoiser knows), the straight guide takes it for
    sigma^2 a^2 / (sigma^2 + a^2)."""
    a = 0.5
    denoiser = Guidable(IdealDenoiser(torch.tensor([[-a], [a]], dtype=torch.float64).reshape(2, 1, 1, 1)))
    noised, level = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
    tilt = Tilt(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    shifts = [ClassifierGuidance(denoiser, ((guide, GuidanceSchedule(1.0)),))(noised, level) for guide in (tilt, StraightGuide(tilt, a))]
    assert shifts[0].item() == pytest.approx(a**2, rel=1e-9)
    assert shifts[1].item() == pytest.approx(sigma**2 * a**2 / (sigma**2 + a**2), rel=1e-9)


def test_straight_guides_and_others_share_a_forward_and_each_gives_what_it_gives_alone(tiny_model: ScoreModel) -> None:
    label, sigma = torch.tensor([0, 1, 2]), torch.tensor([0.1, 1.0, 20.0])
    noised = 2 * torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    through = LabelGuide(tiny_model.classifier, label, "estimate")
    guides: list[Guide] = [LabelGuide(tiny_model.classifier, label.roll(1)), StraightGuide(through, 0.5), through]
    denoiser = Conditioned(tiny_model, label)
    for chosen in (guides, guides[:2], guides[1:], guides[1:2]):
        denoised, together = denoiser.with_gradients(noised, sigma, chosen)
        torch.testing.assert_close(denoised, denoiser(noised, sigma), rtol=1e-5, atol=1e-6)
        for guide, gradient in zip(chosen, together, strict=True):
            _, (alone,) = denoiser.with_gradients(noised, sigma, [guide])
            torch.testing.assert_close(gradient, alone, rtol=1e-4, atol=1e-6)
            assert gradient.any() and not gradient.requires_grad


def test_a_straight_guide_asks_for_no_graph_of_the_denoiser(monkeypatch: pytest.MonkeyPatch, tiny_model: ScoreModel) -> None:
    graphs: list[bool] = []
    plain = ScoreModel.denoise

    def watched(self: ScoreModel, *given: Any) -> Tensor:
        found = plain(self, *given)
        graphs.append(found.requires_grad)
        return found

    monkeypatch.setattr(ScoreModel, "denoise", watched)
    label = torch.zeros(1, dtype=torch.long)
    guide = LabelGuide(tiny_model.classifier, label, "estimate")
    for asked in (StraightGuide(guide, 0.5), guide):
        Conditioned(tiny_model, label).with_gradients(torch.ones(1, 1, 16, 16), torch.ones(1), [asked])
    assert graphs == [False, True]


def test_a_straight_guide_costs_less(tiny_model: ScoreModel) -> None:
    guide = LabelGuide(tiny_model.classifier, torch.zeros(1, dtype=torch.long), "estimate")
    plain, straight, through = (guided_gmacs(tiny_model, "noised", more) for more in ((), (StraightGuide(guide, 0.5),), (guide,)))
    assert plain < straight < through


# As a setting


@pytest.mark.usefixtures("anything_is_speech")
def test_the_way_is_a_setting_of_a_guide_and_stands_in_the_record(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    common: dict[str, Any] = {"at": "estimate", "gamma": 3.0, "interval": (0.05, 10)}
    clips = {way: voice.generate("low", guides=[voice.guide("own", "high", way=way, **common)])[0] for way in ("through", "straight")}
    assert [clip.guides[0].strength.way for clip in clips.values()] == ["through", "straight"]
    assert abs(clips["through"].wave - clips["straight"].wave).max() > 1e-4


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda voice: voice.guide("own", "high", way="straight", at="noised"), ConfigError, "straight is for guides at the estimate"),
        (lambda voice: voice.guide("own", "high", way="around", at="estimate"), ConfigError, "way"),
        (
            lambda voice: voice.generate(
                "low", guides=[voice.function_guide(lambda mel: mel.mean(dim=(1, 2, 3)).sqrt(), "root", way="straight")]
            ),
            GuideError,
            "the guide root answers NaN at noise level",
        ),
    ],
)
def test_mistakes_are_one_line(tiny_bundle: Bundle, make: Callable[[Duovox], Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        make(Duovox(tiny_bundle))
    assert "\n" not in str(caught.value)
