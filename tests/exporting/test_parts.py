"""What becomes a graph: the parts of bundles of every kind, traced, for any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch

from duovox.bundle import Bundle
from duovox.config import NoiseConfig, Recipe, Schooling, StudentConfig, SubnetConfig, UNetConfig
from duovox.exporting.checking import compare
from duovox.exporting.conversion import to_onnx
from duovox.exporting.parts import SHARES, SIGMAS, Part, classifier_part, guided_step_part, parts_of, student_part, vocoder_part
from duovox.exporting.tracing import trace
from duovox.lite.sessions import open_graph
from duovox.model import Conditioned, ScoreModel
from duovox.student import build_student
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


def jump_of(bundle: Bundle, taps: Literal["label", "none"], gammas: tuple[float, ...]) -> Part:
    """The part of a student with fresh weights, in which all that it is told counts."""
    recipe = replace(bundle.config.recipe, student=StudentConfig(taps, ((0,), (0, 2))))
    student = (
        build_student(recipe, bundle.model.classifier.network, 3, Schooling((80.0, 20.0, 2.0, 0.0), gammas)).eval().requires_grad_(False)
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in student.network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return student_part(bundle, student)


@pytest.mark.parametrize("gammas", [(0.3,), (0.3, 0.5)])
@pytest.mark.parametrize("taps", ["label", "none"])
def test_jumps_of_every_kind_of_student(small_voice: Duovox, taps: Literal["label", "none"], gammas: tuple[float, ...]) -> None:
    """For any batch; all that it takes counts, and it takes gamma only where it was taught several. Without gradient taps no gradient
    is in the graph."""
    part = jump_of(small_voice.bundle, taps, gammas)
    assert part.inputs == ("noised", "sigma", "to", "label", "gamma")[: 3 + len(gammas)]
    graph = trace(part.function, part.draw(0, 2))
    for seed, batch in ((5, 1), (6, 3)):
        inputs = part.draw(seed, batch)
        torch.testing.assert_close(graph(*inputs), part.plain(*inputs), rtol=1e-4, atol=1e-4)
        for place, value in enumerate(inputs):
            other = [*inputs[:place], (value + 1) % 3 if part.inputs[place] == "label" else value + 0.1, *inputs[place + 1 :]]
            assert not torch.allclose(graph(*other), graph(*inputs), atol=1e-6), part.inputs[place]
    backwards = [node for node in graph.graph.nodes if "convolution" in str(node.target) and node.args[6]]
    assert bool(backwards) == (taps == "label")


def test_a_plain_student_as_onnx(small_voice: Duovox) -> None:
    part = jump_of(small_voice.bundle, "none", (0.3,))
    model = to_onnx(part, small_voice.bundle.model.classifier.network)
    assert compare(part, open_graph(model.SerializeToString(), part.inputs, "1.20")).largest < 1e-4
    assert [value.name for value in model.graph.input] == ["noised", "sigma", "to", "label"]


def test_a_bundle_without_a_student_has_three_parts(small_voice: Duovox) -> None:
    assert [part.name for part in parts_of(small_voice.bundle)] == ["classifier", "step", "student", "vocoder"]
    assert [part.name for part in parts_of(replace(small_voice.bundle, student=None))] == ["classifier", "step", "vocoder"]


def test_jumps_of_every_length_are_compared(small_voice: Duovox) -> None:
    part = jump_of(small_voice.bundle, "label", (0.3, 0.5))
    drawn = [part.draw(seed, 1) for seed in range(20)]
    assert {(round(sigma.item(), 3), round((to / sigma).item(), 3)) for _, sigma, to, _, _ in drawn} == {
        (a, b) for a in SIGMAS for b in SHARES
    }
    assert all(0.3 <= gamma.item() <= 0.5 + 1e-6 for *_, gamma in drawn)


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
