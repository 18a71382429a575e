"""guidance.py: on a labelled Gaussian mixture, denoiser, posterior and conditional denoiser are all known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from duovox.config import NoiseConfig
from duovox.contracts import Evaluation, Guide, GuideAt, GuideError
from duovox.diffusion.guidance import ClassifierGuidance, Guidable, GuidanceSchedule
from duovox.diffusion.ideal import IdealDenoiser
from duovox.diffusion.noise import sigma_grid
from duovox.diffusion.sampler import heun

MEANS = torch.tensor([[2.0, 1.0], [-2.0, 1.5], [0.5, -2.5]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)
PRIOR = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


class Mixture:
    """Label k has the clean points N(MEANS[k], STDS[k]^2) of shape (1, 1, 2), drawn with probability PRIOR[k]."""

    def __init__(self, label: Tensor) -> None:
        self.label = label
        self.plain_calls = self.gradient_calls = 0

    @staticmethod
    def log_joint(noised: Tensor, sigma: Tensor) -> Tensor:
        """log p(label) + log p(noised | label) for every label, (B, 3)."""
        variance = STDS.square() + sigma.square()[:, None]
        distance = (noised.reshape(-1, 1, 2) - MEANS).square().sum(dim=2)
        return PRIOR.log() - variance.log() - distance / (2 * variance)

    @staticmethod
    def conditional(noised: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | noised, label] for every label, (B, 3, 2)."""
        data, noise = STDS.square()[:, None], sigma.square()[:, None, None]
        return (data * noised.reshape(-1, 1, 2) + noise * MEANS) / (data + noise)

    def own(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """The exact conditional denoiser of each item's label."""
        return self.conditional(noised, sigma)[torch.arange(len(noised)), self.label].reshape(noised.shape)

    def _unconditional(self, noised: Tensor, sigma: Tensor) -> Tensor:
        posterior = self.log_joint(noised, sigma).softmax(dim=1)
        return (posterior[:, :, None] * self.conditional(noised, sigma)).sum(dim=1).reshape(noised.shape)

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        self.plain_calls += 1
        return self._unconditional(noised, sigma)

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        self.gradient_calls += 1
        return Guidable(self._unconditional).with_gradients(noised, sigma, guides)


@dataclass(frozen=True)
class Posterior:
    """The exact guide: log p(label in `wanted` | noised), one set of labels for each item, (B, 3) of bools."""

    wanted: Tensor
    at: GuideAt = "noised"

    def log_probability(self, seen: Evaluation) -> Tensor:
        posterior = Mixture.log_joint(seen.noised, seen.sigma).log_softmax(dim=1)
        return torch.where(self.wanted, posterior, -torch.inf).logsumexp(dim=1)


def one_hot(label: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(label, 3).bool()


def guided(mixture: Mixture, schedule: GuidanceSchedule) -> ClassifierGuidance:
    """Towards the label of each item."""
    return ClassifierGuidance(mixture, ((Posterior(one_hot(mixture.label)), schedule),))


LABEL = torch.tensor([0, 1, 2, 0, 1, 2])


def points(sigma: Tensor) -> Tensor:
    return 3 * torch.randn(len(sigma), 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (1 + sigma[0])


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_at_gamma_one_guidance_gives_the_conditional_denoiser(sigma: float) -> None:
    """Bayes: grad log p(noised) + grad log p(label | noised) = grad log p(noised | label)."""
    sigmas = torch.full((6,), sigma, dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    torch.testing.assert_close(guided(mixture, GuidanceSchedule(1.0))(noised, sigmas), mixture.own(noised, sigmas), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_two_guides_at_gamma_one_give_what_both_know(sigma: float) -> None:
    """One guide says "label 0 or 1", another "label 1, given 0 or 1": together they say label 1, and that is exact."""

    @dataclass(frozen=True)
    class Within:
        at: GuideAt = "noised"

        def log_probability(self, seen: Evaluation) -> Tensor:
            return Mixture.log_joint(seen.noised, seen.sigma)[:, :2].log_softmax(dim=1)[:, 1]

    sigmas = torch.full((6,), sigma, dtype=torch.float64)
    mixture, noised = Mixture(torch.ones(6, dtype=torch.long)), points(sigmas)
    either = Posterior(torch.tensor([[True, True, False]]).expand(6, 3))
    both = ClassifierGuidance(mixture, ((either, GuidanceSchedule(1.0)), (Within(), GuidanceSchedule(1.0))))
    torch.testing.assert_close(both(noised, sigmas), mixture.own(noised, sigmas), rtol=0, atol=1e-5)
    assert mixture.gradient_calls == 1


def test_a_guide_at_gamma_zero_is_not_asked() -> None:
    sigmas = torch.full((6,), 1.0, dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    own = Posterior(one_hot(LABEL))
    alone = ClassifierGuidance(mixture, ((own, GuidanceSchedule(2.0)),))(noised, sigmas)
    silent = ClassifierGuidance(mixture, ((own, GuidanceSchedule(2.0)), (None, GuidanceSchedule(0.0))))  # type: ignore[arg-type]
    assert torch.equal(silent(noised, sigmas), alone)


def test_every_item_has_its_own_sigma() -> None:
    sigmas = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    torch.testing.assert_close(guided(mixture, GuidanceSchedule(1.0))(noised, sigmas), mixture.own(noised, sigmas), rtol=0, atol=1e-5)


def test_gamma_scales_the_gradient() -> None:
    """Guidance is affine in gamma: at 3 it goes three times as far from the unguided denoiser as at 1."""
    sigmas = torch.full((6,), 1.0, dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    plain = mixture(noised, sigmas)
    torch.testing.assert_close(guided(mixture, GuidanceSchedule(3.0))(noised, sigmas) - plain, 3 * (mixture.own(noised, sigmas) - plain))


def test_gamma_zero_costs_no_gradient() -> None:
    sigmas = torch.full((6,), 1.0, dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    assert torch.equal(guided(mixture, GuidanceSchedule(0.0))(noised, sigmas), Mixture(LABEL)(noised, sigmas))
    assert (mixture.plain_calls, mixture.gradient_calls) == (1, 0)


def test_the_interval_holds_for_each_item() -> None:
    """Both ends belong to it; an item outside gets the unguided denoised beside guided neighbours."""
    sigmas = torch.tensor([0.49, 0.5, 1.0, 2.0, 2.01, 30.0], dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    found = guided(mixture, GuidanceSchedule(1.0, low=0.5, high=2.0))(noised, sigmas)
    inside = torch.tensor([False, True, True, True, False, False])
    torch.testing.assert_close(found[inside], mixture.own(noised, sigmas)[inside])
    assert torch.equal(found[~inside], mixture(noised, sigmas)[~inside])


def test_a_schedule_weighs_gamma_by_its_share_of_the_variance() -> None:
    """At sigma = sigma_data half of the noised mel is noise; early and late add up to the constant schedule."""
    sigma = torch.tensor([1e-3, 0.5, 1e3])
    early, late = (GuidanceSchedule(4.0, schedule=name, sigma_data=0.5).at(sigma) for name in ("early", "late"))
    torch.testing.assert_close(early, torch.tensor([0.0, 2.0, 4.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(early + late, GuidanceSchedule(4.0).at(sigma))
    assert GuidanceSchedule(4.0, low=0.4, high=0.6, schedule="late").at(sigma).tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("sigma", [0.4, 2.1])
def test_outside_the_interval_no_gradient_is_computed(sigma: float) -> None:
    sigmas = torch.full((6,), sigma, dtype=torch.float64)
    mixture, noised = Mixture(LABEL), points(sigmas)
    assert torch.equal(guided(mixture, GuidanceSchedule(3.0, low=0.5, high=2.0))(noised, sigmas), Mixture(LABEL)(noised, sigmas))
    assert (mixture.plain_calls, mixture.gradient_calls) == (1, 0)


def test_inside_the_interval_one_call_serves_both() -> None:
    mixture, sigmas = Mixture(LABEL), torch.full((6,), 1.0, dtype=torch.float64)
    guided(mixture, GuidanceSchedule(3.0))(points(sigmas), sigmas)
    assert (mixture.plain_calls, mixture.gradient_calls) == (0, 1)


def test_guided_sampling_draws_the_label_it_was_told() -> None:
    """900 points through Heun at gamma 1: each label's points have its mean and its standard deviation."""
    label = torch.arange(3).repeat(300)
    config = NoiseConfig(sigma_min=0.005)
    noised = config.sigma_max * torch.randn(900, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = heun(guided(Mixture(label), GuidanceSchedule(1.0)), noised, sigma_grid(60, config)).reshape(900, 2)
    assert torch.equal(torch.cdist(ends, MEANS).argmin(dim=1), label)
    for k in range(3):
        own = ends[label == k]
        torch.testing.assert_close(own.mean(dim=0), MEANS[k], rtol=0, atol=5 * STDS[k].item() / math.sqrt(300))
        torch.testing.assert_close(own.std(dim=0), STDS[k].expand(2), rtol=0.15, atol=0)


def test_unguided_sampling_draws_the_labels_as_often_as_they_come() -> None:
    """The same machine at gamma 0 gives the mixture itself: the guided test does not pass by a lucky start."""
    config = NoiseConfig(sigma_min=0.005)
    noised = config.sigma_max * torch.randn(900, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = heun(guided(Mixture(torch.zeros(900, dtype=torch.long)), GuidanceSchedule(0.0)), noised, sigma_grid(60, config)).reshape(900, 2)
    share = torch.cdist(ends, MEANS).argmin(dim=1).bincount(minlength=3) / 900
    torch.testing.assert_close(share.double(), PRIOR, rtol=0, atol=4 * 0.5 / math.sqrt(900))


# Caps


@dataclass(frozen=True)
class Line:
    """A guide that wants the estimate along `direction` (2,): its gradient through the ideal denoiser is Cov(clean) direction / sigma^2."""

    direction: Tensor
    at: GuideAt = "estimate"

    def log_probability(self, seen: Evaluation) -> Tensor:
        assert seen.denoised is not None
        return (seen.denoised * self.direction).flatten(1).sum(dim=1)


POINTS = torch.tensor([[2.0, 0.0], [-2.0, 0.5], [0.0, -1.0]], dtype=torch.float64).reshape(3, 1, 1, 2)


def posterior_shift(noised: Tensor, sigma: Tensor, direction: Tensor) -> Tensor:
    """sigma^2 d(direction . estimate) / d noised = Cov(clean | noised) direction, from the three points by hand."""
    clean = POINTS.reshape(3, 2)
    distance = (noised.reshape(-1, 1, 2) - clean).square().sum(dim=2)
    weights = (-distance / (2 * sigma.square()[:, None])).softmax(dim=1)
    centred = clean - (weights @ clean)[:, None]
    return torch.einsum("bk,bki,bkj,j->bi", weights, centred, centred, direction).reshape(noised.shape)


def test_a_guide_at_the_estimate_shifts_by_the_posterior_covariance() -> None:
    sigma, direction = torch.full((6,), 1.0, dtype=torch.float64), torch.tensor([0.6, -0.8], dtype=torch.float64)
    ideal, noised = IdealDenoiser(POINTS), points(sigma)
    found = ClassifierGuidance(Guidable(ideal), ((Line(direction), GuidanceSchedule(2.0)),))(noised, sigma)
    torch.testing.assert_close(found - ideal(noised, sigma), 2 * posterior_shift(noised, sigma, direction))


def test_a_cap_limits_the_root_mean_square_of_each_items_shift_and_keeps_its_direction() -> None:
    sigma, direction = torch.full((6,), 1.0, dtype=torch.float64), torch.tensor([0.6, -0.8], dtype=torch.float64)
    ideal, noised = IdealDenoiser(POINTS), points(sigma)
    free = 2 * posterior_shift(noised, sigma, direction)
    size = free.square().mean(dim=(1, 2, 3)).sqrt()
    cap = float(size.sort().values[3])
    found = ClassifierGuidance(Guidable(ideal), ((Line(direction), GuidanceSchedule(2.0, cap=cap)),))(noised, sigma) - ideal(noised, sigma)
    expected = free * (cap / size).clamp(max=1).reshape(6, 1, 1, 1)
    torch.testing.assert_close(found, expected)
    assert 0 < int((size > cap).sum()) < 6


def test_a_cap_of_one_guide_leaves_the_others_alone() -> None:
    sigma, direction = torch.full((6,), 1.0, dtype=torch.float64), torch.tensor([0.6, -0.8], dtype=torch.float64)
    ideal, noised = Guidable(IdealDenoiser(POINTS)), points(sigma)
    parts = [(Line(direction), GuidanceSchedule(1.0)), (Line(direction.flip(0)), GuidanceSchedule(5.0, cap=0.1))]
    alone = [ClassifierGuidance(ideal, (part,))(noised, sigma) - ideal(noised, sigma) for part in parts]
    both = ClassifierGuidance(ideal, tuple(parts))(noised, sigma) - ideal(noised, sigma)  # type: ignore[arg-type]
    torch.testing.assert_close(both, alone[0] + alone[1])


def test_guides_without_a_cap_are_differentiated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three guides, one capped, at two places: one backward for those at the noised data, one for the free and one for the capped one at
    the estimate; the shift is the sum of what each does alone."""
    sigma, label = torch.full((6,), 1.0, dtype=torch.float64), Posterior(one_hot(LABEL))
    mixture, noised = Mixture(LABEL), points(sigma)
    parts: list[tuple[Guide, GuidanceSchedule]] = [
        (label, GuidanceSchedule(1.0)),
        (Posterior(one_hot(LABEL.roll(1))), GuidanceSchedule(0.5)),
        (Line(torch.ones(2, dtype=torch.float64)), GuidanceSchedule(1.0)),
        (Line(torch.ones(2, dtype=torch.float64)), GuidanceSchedule(1.0, cap=0.05)),
    ]
    alone = [ClassifierGuidance(mixture, (part,))(noised, sigma) - mixture(noised, sigma) for part in parts]
    backwards: list[int] = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *inputs, **options: backwards.append(1) or grad(*inputs, **options))  # type: ignore[func-returns-value]
    together = ClassifierGuidance(mixture, tuple(parts))(noised, sigma) - mixture(noised, sigma)
    torch.testing.assert_close(together, sum(alone))
    assert len(backwards) == 3


@dataclass(frozen=True)
class Lost:
    """A guide whose gradient is no number for the items `where`."""

    where: Tensor
    at: GuideAt = "noised"

    def __str__(self) -> str:
        return "the guide lost-x"

    def log_probability(self, seen: Evaluation) -> Tensor:
        total = seen.noised.flatten(1).sum(dim=1)
        return torch.where(self.where, 0 * total, total.square() + 1).sqrt()


def test_a_gradient_that_is_no_number_is_one_line_with_guide_and_level() -> None:
    sigma = torch.full((6,), 40.0, dtype=torch.float64)
    guidance = ClassifierGuidance(Mixture(LABEL), ((Lost(LABEL == 1), GuidanceSchedule(1.0, cap=0.3)),))
    with pytest.raises(
        GuideError, match=r"^the guide lost-x gives no finite gradient at noise level 40; let it guide at lower noise alone"
    ):
        guidance(points(sigma), sigma)


def test_an_item_whose_scale_is_zero_or_that_ran_off_is_not_the_guides_fault() -> None:
    sigma = torch.tensor([1.0, 1.0, 1.0, 40.0, 1.0, 40.0], dtype=torch.float64)
    noised = points(torch.ones(6, dtype=torch.float64))
    noised[0] = torch.nan
    lost = Lost(torch.tensor([True, False, False, True, False, True]))
    plain = Mixture(LABEL)(noised, sigma)
    found = ClassifierGuidance(Mixture(LABEL), ((lost, GuidanceSchedule(1.0, high=10.0, cap=0.3)),))(noised, sigma)
    assert torch.equal(found[[3, 5]], plain[[3, 5]]) and found[[1, 2, 4]].isfinite().all()
    torch.testing.assert_close((found - plain)[[1, 2, 4]].square().mean(dim=(1, 2, 3)).sqrt(), torch.full((3,), 0.3, dtype=torch.float64))
