"""model.py: classifier, taps and subnet as one denoiser, and a classifier that no training of the subnet can change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from conftest import label_gradient
from torch import Tensor, nn

from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe, UNetConfig, read_recipe
from duovox.contracts import GuideAt, ShapeError
from duovox.diffusion.noise import precondition
from duovox.diffusion.taps import NO_LABEL, read_taps
from duovox.model import Conditioned, ScoreModel, build_classifier, build_model, nearest_stage, place_taps, tap_shapes
from duovox.networks.base import TappedClassifier
from duovox.networks.scoresubnet import TapShape
from duovox.networks.unet import UNet

SIGMA = torch.tensor([0.1, 1.0, 20.0])
LABEL = torch.tensor([0, 1, 2])
MakeModel = Callable[[Recipe], ScoreModel]


def noised(count: int = 3) -> Tensor:
    return 2 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def with_taps(recipe: Recipe, gradient_taps: Literal["none", "logsumexp", "label"]) -> Recipe:
    return replace(recipe, subnet=replace(recipe.subnet, gradient_taps=gradient_taps))


def test_tap_shapes_of_the_compact_recipe() -> None:
    """80 x 64 under 2 x 2 patches and three halvings: stem and first stage share a size, last stage and bottleneck too."""
    recipe = read_recipe("compact")
    classifier = build_classifier(recipe, 3)
    shapes, patch = tap_shapes(classifier, classifier.tap_names, recipe.mel, 4)
    assert patch == 2
    assert shapes == (
        TapShape(64, 40, 32, 0),
        TapShape(64, 40, 32, 0),
        TapShape(96, 20, 16, 1),
        TapShape(128, 10, 8, 2),
        TapShape(160, 5, 4, 3),
        TapShape(160, 5, 4, 3),
    )


def test_taps_have_the_announced_shapes(tiny_model: ScoreModel) -> None:
    taps = tiny_model.taps(noised(), SIGMA)
    announced = [(3, s.channels, s.rows, s.columns) for s in tiny_model.score_network.shapes]
    assert [tuple(a.shape) for a in taps.activations] == announced
    assert [tuple(g.shape) for g in taps.gradients or ()] == announced


@pytest.mark.parametrize("score_model", ["subnet", "unet"])
@pytest.mark.parametrize("at", ["noised", "estimate"])
def test_channels_last_is_the_same_model(
    tiny_recipe: Recipe, make_model: MakeModel, score_model: Literal["subnet", "unet"], at: GuideAt
) -> None:
    """Every convolution of ours lies so, and denoised and guidance are those of the default layout."""
    recipe = replace(tiny_recipe, score_model=score_model, unet=UNetConfig(2, (8, 12), (8, 12), 1, 1, 16, 4))
    usual, model = make_model(recipe), make_model(recipe).to_channels_last()
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.ndim == 4)
    for ours, wanted in zip(
        label_gradient(model, LABEL, noised(), SIGMA, at), label_gradient(usual, LABEL, noised(), SIGMA, at), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_classifier_of_someone_else_s_keeps_its_layout(tiny_recipe: Recipe) -> None:
    class Theirs(TappedClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 4, 3)

        def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
            return self.layer(noised).mean(dim=(2, 3))

    unet = UNet(UNetConfig(2, (8, 12), (8, 12), 1, 1, 16, 4))
    model = ScoreModel(Theirs(), unet, tiny_recipe.mel, tiny_recipe.noise).to_channels_last()
    assert model.classifier.network.layer.weight.is_contiguous()
    assert unet.stem.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["edm", "vp"])
def test_denoised_is_the_preconditioned_output(tiny_recipe: Recipe, make_model: MakeModel, kind: Literal["edm", "vp"]) -> None:
    """EDM eq. 7, item by item."""
    model = make_model(replace(tiny_recipe, noise=replace(tiny_recipe.noise, kind=kind)))
    c = precondition(SIGMA, model.noise)
    with torch.no_grad():
        denoised = model(noised(), SIGMA)
        network = model.score_network(noised(), c, model.taps(noised(), SIGMA))
    assert network.abs().min(dim=3).values.max() > 1e-3
    for i in range(3):
        torch.testing.assert_close(denoised[i], c.c_skip[i] * noised()[i] + c.c_out[i] * network[i])


def test_a_fresh_model_denoises_as_if_the_data_were_gaussian(tiny_recipe: Recipe, make_model: MakeModel) -> None:
    model = make_model(tiny_recipe)
    torch.nn.init.zeros_(model.score_network.head[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.score_network.head[-1].bias)  # type: ignore[arg-type]
    expected = 0.25 / (0.25 + SIGMA.square())
    torch.testing.assert_close(model(noised(), SIGMA), expected[:, None, None, None] * noised())


@pytest.mark.parametrize(("gradient_taps", "matters"), [("none", False), ("logsumexp", False), ("label", True)])
@torch.no_grad()
def test_the_label_enters_the_score_through_label_taps_alone(
    tiny_recipe: Recipe, make_model: MakeModel, gradient_taps: Literal["none", "logsumexp", "label"], matters: bool
) -> None:
    model = make_model(with_taps(tiny_recipe, gradient_taps))
    one, other = (Conditioned(model, label)(noised(), SIGMA) for label in (LABEL, LABEL.roll(1)))
    assert torch.equal(one, other) != matters
    assert torch.equal(one, model(noised(), SIGMA)) != matters
    assert (model.taps(noised(), SIGMA, label=LABEL).gradients is None) == (gradient_taps == "none")


@torch.no_grad()
def test_without_a_label_the_taps_are_those_of_logsumexp(tiny_recipe: Recipe, make_model: MakeModel) -> None:
    """A subnet trained with labels, run without one, and one of the paper's kind read the same taps."""
    model, papers = make_model(with_taps(tiny_recipe, "label")), make_model(with_taps(tiny_recipe, "logsumexp"))
    plain = model.taps(noised(), SIGMA).gradients or ()
    for other in (model.taps(noised(), SIGMA, label=torch.full((3,), NO_LABEL)), papers.taps(noised(), SIGMA, label=LABEL)):
        assert all(torch.equal(a, b) for a, b in zip(plain, other.gradients or (), strict=True))


