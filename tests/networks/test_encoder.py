"""classifiers/encoder.py: shapes for every patch and depth, taps, preconditioning, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duovox.config import EncoderConfig, MelConfig, Recipe
from duovox.contracts import ShapeError
from duovox.diffusion.taps import recording
from duovox.model import build_classifier
from duovox.networks.encoder import EncoderClassifier, log_probabilities

SIGMA = torch.tensor([0.1, 5.0])


def noised(rows: int = 16, frames: int = 16) -> Tensor:
    return torch.randn(2, 1, rows, frames, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier(tiny_recipe: Recipe) -> EncoderClassifier:
    """Fresh weights, with the modulations (zero at first) made to matter."""
    torch.manual_seed(0)
    network = build_classifier(tiny_recipe, 3).eval()
    for name, parameter in network.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize(("patch", "widths"), [(1, (4, 8)), (2, (4, 8)), (4, (4, 8)), (1, (8,)), (2, (4, 6, 8)), (1, (4, 6, 8, 8))])
def test_any_patch_and_depth(tiny_recipe: Recipe, patch: int, widths: tuple[int, ...]) -> None:
    config = replace(tiny_recipe.classifier, patch=patch, widths=widths)
    network = EncoderClassifier(config, tiny_recipe.mel, tiny_recipe.noise, 5)
    assert network.tap_names == ("stem", *(f"stages.{i}" for i in range(len(widths))), "bottleneck")
    with recording(network, network.tap_names) as outputs, torch.no_grad():
        assert network(noised(), SIGMA).shape == (2, 5)
    side = 16 // patch
    sides = [side >> i for i in range(len(widths))]
    expected = [(2, w, s, s) for w, s in zip((widths[0], *widths, widths[-1]), (side, *sides, sides[-1]), strict=True)]
    assert [tuple(outputs[name].shape) for name in network.tap_names] == expected


def test_a_mel_need_not_be_square(tiny_recipe: Recipe) -> None:
    mel = MelConfig(n_mels=24, frames=16, clip_samples=3840)
    network = EncoderClassifier(tiny_recipe.classifier, mel, tiny_recipe.noise, 3)
    assert network(noised(24), SIGMA).shape == (2, 3)
    with pytest.raises(ShapeError):
        network(noised(16, 24), SIGMA)


@torch.no_grad()
def test_patches_keep_neighbours_together(tiny_recipe: Recipe) -> None:
    """A 2 x 2 patch is one position of the stem: a changed pixel moves its own position and the convolution's eight neighbours."""
    network = EncoderClassifier(tiny_recipe.classifier, tiny_recipe.mel, tiny_recipe.noise, 3)
    changed = noised()
    changed[:, :, 9, 4] += 1
    with recording(network, ("stem",)) as outputs:
        network(noised(), SIGMA)
        before = outputs["stem"]
        network(changed, SIGMA)
    moved = (outputs["stem"] - before).abs().sum(dim=1)[0] > 1e-7
    assert moved.nonzero().tolist() == [[y, x] for y in (3, 4, 5) for x in (1, 2, 3)]


@torch.no_grad()
def test_the_input_is_preconditioned_inside(classifier: EncoderClassifier) -> None:
    """At sigma 100 the stem meets values of variance one, not of 100^2 (EDM c_in)."""
    loud = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 100
    with recording(classifier, ("stem",)) as outputs:
        classifier(loud, torch.full((2,), 100.0))
        high = outputs["stem"].std().item()
        classifier(loud / 200, torch.full((2,), 1e-4))
        low = outputs["stem"].std().item()
    assert high == pytest.approx(low, rel=0.02)


@torch.no_grad()
def test_sigma_matters_beyond_the_scale_of_the_input(classifier: EncoderClassifier) -> None:
    """The same preconditioned input at two noise levels gives two answers: the embedding is used, item by item."""
    mel, data = noised()[:1], classifier.noise.sigma_data**2
    sigma = torch.tensor([0.1, 5.0])
    same_input = mel * (data + sigma.square()).sqrt()[:, None, None, None]
    logits = classifier(same_input, sigma)
    assert (logits[0] - logits[1]).abs().max().item() > 1e-3


@torch.no_grad()
def test_items_do_not_meet(classifier: EncoderClassifier) -> None:
    together = classifier(noised(), SIGMA)
    for i in range(2):
        torch.testing.assert_close(classifier(noised()[i : i + 1], SIGMA[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5)


def test_every_parameter_learns(classifier: EncoderClassifier) -> None:
    torch.nn.functional.cross_entropy(classifier(noised(), SIGMA), torch.tensor([0, 2])).backward()
    assert [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("shape", "sigmas", "message"),
    [
        ((2, 1, 16, 8), 2, r"\(B, 1, 16, 16\), got \(2, 1, 16, 8\)"),
        ((2, 1, 8, 16), 2, r"\(B, 1, 16, 16\), got \(2, 1, 8, 16\)"),
        ((2, 3, 16, 16), 2, r"\(B, 1, 16, 16\), got \(2, 3, 16, 16\)"),
        ((2, 16, 16), 2, r"\(B, 1, 16, 16\), got \(2, 16, 16\)"),
        ((2, 1, 16, 16), 1, r"one value per item of a batch of 2, got a tensor of shape \(1,\)"),
    ],
)
def test_other_shapes_are_refused_with_both_named(classifier: EncoderClassifier, shape: tuple[int, ...], sigmas: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        classifier(torch.zeros(shape), torch.ones(sigmas))


def test_dropout_is_off_in_eval_mode(tiny_recipe: Recipe) -> None:
    network = EncoderClassifier(EncoderConfig(2, (8, 16), 1, 1, 16, 4, dropout=0.5), tiny_recipe.mel, tiny_recipe.noise, 3)
    assert not torch.equal(network(noised(), SIGMA), network(noised(), SIGMA))
    network.eval()
    assert torch.equal(network(noised(), SIGMA), network(noised(), SIGMA))


def test_log_probabilities() -> None:
    result = log_probabilities(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1000.0, 0.0]], dtype=torch.bfloat16))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result[0].exp(), torch.full((3,), 1 / 3))
    assert result[1].tolist() == [-1000, 0, -1000]


def test_logits_are_float32_under_autocast(classifier: EncoderClassifier) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(noised(), SIGMA).dtype == torch.float32
