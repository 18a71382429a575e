"""scoresubnet.py: normalisation, fusion written out as attention, and the decoder's ways in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duovox.config import SubnetConfig
from duovox.diffusion.noise import Preconditioning
from duovox.diffusion.taps import Taps
from duovox.networks.scoresubnet import AttentionFusion, ConcatFusion, ScoreSubnet, TapShape, rms_normalise

CONFIG = SubnetConfig(widths=(8, 12), blocks=1, embedding=16, group_size=4, heads=2, gradient_taps="logsumexp")
SHAPES = (TapShape(5, 8, 4, 0), TapShape(6, 8, 4, 0), TapShape(7, 4, 2, 1), TapShape(3, 4, 2, 1))
"""A stem and a stage at full size, a stage and a bottleneck at half; no two of one width."""

C_NOISE = torch.tensor([-0.5, 0.3])


MEL = torch.zeros(2, 1, 16, 8)
"""The noised mel, which reaches the subnet through the taps alone."""


def run(subnet: ScoreSubnet, taps: Taps, c_noise: Tensor = C_NOISE) -> Tensor:
    return subnet(MEL, Preconditioning(c_noise, c_noise, c_noise, c_noise), taps)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rms(values: Tensor) -> Tensor:
    return values.double().square().mean(dim=(1, 2, 3)).sqrt()


def taps_of(gradients: bool = True, seed: int = 0) -> Taps:
    activations = tuple(seeded(2, s.channels, s.rows, s.columns, seed=seed + i) for i, s in enumerate(SHAPES))
    tapped = tuple(seeded(*a.shape, seed=100 + i) for i, a in enumerate(activations)) if gradients else None
    return Taps(activations, tapped, torch.zeros(2, 3))


def subnet_of(config: SubnetConfig = CONFIG, awake: bool = True) -> ScoreSubnet:
    torch.manual_seed(0)
    subnet = ScoreSubnet(config, SHAPES, patch=2)
    if awake:
        with torch.no_grad():
            for i, parameter in enumerate(subnet.parameters()):
                if not parameter.any():
                    parameter.copy_(0.3 * seeded(*parameter.shape, seed=i))
    return subnet


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e6, 1e15])
def test_normalised_taps_have_unit_rms_whatever_their_scale(scale: float) -> None:
    tap = seeded(3, 4, 5, 6)
    torch.testing.assert_close(rms(rms_normalise(scale * tap)), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(rms_normalise(scale * tap), rms_normalise(tap), rtol=1e-5, atol=0)


def test_normalisation_is_per_item_and_keeps_the_shape_of_a_tap() -> None:
    """A loud neighbour changes nothing; where a tap is twice as large, it stays twice as large."""
    tap = seeded(2, 4, 5, 6)
    mixed = torch.stack([tap[0], 1000 * tap[1]])
    torch.testing.assert_close(rms_normalise(mixed), rms_normalise(tap))
    torch.testing.assert_close(rms_normalise(tap) / tap, (1 / rms(tap)).float()[:, None, None, None].expand_as(tap))


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1e-25, 1e-20])
def test_vanishing_taps_fade_instead_of_exploding(scale: float) -> None:
    """The squares of 1e-25 are 0 in float32: dividing by a mean square of 0 must not make them large."""
    result = rms_normalise(scale * seeded(2, 4, 5, 6))
    assert result.isfinite().all()
    assert (rms(result) <= 1.001).all()
    assert bool(result.any()) == (scale > 0)


def test_one_silent_item_leaves_its_neighbours_alone() -> None:
    tap = seeded(2, 4, 5, 6)
    tap[0] = 0
    torch.testing.assert_close(rms(rms_normalise(tap)), torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_bfloat16_taps_are_measured_in_float32() -> None:
    """Summed in bfloat16, 20,000 squares would stall at a few hundred."""
    tap = seeded(1, 16, 40, 32).bfloat16()
    assert rms_normalise(tap).dtype == torch.bfloat16
    assert rms(rms_normalise(tap)).item() == pytest.approx(1, abs=0.005)


def two_token_attention(fusion: AttentionFusion, activation: Tensor, gradient: Tensor) -> Tensor:
    """At each position a query from the activation, keys and values from both taps, softmax over the two, per head.

    The module drops v(a), the part of the answer that is linear in a; here it is subtracted.
    """
    own, other = fusion.activation(activation), fusion.gradient(gradient)
    batch, width, rows, columns = own.shape
    heads, size = fusion.heads, width // fusion.heads

    def split(values: Tensor) -> Tensor:
        return values.reshape(batch, heads, size, rows, columns)

    query = split(fusion.query(own))
    scores = torch.stack([(query * split(fusion.key(token))).sum(dim=2) / math.sqrt(size) for token in (own, other)])
    weights = scores.softmax(dim=0)
    values = torch.stack([split(fusion.value(token)) for token in (own, other)])
    answer = (weights[:, :, :, None] * values).sum(dim=0).reshape(own.shape)
    return own + fusion.out(answer - fusion.value(own))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_fusion_is_a_softmax_over_the_two_taps(heads: int) -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(5, 8, True, heads)
    activation, gradient = 3 * seeded(2, 5, 4, 3), 3 * seeded(2, 5, 4, 3, seed=1)
    torch.testing.assert_close(fusion(activation, gradient), two_token_attention(fusion, activation, gradient))


def test_attention_looks_at_the_position_it_stands_at() -> None:
    fusion = AttentionFusion(5, 8, True, 2)
    activation, gradient = seeded(1, 5, 4, 3), seeded(1, 5, 4, 3, seed=1)
    changed = gradient.clone()
    changed[:, :, 2, 1] += 1
    moved = (fusion(activation, changed) - fusion(activation, gradient)).abs().sum(dim=1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[2, 1]]


def test_concatenation_is_one_projection_of_both() -> None:
    fusion = ConcatFusion(5, 8, True)
    activation, gradient = seeded(2, 5, 4, 3), seeded(2, 5, 4, 3, seed=1)
    weight = fusion.project.weight[:, :, 0, 0]
    expected = torch.einsum("oc,bcyx->boyx", weight[:, :5], activation) + torch.einsum("oc,bcyx->boyx", weight[:, 5:], gradient)
    torch.testing.assert_close(fusion(activation, gradient), expected + fusion.project.bias[:, None, None])


@pytest.mark.parametrize("kind", ["attention", "concat"])
def test_without_gradient_taps_there_is_a_projection_and_no_more(kind: str) -> None:
    fusion = AttentionFusion(5, 8, False, 2) if kind == "attention" else ConcatFusion(5, 8, False)
    activation = seeded(2, 5, 4, 3)
    assert sum(p.numel() for p in fusion.parameters()) == 5 * 8 + 8
    projection = next(iter(fusion.children()))
    torch.testing.assert_close(fusion(activation, None), projection(activation))


@pytest.mark.parametrize("fusion", ["attention", "concat"])
@pytest.mark.parametrize("gradient_taps", ["none", "logsumexp"])
def test_a_fresh_subnet_gives_zero(fusion: str, gradient_taps: str) -> None:
    """So that training starts at c_skip * noised; the output is a mel of the size the patches cover."""
    config = replace(CONFIG, fusion=fusion, gradient_taps=gradient_taps)
    result = run(subnet_of(config, awake=False), taps_of(gradient_taps != "none"))
    assert result.shape == (2, 1, 16, 8)
    assert not result.any()


@pytest.mark.parametrize("fusion", ["attention", "concat"])
@pytest.mark.parametrize("gradient_taps", ["none", "logsumexp"])
def test_every_parameter_learns_once_the_head_is_awake(fusion: str, gradient_taps: str) -> None:
    """A fresh subnet's first step moves the head alone; from the second on everything moves."""
    config = replace(CONFIG, fusion=fusion, gradient_taps=gradient_taps)
    subnet, taps = subnet_of(config, awake=False), taps_of(gradient_taps != "none")
    optimizer = torch.optim.SGD(subnet.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (run(subnet, taps) - seeded(2, 1, 16, 8)).square().mean().backward()
        optimizer.step()
    still = [name for name, parameter in subnet.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert still == []


@pytest.mark.parametrize("gradients", [True, False], ids=["gradient taps", "activations"])
@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_every_tap_reaches_the_output(index: int, gradients: bool) -> None:
    """Two taps of one size are added, none takes the other's place."""
    subnet, taps = subnet_of(), taps_of()
    changed = list(taps.gradients if gradients else taps.activations)  # type: ignore[arg-type]
    changed[index] = changed[index].flip(dims=(2, 3))
    other = replace(taps, **{"gradients" if gradients else "activations": tuple(changed)})
    assert (run(subnet, taps) - run(subnet, other)).abs().max().item() > 1e-3


def test_the_scale_of_a_tap_says_nothing() -> None:
    """Gradients grow with the classifier's confidence; the decoder sees their pattern only."""
    subnet, taps = subnet_of(), taps_of()
    assert taps.gradients is not None
    louder = replace(taps, gradients=tuple(1e-7 * g for g in taps.gradients), activations=tuple(50 * a for a in taps.activations))
    torch.testing.assert_close(run(subnet, louder), run(subnet, taps), rtol=1e-3, atol=1e-4)


def test_the_noise_level_reaches_the_output() -> None:
    subnet, taps = subnet_of(), taps_of()
    assert (run(subnet, taps) - run(subnet, taps, C_NOISE.flip(0))).abs().max().item() > 1e-3


def test_it_never_sees_logits() -> None:
    subnet, taps = subnet_of(), taps_of()
    other = replace(taps, logits=taps.logits + 5)
    assert torch.equal(run(subnet, taps), run(subnet, other))


def test_a_missing_tap_is_an_error() -> None:
    taps = taps_of()
    with pytest.raises(ValueError, match="zip"):
        run(subnet_of(), replace(taps, activations=taps.activations[:-1]))


def test_the_output_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert run(subnet_of(), taps_of()).dtype == torch.float32


# Taps of other sizes

DEEP = replace(CONFIG, widths=(8, 12, 16))


def subnet_on(shapes: Sequence[TapShape], config: SubnetConfig = CONFIG) -> ScoreSubnet:
    """A subnet in which every parameter matters."""
    torch.manual_seed(0)
    subnet = ScoreSubnet(config, shapes, patch=2)
    with torch.no_grad():
        for i, parameter in enumerate(subnet.parameters()):
            if not parameter.any():
                parameter.copy_(0.3 * seeded(*parameter.shape, seed=i))
    return subnet


def taps_on(shapes: Sequence[TapShape], batch: int = 2) -> Taps:
    activations = tuple(seeded(batch, s.channels, s.rows, s.columns, seed=i) for i, s in enumerate(shapes))
    gradients = tuple(seeded(*a.shape, seed=100 + i) for i, a in enumerate(activations))
    return Taps(activations, gradients, torch.zeros(batch, 3))


def test_the_names_of_a_subnets_weights_are_those_of_shipped_bundles() -> None:
    """Taps of their stages' own sizes have no lift: weights trained before there were any still fit."""
    names = {name.split(".")[0] for name in subnet_of().state_dict()}
    assert names == {"embedding", "fusions", "stages", "ups", "head"}


@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_sequences_are_lifted_onto_the_rows_of_their_stage(fusion: str) -> None:
    """By a projection of their own that gives every row something else."""
    shapes = (TapShape(4, 8, 4, 0), TapShape(6, 1, 4, 0), TapShape(7, 1, 9, 1))
    subnet, taps = subnet_on(shapes, replace(CONFIG, fusion=fusion)), taps_on(shapes)
    assert {n: tuple(w.shape) for n, w in subnet.state_dict().items() if n.startswith("lifts") and n.endswith("weight")} == {
        "lifts.1.weight": (8 * 8, 8, 1, 1),
        "lifts.2.weight": (12 * 4, 12, 1, 1),
    }
    result = run(subnet, taps)
    assert result.shape == (2, 1, 16, 8)
    result.square().mean().backward()
    assert [name for name, p in subnet.named_parameters() if p.grad is None or not p.grad.any()] == []
    for index in (1, 2):
        moved = list(taps.activations)
        moved[index] = moved[index].flip(3)
        assert (run(subnet, replace(taps, activations=tuple(moved))) - result).abs().max() > 1e-3


def test_a_lift_by_hand() -> None:
    """Row r and channel c of the lifted map are output c * rows + r of the projection, at the same frame."""
    shapes = (TapShape(4, 8, 4, 0), TapShape(6, 1, 4, 0))
    subnet, fused = subnet_on(shapes), seeded(2, 8, 1, 4)
    lifted = subnet._onto_stage(fused, 1)
    weight, bias = subnet.lifts[1].weight[:, :, 0, 0], subnet.lifts[1].bias
    for row, channel in ((0, 0), (3, 5), (7, 7)):
        place = channel * 8 + row
        expected = torch.einsum("i,bit->bt", weight[place], fused[:, :, 0]) + bias[place]  # type: ignore[index,operator]
        torch.testing.assert_close(lifted[:, channel, row], expected)


def test_a_longer_sequence_is_averaged_in_time_before_it_is_lifted() -> None:
    shapes = (TapShape(4, 8, 4, 0), TapShape(6, 1, 12, 0))
    subnet, fused = subnet_on(shapes), seeded(2, 8, 1, 12)
    means = fused.reshape(2, 8, 1, 4, 3).mean(dim=4)
    torch.testing.assert_close(subnet._onto_stage(fused, 1), subnet._onto_stage(means, 1))


def test_a_tap_of_another_size_is_averaged_or_repeated_onto_its_stage() -> None:
    shapes = (TapShape(4, 8, 4, 0), TapShape(6, 16, 12, 0), TapShape(6, 4, 1, 0), TapShape(5, 3, 5, 1))
    subnet = subnet_on(shapes)
    large, small = seeded(2, 8, 16, 12), seeded(2, 8, 4, 1)
    torch.testing.assert_close(subnet._onto_stage(large, 1), large.reshape(2, 8, 8, 2, 4, 3).mean(dim=(3, 5)))
    torch.testing.assert_close(subnet._onto_stage(small, 2), small.repeat_interleave(2, dim=2).expand(2, 8, 8, 4))
    assert not [name for name in subnet.state_dict() if name.startswith("lifts")]
    assert run(subnet, taps_on(shapes)).shape == (2, 1, 16, 8)


def test_a_tap_given_twice_as_fine_says_the_same() -> None:
    """Each number four times over: after fusion and averaging the decoder cannot tell."""
    coarse, fine = (TapShape(4, 8, 4, 0), TapShape(6, 4, 2, 1)), (TapShape(4, 8, 4, 0), TapShape(6, 8, 4, 1))
    taps = taps_on(coarse)
    assert taps.gradients is not None

    def finer(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return pair[0], torch.nn.functional.interpolate(pair[1], scale_factor=2.0)

    doubled = replace(taps, activations=finer(taps.activations), gradients=finer(taps.gradients))
    torch.testing.assert_close(run(subnet_on(fine), doubled), run(subnet_on(coarse), taps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stages", [(0, 2), (2, 2), (0, 0, 2)])
def test_a_stage_without_taps_works(stages: tuple[int, ...]) -> None:
    """Only the deepest must have some; every stage, with or without, still matters."""
    shapes = [TapShape(4 + i, 8 >> stage, 4 >> stage, stage) for i, stage in enumerate(stages)]
    shapes[0] = replace(shapes[0], rows=8, columns=4)  # the first says how large stage 0 is
    subnet, taps = subnet_on(shapes, DEEP), taps_on(shapes)
    result = run(subnet, taps)
    assert result.shape == (2, 1, 16, 8)
    result.square().mean().backward()
    assert [name for name, p in subnet.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert (run(subnet, replace(taps, activations=tuple(a.flip(2, 3) for a in taps.activations))) - result).abs().max() > 1e-3


def test_taps_that_are_no_contiguous_maps_are_welcome() -> None:
    """A transposed view, as `taps.as_map` gives it."""
    subnet, taps = subnet_of(), taps_of()
    turned = replace(taps, activations=tuple(a.transpose(1, 3).contiguous().transpose(1, 3) for a in taps.activations))
    torch.testing.assert_close(run(subnet, turned), run(subnet, taps))