@pytest.mark.parametrize("gradient_taps", ["none", "logsumexp", "label"])
@torch.no_grad()
def test_a_guide_leaves_the_denoised_and_gives_the_same_denoised_and_the_posteriors_slope(
    tiny_recipe: Recipe, make_model: MakeModel, gradient_taps: Literal["none", "logsumexp", "label"]
) -> None:
    model = make_model(with_taps(tiny_recipe, gradient_taps))
    denoised, gradient = label_gradient(model, LABEL, noised(), SIGMA)
    torch.testing.assert_close(denoised, Conditioned(model, LABEL)(noised(), SIGMA))
    with torch.enable_grad():
        source = noised().requires_grad_()
        log_p = torch.log_softmax(model.classifier(source, SIGMA), dim=1)[torch.arange(3), LABEL].sum()
        (expected,) = torch.autograd.grad(log_p, source)
    torch.testing.assert_close(gradient, expected)
    assert gradient.any()


@pytest.mark.parametrize("fusion", ["attention", "concat"])
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(tiny_recipe: Recipe, make_model: MakeModel, fusion: Literal["attention", "concat"]) -> None:
    model = make_model(replace(tiny_recipe, subnet=replace(tiny_recipe.subnet, fusion=fusion)))
    together, gradients = label_gradient(model, LABEL, noised(), SIGMA)
    for i in range(3):
        own = slice(i, i + 1)
        alone, gradient = label_gradient(model, LABEL[own], noised()[own], SIGMA[own])
        torch.testing.assert_close(alone, together[own], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, gradients[own], rtol=1e-4, atol=1e-5)


