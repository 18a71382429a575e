"""copies.py: what torch's own deepcopy refuses is copied by value, and other precisions become float32."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from toys import Base, external

from duovox.classifiers.copies import copy_network, in_float32, let_go_of_graphs, precision_note
from duovox.contracts import ClassifierError

PROBE = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def old(norm: str) -> Callable[[nn.Module], object]:
    def apply(layer: nn.Module) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(nn.utils, norm)(layer)

    return apply


NORMS: dict[str, Callable[[nn.Module], object]] = {
    "old weight norm": old("weight_norm"),
    "old spectral norm": old("spectral_norm"),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


def normed(name: str) -> Base:
    network = Base()
    for layer in (network.body[0], network.body[2], network.head):
        NORMS[name](layer)
    return network.eval()


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_every_kind_are_copied(name: str, used: bool) -> None:
    """Before and after a forward with gradients; the copy gives the same, of its own weights."""
    network = normed(name)
    expected = network(PROBE)
    if not used:
        network = normed(name)
    twin = copy_network(network)
    torch.testing.assert_close(twin(PROBE), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(network(PROBE), expected)
    assert list(twin.state_dict()) == list(network.state_dict())


def test_a_norm_learns_in_the_copy() -> None:
    twin = copy_network(normed("old weight norm"))
    twin(PROBE).sum().backward()
    assert twin.body[0].weight_g.grad.any() and twin.body[0].weight_v.grad.any()  # type: ignore[union-attr,index]


def test_what_a_forward_left_is_copied_by_its_values() -> None:
    """Also in lists, and in a buffer."""
    network = Base()
    network.register_buffer("level", network.body(PROBE).mean(), persistent=False)
    network.seen = [{"hidden": network.body(PROBE)}]  # type: ignore[assignment]
    twin = copy_network(network)
    assert twin.level.equal(network.level) and twin.level.is_leaf  # type: ignore[union-attr,operator]
    assert twin.seen[0]["hidden"].equal(network.seen[0]["hidden"])  # type: ignore[index,union-attr]
    assert network.level.grad_fn is not None  # type: ignore[union-attr]


def test_what_nobody_can_copy_is_one_line() -> None:
    network = Base()
    network.secret = (line for line in "ab")  # type: ignore[assignment]
    with pytest.raises(ClassifierError, match=r"cannot be copied \(TypeError: .*generator") as caught:
        copy_network(network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NORMS)
def test_torch_itself_copies_a_classifier_around_it(name: str) -> None:
    """As the moving average of a training does."""
    classifier = external(copy_network(normed(name)))
    sigma = torch.full((2,), 0.1)
    twin = copy.deepcopy(classifier)
    torch.testing.assert_close(twin(PROBE, sigma), classifier(PROBE, sigma))


def test_letting_go_keeps_what_hangs_in_no_graph() -> None:
    network = normed("old weight norm")
    network(PROBE)
    assert let_go_of_graphs(network) is network
    assert network.body[0].weight.is_leaf and network.body[0].weight_g.requires_grad  # type: ignore[union-attr,index]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_named_and_converted(kind: torch.dtype) -> None:
    network, plain = Base().to(kind), Base()
    name = str(kind).removeprefix("torch.")
    assert precision_note(network) == (f"its weights are {name}; they are converted to float32",)
    assert in_float32(network) is network and precision_note(network) == ()
    for own, wanted in zip(network.parameters(), plain.parameters(), strict=True):
        assert own.equal(wanted.to(kind).float())


def test_all_precisions_are_named_and_counts_are_none() -> None:
    tensors: dict[str, Tensor] = {"a": torch.zeros(1).half(), "b": torch.zeros(1).double(), "c": torch.zeros(1), "d": torch.zeros(1).long()}
    assert precision_note(tensors) == ("its weights are float16 and float64; they are converted to float32",)
    assert precision_note({name: tensors[name] for name in "cd"}) == ()


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_a_classifier_runs_in_float32_whatever_its_network_was(kind: torch.dtype) -> None:
    sigma = torch.full((2,), 0.1)
    logits = external(Base().to(kind))(PROBE, sigma)
    torch.testing.assert_close(logits, external(Base())(PROBE, sigma), rtol=1e-2, atol=1e-3)
