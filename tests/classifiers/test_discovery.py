"""discovery.py: on toy networks of every family, the layers that can be tapped, and why the others cannot."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from families import (
    AXES,
    Attentive,
    Faulty,
    external,
    found_in,
    image_net,
)
from torch import Tensor, nn

from duovox.classifiers.choice import choose
from duovox.classifiers.discovery import candidates
from duovox.classifiers.exported import Scripted
from duovox.contracts import ClassifierError
from duovox.model import build_model


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("family", AXES)
def test_axes_shapes_and_strides_of_every_family(family: str, seed: int) -> None:
    torch.manual_seed(seed)
    make, takes, expected = AXES[family]
    found = found_in(make(), takes)
    assert {name: (found[name].axes, found[name].shape, found[name].stride) for name in expected} == expected
    assert all(found[name].fault == "" for name in expected)
    for name, (_, shape, _) in expected.items():
        assert found[name].values == torch.Size(shape).numel()


def test_candidates_come_in_order_of_finishing_with_their_kinds() -> None:
    found = list(found_in(Attentive(layers=1), "BTM").values())
    kinds = [(c.name, c.kind) for c in found if c.kind in ("Linear", "TransformerEncoderLayer", "TransformerEncoder")]
    assert kinds == [
        ("enter", "Linear"),
        ("encoder.layers.0.linear1", "Linear"),
        ("encoder.layers.0.linear2", "Linear"),
        ("encoder.layers.0", "TransformerEncoderLayer"),
        ("encoder", "TransformerEncoder"),
        ("head", "Linear"),
    ]


def test_what_has_no_extent_cannot_be_tapped() -> None:
    found = found_in(image_net())
    assert [name for name, c in found.items() if c.fault == "its output has no extent in time or frequency"] == ["6", "7", "8"]
    assert all(found[name].axes == "" for name in "678")


@pytest.mark.parametrize("trainable", [True, False])
def test_faults_are_found(trainable: bool) -> None:
    """Whether or not the network's own parameters take gradients: a layer that sees only a detached mel is none of ours."""
    found = found_in(Faulty().requires_grad_(trainable))
    faults = {name: c.fault for name, c in found.items() if c.fault and name != "head"}
    assert faults.pop("enter") == "its output is changed in place by a later operation (such as ReLU(inplace=True))"
    assert faults.pop("twice") == "it runs 2 times in one forward"
    for name in ("dead_end", "blind", "unused"):
        assert faults.pop(name) == "no gradient leads from the logits through it to the input"
    assert faults == {}
    assert {name for name, c in found.items() if not c.fault} == {"relu", "good"}


def test_a_layer_that_gives_no_tensor_or_never_runs_is_no_candidate() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.conv = nn.Linear(2, 2), nn.Conv2d(1, 3, 3)
            self.text = nn.Module()
            self.text.forward = lambda _: "text"  # type: ignore[method-assign]

        def forward(self, mel: Tensor) -> Tensor:
            self.text(mel)
            return self.conv(mel).mean(dim=(2, 3))

    assert list(found_in(Strange())) == ["conv"]


class Cut(nn.Sequential):
    """Gives logits without a graph."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel).detach()


class Blind(nn.Sequential):
    """Gives logits that only its parameters have a gradient from."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel.detach())


@pytest.mark.parametrize("kind", [Cut, Blind])
def test_a_network_without_gradients_is_refused(kind: type[nn.Sequential]) -> None:
    with pytest.raises(ClassifierError, match="no gradient leads from the classifier's logits to its input"):
        found_in(kind(*image_net()))


def test_nan_weights_are_named_by_the_first_bad_layer() -> None:
    network = image_net()
    with torch.no_grad():
        network[2].weight[0, 0] = float("nan")
        network[8].weight.fill_(float("nan"))
    with pytest.raises(ClassifierError, match=r"not finite.*first layer that gives such values is '2'"):
        found_in(network)


def test_a_network_that_cannot_run_says_so_in_one_line() -> None:
    with pytest.raises(ClassifierError, match=r"cannot run on an input of shape \(3, 1, 16, 16\) \(RuntimeError: ") as caught:
        found_in(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert "\n" not in str(caught.value)


def test_an_error_without_words_is_told_too() -> None:
    class Mute(nn.Module):
        def forward(self, _mel: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(ClassifierError, match=r"\(AssertionError: \)"):
        found_in(Mute())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_scripted_network_is_used_by_its_stem_alone(tiny_recipe: Any, frozen: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(image_net().eval())
        network = Scripted(torch.jit.freeze(program) if frozen else program)
    classifier = external(network)
    found = candidates(classifier)
    assert [c for c in found if not c.fault] == []
    assert choose(found) == ()
    model = build_model(tiny_recipe, classifier)
    assert model.tap_names == ("stem",) * 4
    assert [shape.stage for shape in model.score_network.shapes] == [0, 0, 1, 1]
    taps = model.taps(torch.ones(2, 1, 16, 16), torch.tensor([0.1, 2.0]))
    assert taps.gradients is not None
    assert all(gradient.any() for gradient in taps.gradients)
    assert model(torch.ones(2, 1, 16, 16), torch.tensor([0.1, 2.0])).shape == (2, 1, 16, 16)


def state(network: nn.Module) -> dict[str, Any]:
    """Everything about a network that a probe must not change."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules())
    return {
        "hooks": hooks,
        "modes": [m.training for m in network.modules()],
        "flags": [p.requires_grad for p in network.parameters()],
        "gradients": [p.grad is None for p in network.parameters()],
        "tensors": [value.tolist() for value in network.state_dict().values()],
    }


class Breaking(nn.Module):
    """Raises after its normalisation."""

    def forward(self, _: Tensor) -> Tensor:
        raise ValueError("no")


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(training: bool, breaks: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    network = network.append(Breaking()) if breaks else network
    network.train(training)
    network[1].eval()
    network[0].bias.requires_grad_(False)
    classifier = external(network)
    before = state(classifier)
    if breaks:
        with pytest.raises(ClassifierError, match="ValueError: no"):
            candidates(classifier)
    else:
        candidates(classifier)
    assert state(classifier) == before


def test_a_network_in_train_mode_is_probed_at_rest() -> None:
    """Dropout would hide where a disturbance comes out, batch statistics would mix the clips."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(16, 12, 3), nn.BatchNorm1d(12), nn.Dropout(0.9), nn.Conv1d(12, 3, 14), nn.Flatten())
    found = candidates(external(network.train(), "BMT"))
    assert found == candidates(external(copy.deepcopy(network).eval(), "BMT"))


@torch.no_grad()
def test_candidates_are_found_where_gradients_are_off() -> None:
    assert {c.fault for name, c in found_in(image_net()).items() if name in "012345"} == {""}