def test_only_the_subnet_is_trainable(tiny_model: ScoreModel) -> None:
    trainable = {name for name, parameter in tiny_model.train().named_parameters() if parameter.requires_grad}
    assert trainable == {f"score_network.{name}" for name, _ in tiny_model.score_network.named_parameters()}


@pytest.mark.parametrize("gradient_taps", ["none", "logsumexp", "label"])
def test_training_the_subnet_leaves_the_classifier_bit_identical(
    tiny_recipe: Recipe, make_model: MakeModel, gradient_taps: Literal["none", "logsumexp", "label"]
) -> None:
    """Even with an optimizer over all parameters, weight decay, and `train()` on the whole model: only the subnet moves."""
    model = make_model(with_taps(replace(tiny_recipe, classifier=replace(tiny_recipe.classifier, dropout=0.5)), gradient_taps)).train()
    state = {name: value.clone() for name, value in model.classifier.state_dict().items()}
    before, subnet = fingerprint(model.classifier.network), fingerprint(model.score_network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        denoised = model.denoise(model.taps(noised(), SIGMA, label=LABEL), noised(), SIGMA)
        denoised.square().mean().backward()
        optimizer.step()
    assert fingerprint(model.classifier.network) == before == model.classifier.fingerprint
    assert model.classifier.unchanged()
    assert all(torch.equal(value, state[name]) for name, value in model.classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in model.classifier.parameters())
    assert fingerprint(model.score_network) != subnet


def test_the_denoising_loss_never_differentiates_through_the_classifier(tiny_model: ScoreModel) -> None:
    """Taps are data to the subnet: no gradient flows back to the noised mel but by c_skip."""
    source = noised().requires_grad_()
    tiny_model(source, SIGMA).sum().backward()
    c_skip = precondition(SIGMA, tiny_model.noise).c_skip
    torch.testing.assert_close(source.grad, c_skip[:, None, None, None].expand_as(source))


def test_the_sigma_arithmetic_stays_in_float32_under_autocast(tiny_model: ScoreModel) -> None:
    """With a silent head the denoised mel is c_skip * noised, to float32's last digits and not to bfloat16's third."""
    torch.nn.init.zeros_(tiny_model.score_network.head[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(tiny_model.score_network.head[-1].bias)  # type: ignore[arg-type]
    with torch.no_grad():
        exact = tiny_model(noised(), SIGMA)
        with torch.autocast("cpu", torch.bfloat16):
            denoised = tiny_model(noised(), SIGMA)
    assert denoised.dtype == torch.float32
    assert torch.equal(denoised, exact)


@pytest.mark.parametrize("make", [lambda model: model, lambda model: Conditioned(model, LABEL)], ids=["free", "labelled"])
@torch.no_grad()
def test_networks_in_bf16_denoise_nearly_as_in_float32(tiny_model: ScoreModel, make: Callable[..., Any]) -> None:
    exact = make(tiny_model)(noised(), SIGMA)
    tiny_model.autocast = torch.bfloat16
    rounded = make(tiny_model)(noised(), SIGMA)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 0.03 * exact.abs().max()
    tiny_model.autocast = None
    assert torch.equal(make(tiny_model)(noised(), SIGMA), exact)


@torch.no_grad()
def test_guidance_in_bf16_is_nearly_that_in_float32(tiny_model: ScoreModel) -> None:
    exact = label_gradient(tiny_model, LABEL, noised(), SIGMA)
    tiny_model.autocast = torch.bfloat16
    for rounded, wanted in zip(label_gradient(tiny_model, LABEL, noised(), SIGMA), exact, strict=True):
        assert rounded.dtype == torch.float32 and not torch.equal(rounded, wanted)
        assert (rounded - wanted).norm() < 0.05 * wanted.norm()


@torch.no_grad()
def test_without_an_arithmetic_of_its_own_a_model_runs_in_the_caller_s(tiny_model: ScoreModel) -> None:
    assert tiny_model.autocast is None
    with torch.autocast("cpu", torch.bfloat16):
        callers = tiny_model(noised(), SIGMA)
    tiny_model.autocast = torch.bfloat16
    assert torch.equal(tiny_model(noised(), SIGMA), callers)


@pytest.mark.parametrize(
    ("mel", "sigma"), [((3, 1, 16, 15), 3), ((3, 1, 15, 16), 3), ((3, 2, 16, 16), 3), ((3, 16, 16), 3), ((3, 1, 16, 16), 2)]
)
def test_other_shapes_are_refused(tiny_model: ScoreModel, mel: tuple[int, ...], sigma: int) -> None:
    with pytest.raises(ShapeError, match="expected"):
        tiny_model(torch.zeros(mel), torch.ones(sigma))


def test_a_classifier_of_ones_own(tiny_recipe: Recipe) -> None:
    """Anyone's module with named layers will do: shapes are found by running it once."""

    class Foreign(TappedClassifier):
        tap_names = ("a", "b")

        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.b = torch.nn.Conv2d(4, 6, 4, stride=2, padding=1)
            self.c = torch.nn.Linear(6, 5)

        def forward(self, mel: Tensor, sigma: Tensor) -> Tensor:
            scaled = mel / (1 + sigma.square()).sqrt()[:, None, None, None]
            return self.c(torch.relu(self.b(torch.relu(self.a(scaled)))).mean(dim=(2, 3)))

    torch.manual_seed(0)
    model = build_model(tiny_recipe, Foreign())
    assert model.score_network.shapes == (TapShape(4, 16, 16, 0), TapShape(6, 8, 8, 1))
    assert model(noised(), SIGMA).shape == (3, 1, 16, 16)
    assert read_taps(model.classifier.network, ("a",), noised(), SIGMA).logits.shape == (3, 5)


# Places of taps


@pytest.mark.parametrize(
    ("sizes", "stages", "placed"),
    [
        ([(40, 32), (40, 32), (20, 16), (10, 8), (5, 4), (5, 4)], 4, [0, 0, 1, 2, 3, 3]),  # our own classifier
        ([(40, 32), (20, 16), (10, 8), (5, 4), (3, 2)], 4, [0, 1, 2, 3, 3]),  # a ResNet
        ([(40, 32), (101, 64), (51, 32), (26, 16)], 4, [0, 0, 0, 3]),  # another mel, and no deep layer
        ([(40, 32)] + [(1, 32)] * 4, 4, [0, 1, 2, 2, 3]),  # a transformer over time
        ([(40, 32)] + [(1, 50)] * 6, 4, [0, 0, 1, 2, 2, 2, 3]),
        ([(40, 32), (1, 500), (1, 125), (1, 31), (1, 8)], 4, [0, 0, 0, 0, 3]),  # waveforms
        ([(40, 32), (1, 16)], 4, [0, 3]),
        ([(40, 32), (20, 1)], 4, [0, 3]),  # without time
        ([(40, 32)] * 4, 4, [0, 1, 2, 3]),  # the stem alone
        ([(8, 8)] * 4, 2, [0, 0, 1, 1]),
        ([(8, 8), (8, 8), (4, 4)], 1, [0, 0, 0]),
        ([(8, 8)], 1, [0]),
    ],
)
def test_taps_are_placed(sizes: list[tuple[int, int]], stages: int, placed: list[int]) -> None:
    assert place_taps(sizes, stages) == placed


@pytest.mark.parametrize(
    ("size", "stage"),
    [((40, 32), 0), ((80, 64), 0), ((28, 23), 0), ((27, 22), 1), ((40, 8), 1), ((1, 16), 1), ((1, 12), 1), ((1, 11), 2), ((1, 1), 3)],
)
def test_the_nearest_stage_is_found_in_octaves(size: tuple[int, int], stage: int) -> None:
    """Half an octave either way; a sequence goes by its frames alone."""
    assert nearest_stage(size, (40, 32), 4) == stage


# Guidance at the estimate


def log_probability(model: ScoreModel, denoised: Tensor) -> Tensor:
    """Of each item's label, asked at the estimate of the clean mel, in double precision."""
    logits = model.classifier(denoised, torch.full((len(denoised),), model.noise.sigma_min))
    return torch.log_softmax(logits.double(), dim=1)[torch.arange(3), LABEL]


def slope_along(direction: Tensor, model: ScoreModel, denoise: Callable[[Tensor], Tensor], step: float = 2e-3) -> Tensor:
    """Finite difference of `log_probability` at denoise(noised) along a direction, item by item."""
    ahead, behind = (log_probability(model, denoise(noised() + way * step * direction)) for way in (1, -1))
    return ((ahead - behind) / (2 * step)).float()


def unit(direction: Tensor) -> Tensor:
    return direction / direction.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


@pytest.mark.parametrize("kind", ["edm", "vp"])
@torch.no_grad()
def test_the_gradient_at_the_estimate_is_that_of_the_whole_denoiser(
    tiny_recipe: Recipe, make_model: MakeModel, kind: Literal["edm", "vp"]
) -> None:
    """Without gradient taps it is exact."""
    recipe = replace(with_taps(tiny_recipe, "none"), noise=replace(tiny_recipe.noise, kind=kind))
    model = make_model(recipe)
    denoised, gradient = label_gradient(model, LABEL, noised(), SIGMA, "estimate")
    torch.testing.assert_close(denoised, model(noised(), SIGMA))
    for direction in (
        unit(gradient),
        unit(gradient + unit(torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1))) * 1e-3),
    ):
        found = slope_along(direction, model, lambda mel: model(mel, SIGMA))
        torch.testing.assert_close((gradient * direction).sum(dim=(1, 2, 3)), found, rtol=0.02, atol=1e-4)
    assert gradient.flatten(1).norm(dim=1).min() > 1e-3


@torch.no_grad()
def test_at_the_estimate_gradient_taps_are_held_fixed(tiny_recipe: Recipe, make_model: MakeModel) -> None:
    """The second derivatives of the classifier, by which they would move, are left out."""
    model = make_model(with_taps(tiny_recipe, "label"))
    denoised, gradient = label_gradient(model, LABEL, noised(), SIGMA, "estimate")
    here = model.taps(noised(), SIGMA, label=LABEL)
    torch.testing.assert_close(denoised, model.denoise(here, noised(), SIGMA))

    def held(mel: Tensor) -> Tensor:
        return model.denoise(replace(model.taps(mel, SIGMA, label=LABEL), gradients=here.gradients), mel, SIGMA)

    def moving(mel: Tensor) -> Tensor:
        return model.denoise(model.taps(mel, SIGMA, label=LABEL), mel, SIGMA)

    direction = unit(gradient)
    slope = (gradient * direction).sum(dim=(1, 2, 3))
    torch.testing.assert_close(slope, slope_along(direction, model, held), rtol=0.02, atol=1e-4)
    assert ((slope - slope_along(direction, model, moving)) / slope).abs().max() > 0.03


@torch.no_grad()
def test_guidance_at_the_estimate_leaves_nothing_behind(tiny_model: ScoreModel) -> None:
    mel = noised()
    results = label_gradient(tiny_model, LABEL, mel, SIGMA, "estimate")
    assert not any(result.requires_grad for result in results)
    assert not mel.requires_grad
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    assert not torch.is_grad_enabled()
    assert torch.equal(results[0], Conditioned(tiny_model, LABEL)(mel, SIGMA))


@torch.no_grad()
def test_at_the_estimate_clips_do_not_meet(tiny_model: ScoreModel) -> None:
    _, together = label_gradient(tiny_model, LABEL, noised(), SIGMA, "estimate")
    for i in range(3):
        own = slice(i, i + 1)
        _, alone = label_gradient(tiny_model, LABEL[own], noised()[own], SIGMA[own], "estimate")
        torch.testing.assert_close(alone, together[own], rtol=1e-3, atol=1e-4)
