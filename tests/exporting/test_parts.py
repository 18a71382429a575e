"""What becomes a graph: the parts of bundles of every kind, traced, for any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from duovox.bundle import Bundle
from duovox.config import NoiseConfig, Recipe, SubnetConfig, UNetConfig
from duovox.exporting.parts import SIGMAS, Part, classifier_part, guided_step_part, vocoder_part
from duovox.exporting.tracing import trace
from duovox.model import Conditioned, ScoreModel
from duovox.voice import Duovox


def changed(bundle: Bundle, make_model: Callable[[Recipe], ScoreModel], **changes: object) -> Bundle:
    """The bundle with another model, by a recipe with changes."""
    recipe = replace(bundle.config.recipe, **changes)  # type: ignore[arg-type]
    return replace(bundle, config=replace(bundle.config, recipe=recipe), model=make_model(recipe).requires_grad_(False))


KINDS: dict[str, dict[str, object]] = {
    "paper's noise": {"noise": NoiseConfig(kind="vp", sigma_max=80)},
    "paper's taps": {"subnet": SubnetConfig(widths=(8,), blocks=1, embedding=16, group_size=4, heads=2)},
    "no gradient taps": {"subnet": SubnetConfig(widths=(8,), blocks=1, embedding=16, group_size=4, heads=2, gradient_taps="none")},
    "two models": {
        "score_model": "unet",
        "unet": UNetConfig(patch=4, widths=(8,), up_widths=(8,), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_every_kind_of_model(small_voice: Duovox, make_model: Callable[[Recipe], ScoreModel], kind: str) -> None:
    part = guided_step_part(changed(small_voice.bundle, make_model, **KINDS[kind]))
    graph = trace(part.function, part.draw(0, 2))
    for seed, batch in ((5, 1), (6, 3)):
        inputs = part.draw(seed, batch)
        torch.testing.assert_close(graph(*inputs), part.plain(*inputs), rtol=1e-4, atol=1e-4)


def test_no_label_is_the_model_alone(small_voice: Duovox) -> None:
    """Label -1 and gamma 0, beside others in a batch."""
    model, part = small_voice.bundle.model, guided_step_part(small_voice.bundle)
    noised, sigma = torch.randn(2, 1, 16, 16), torch.tensor([0.5, 2.0])
    denoised = part.function(noised, sigma, torch.tensor([-1, 1]), torch.tensor([0.0, 0.7]))
    torch.testing.assert_close(denoised[:1], model(noised[:1], sigma[:1]))
    assert not torch.allclose(denoised[1:], Conditioned(model, torch.tensor([1]))(noised[1:], sigma[1:]), atol=1e-6)


@pytest.mark.parametrize("make", [classifier_part, guided_step_part, vocoder_part])
def test_fresh_arguments_are_seeded_and_differ(small_voice: Duovox, make: Callable[[Bundle], Part]) -> None:
    part = make(small_voice.bundle)
    one, same, other = part.draw(1, 2), part.draw(1, 2), part.draw(2, 2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0]) and len(one[0]) == 2
    assert [name for name, batched in zip(part.inputs, part.batched, strict=True) if not batched] == list(part.whole)


def test_every_noise_level_and_label_is_compared(small_voice: Duovox) -> None:
    part = guided_step_part(small_voice.bundle)
    drawn = [part.draw(seed, 1) for seed in range(20)]
    assert {round(sigma.item(), 3) for _, sigma, _, _ in drawn} == set(SIGMAS)
    assert {label.item() for _, _, label, _ in drawn} == {-1, 0, 1, 2}
    assert all((gamma == 0) == (label < 0) for _, _, label, gamma in drawn)
