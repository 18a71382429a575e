"""taps.py: on small networks whose inner gradients can be written down, and with hooks, calls and backwards counted."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from duovox.contracts import ShapeError
from duovox.diffusion.taps import NO_LABEL, Taps, as_map, first_tensor, read_taps, recording, tap_energy

NAMES = ("first", "second")


class Toy(nn.Module):
    """noised (B, 1, 4, 4), sigma (B,) -> logits (B, 3); float64; counts its forwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 2, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 3)
        self.calls = 0
        self.double()

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        first = self.first(noised / (1 + sigma[:, None, None, None]))
        return self.after_second(self.second(torch.tanh(first)))

    def after_second(self, second: Tensor) -> Tensor:
        """The rest of the network, from the second tap on."""
        return self.head(torch.tanh(second).flatten(1))

    def after_first(self, first: Tensor) -> Tensor:
        """The rest of the network, from the first tap on."""
        return self.after_second(self.second(torch.tanh(first)))


@pytest.fixture
def toy() -> Toy:
    return Toy()


NOISED = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIGMA = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
LABEL = torch.tensor([0, 2, 1, 2])
MIXED = torch.tensor([0, NO_LABEL, 1, NO_LABEL])


def energies(logits: Tensor, label: Tensor | None) -> Tensor:
    """The tapped scalar of each item, item by item."""
    labels = [NO_LABEL] * len(logits) if label is None else label.tolist()
    values = [torch.log(row.exp().sum()) if k == NO_LABEL else row[k] for row, k in zip(logits, labels, strict=True)]
    return torch.stack(values)


@pytest.mark.parametrize("label", [None, LABEL, MIXED], ids=["logsumexp", "label", "mixed"])
def test_gradients_are_those_of_each_items_own_scalar(toy: Toy, label: Tensor | None) -> None:
    """Against autograd through the rest of the network alone, started at the activation."""
    taps = read_taps(toy, NAMES, NOISED, SIGMA, label=label)
    assert taps.gradients is not None
    for activation, gradient, rest in zip(taps.activations, taps.gradients, (toy.after_first, toy.after_second), strict=True):
        hidden = activation.clone().requires_grad_()
        (expected,) = torch.autograd.grad(energies(rest(hidden), label).sum(), hidden)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("label", [None, LABEL, MIXED], ids=["logsumexp", "label", "mixed"])
def test_gradients_equal_finite_differences(toy: Toy, label: Tensor | None) -> None:
    taps = read_taps(toy, NAMES, NOISED, SIGMA, label=label)
    assert taps.gradients is not None
    direction = torch.randn(taps.activations[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (energies(toy.after_first(taps.activations[0] + step * direction), label) for step in (1e-5, -1e-5))
    slope = (taps.gradients[0] * direction).sum(dim=(1, 2, 3))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)


def test_activations_and_logits_are_those_of_the_plain_forward(toy: Toy) -> None:
    taps = read_taps(toy, NAMES, NOISED, SIGMA)
    first = toy.first(NOISED / (1 + SIGMA[:, None, None, None]))
    torch.testing.assert_close(taps.activations[0], first.detach())
    torch.testing.assert_close(taps.activations[1], toy.second(torch.tanh(first)).detach())
    torch.testing.assert_close(taps.logits, toy(NOISED, SIGMA).detach())


def test_taps_come_in_the_order_of_their_names(toy: Toy) -> None:
    there, back = read_taps(toy, NAMES, NOISED, SIGMA), read_taps(toy, NAMES[::-1], NOISED, SIGMA)
    assert there.gradients is not None
    assert back.gradients is not None
    for a, b in zip(there.activations + there.gradients, back.activations[::-1] + back.gradients[::-1], strict=True):
        assert torch.equal(a, b)


def test_logits_in_the_graph_give_a_guide_its_gradient(toy: Toy) -> None:
    """d log p(label | noised) / d noised, from the forward that the taps come from; the tapped label does not leak into it."""
    noised = NOISED.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch.log_softmax(toy(noised, SIGMA), dim=1)[torch.arange(4), LABEL].sum(), noised)
    for gradients in (True, False):
        taps = read_taps(toy, NAMES, noised, SIGMA, gradients=gradients, label=MIXED, graph="logits")
        (gradient,) = torch.autograd.grad(torch.log_softmax(taps.logits, dim=1)[torch.arange(4), LABEL].sum(), noised)
        torch.testing.assert_close(gradient, expected)
        assert not any(tensor.requires_grad for tensor in (*taps.activations, *(taps.gradients or ())))


def test_the_graph_changes_no_tap(toy: Toy) -> None:
    noised = NOISED.clone().requires_grad_()
    plain = read_taps(toy, NAMES, noised, SIGMA, label=MIXED)
    for graph in ("logits", "activations"):
        kept = read_taps(toy, NAMES, noised, SIGMA, label=MIXED, graph=graph)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(everything(plain), everything(kept), strict=True))


def test_tap_energy_mixes_labels_and_logsumexp_by_item() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [500.0, 500.0, 0.0]])
    log = torch.log(torch.tensor([3.0, 2.0]))
    torch.testing.assert_close(tap_energy(logits, torch.tensor([1, NO_LABEL, NO_LABEL])), torch.tensor([2.0, log[0], 500 + log[1]]))
    torch.testing.assert_close(tap_energy(logits, torch.full((3,), NO_LABEL)), tap_energy(logits, None))


def test_items_do_not_meet(toy: Toy) -> None:
    """One sum, one backward: item i's gradients are the same alone."""
    together = read_taps(toy, NAMES, NOISED, SIGMA, label=MIXED)
    for i in range(4):
        own = slice(i, i + 1)
        alone = read_taps(toy, NAMES, NOISED[own], SIGMA[own], label=MIXED[own])
        assert together.gradients is not None
        assert alone.gradients is not None
        torch.testing.assert_close(alone.gradients[0], together.gradients[0][own])


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in module.modules())


def test_hooks_are_gone_after_use(toy: Toy) -> None:
    with recording(toy, NAMES) as outputs:
        assert hooks(toy) == 2
        toy(NOISED, SIGMA)
    assert set(outputs) == set(NAMES)
    read_taps(toy, NAMES, NOISED, SIGMA)
    assert hooks(toy) == 0


def test_hooks_are_gone_after_an_error(toy: Toy) -> None:
    with pytest.raises(RuntimeError):
        read_taps(toy, NAMES, NOISED[:, :, :, :1], SIGMA)
    assert hooks(toy) == 0
    with pytest.raises((RuntimeError, IndexError)):
        read_taps(toy, NAMES, NOISED, SIGMA, label=torch.full((4,), 3))
    assert hooks(toy) == 0


@pytest.mark.parametrize("options", [{}, {"gradients": False}, {"label": MIXED}, {"graph": "logits"}, {"graph": "activations"}])
def test_one_forward_serves_all(toy: Toy, options: dict[str, object]) -> None:
    read_taps(toy, NAMES, NOISED.clone().requires_grad_(), SIGMA, **options)  # type: ignore[arg-type]
    assert toy.calls == 1


@pytest.mark.parametrize(("options", "count"), [({}, 1), ({"gradients": False}, 0), ({"graph": "logits"}, 1)])
def test_backwards_are_only_those_asked_for(toy: Toy, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], count: int) -> None:
    calls: list[int] = []
    backward = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or backward(*a, **k))
    taps = read_taps(toy, NAMES, NOISED.clone().requires_grad_(), SIGMA, **options)  # type: ignore[arg-type]
    assert len(calls) == count
    assert (taps.gradients is None) == (count == 0)


def everything(taps: Taps) -> list[Tensor]:
    assert taps.gradients is not None
    return [*taps.activations, *taps.gradients, taps.logits]


def test_nothing_reaches_a_parameter_or_the_caller(toy: Toy) -> None:
    """Trainable or frozen: no .grad anywhere, and the taps carry no graph that a training could walk down."""
    noised = NOISED.clone().requires_grad_()
    for trainable in (True, False):
        toy.requires_grad_(trainable)
        taps = read_taps(toy, NAMES, noised, SIGMA, label=MIXED)
        assert all(p.grad is None for p in toy.parameters())
        assert noised.grad is None
        assert not any(t.requires_grad for t in everything(taps))


def test_the_callers_mel_is_left_as_it_was(toy: Toy) -> None:
    """Were it marked as wanting gradients, every later step of a sampler would grow the graph."""
    noised = NOISED.clone()
    read_taps(toy, NAMES, noised, SIGMA)
    assert not noised.requires_grad
    assert torch.equal(noised, NOISED)


def test_works_where_gradients_are_off(toy: Toy) -> None:
    """Sampling runs under no_grad; the taps need gradients all the same, and leave the switch as it was."""
    wanted = read_taps(toy, NAMES, NOISED, SIGMA, label=MIXED)
    with torch.no_grad():
        got = read_taps(toy, NAMES, NOISED, SIGMA, label=MIXED)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(everything(wanted), everything(got), strict=True))


def test_plain_taps_build_no_graph(toy: Toy) -> None:
    seen: list[bool] = []
    handle = toy.second.register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    read_taps(toy, NAMES, NOISED, SIGMA, gradients=False)
    handle.remove()
    assert seen == [False]


def test_an_unknown_layer_is_named(toy: Toy) -> None:
    with pytest.raises(AttributeError, match="third"):
        read_taps(toy, ("first", "third"), NOISED, SIGMA)
    assert hooks(toy) == 0


# Taps of other people's layers


@pytest.mark.parametrize("letters", ["BCMT", "BCT", "BCM"])
def test_a_map_has_its_axes_in_order(letters: str) -> None:
    """Every order of the axes; a missing one has length 1."""
    sizes = {"B": 2, "C": 3, "M": 4, "T": 5}
    for axes in itertools.permutations(letters):
        tensor = torch.arange(sum(1 for _ in itertools.product(*(range(sizes[a]) for a in axes)))).reshape([sizes[a] for a in axes])
        tapped = as_map(tensor, "".join(axes))
        assert tapped.shape == tuple(sizes[a] if a in axes else 1 for a in "BCMT")
        for place in itertools.product(*(range(n) for n in tapped.shape)):
            there = dict(zip("BCMT", place, strict=True))
            assert tapped[place] == tensor[tuple(there[a] for a in axes)]


def test_a_map_is_a_view_through_which_gradients_pass() -> None:
    tensor = torch.zeros(5, 2, 3, requires_grad=True)
    as_map(tensor, "TBC")[1, 2, 0, 4].backward()
    assert tensor.grad is not None
    assert tensor.grad.nonzero().tolist() == [[4, 1, 2]]


def test_activations_and_gradients_are_brought_into_form(toy: Toy) -> None:
    plain = read_taps(toy, NAMES, NOISED, SIGMA)
    turned = read_taps(toy, NAMES, NOISED, SIGMA, axes=("BCTM", "BMTC"))
    assert plain.gradients is not None
    assert turned.gradients is not None
    for before, after in ((plain.activations, turned.activations), (plain.gradients, turned.gradients)):
        assert torch.equal(after[0], before[0].transpose(2, 3))
        assert torch.equal(after[1], before[1].permute(0, 3, 1, 2))
    assert read_taps(toy, NAMES, NOISED, SIGMA, gradients=False, axes=("BCTM", "BMTC")).gradients is None


@pytest.mark.parametrize("gradients", [True, False])
@torch.no_grad()
def test_attached_activations_keep_their_graph(toy: Toy, gradients: bool) -> None:
    """Even where gradients are off; the gradient taps stay plain data."""
    noised = NOISED.clone().requires_grad_()
    taps = read_taps(toy, NAMES, noised, SIGMA, gradients=gradients, graph="activations", axes=("BCTM", "BCMT"))
    plain = read_taps(toy, NAMES, NOISED, SIGMA, axes=("BCTM", "BCMT"))
    weights = [torch.randn(a.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) for a in taps.activations]
    with torch.enable_grad():
        first = toy.first(noised / (1 + SIGMA[:, None, None, None]))
        by_hand = (weights[0] * first.transpose(2, 3)).sum() + (weights[1] * toy.second(torch.tanh(first))).sum()
        (expected,) = torch.autograd.grad(by_hand, noised)
        total = sum((w * a).sum() for w, a in zip(weights, taps.activations, strict=True))
        (gradient,) = torch.autograd.grad(total, noised)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient, expected)
    for ours, theirs in zip(taps.gradients or (), plain.gradients or (), strict=gradients):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    torch.testing.assert_close(taps.logits.detach(), plain.logits)
    assert noised.grad is None


def test_the_same_layer_may_be_tapped_several_times(toy: Toy) -> None:
    once, twice = read_taps(toy, ("first",), NOISED, SIGMA), read_taps(toy, ("first", "first"), NOISED, SIGMA)
    assert once.gradients is not None
    assert twice.gradients is not None
    for i in range(2):
        assert torch.equal(twice.activations[i], once.activations[0])
        assert torch.equal(twice.gradients[i], once.gradients[0])


ONE, TWO = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    ("output", "found"),
    [(ONE, ONE), ((ONE, TWO), ONE), ([None, TWO], TWO), ({"a": None, "b": [(), TWO]}, TWO), ((), None), (None, None), ("text", None)],
)
def test_the_first_tensor_of_an_output(output: object, found: Tensor | None) -> None:
    assert first_tensor(output) is found


class Tupled(nn.Module):
    """A layer that gives (hidden, state), as recurrent layers do, or no tensor at all."""

    def __init__(self, tensors: bool) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self, hidden: Tensor) -> object:
        return (2 * hidden, None) if self.tensors else "text"


class Around(nn.Module):
    def __init__(self, tensors: bool) -> None:
        super().__init__()
        self.layer = Tupled(tensors)

    def forward(self, noised: Tensor, _: Tensor) -> Tensor:
        output = self.layer(noised)
        return (output[0] if isinstance(output, tuple) else noised).sum(dim=(2, 3))


def test_of_a_tuple_the_first_tensor_is_tapped() -> None:
    taps = read_taps(Around(True), ("layer",), NOISED, SIGMA)
    assert taps.gradients is not None
    assert torch.equal(taps.activations[0], 2 * NOISED)
    assert torch.equal(taps.gradients[0], torch.ones_like(NOISED))


def test_a_layer_without_a_tensor_is_named() -> None:
    around = Around(False)
    with pytest.raises(ShapeError, match="layer 'layer' gives no tensor but str"):
        read_taps(around, ("layer",), NOISED, SIGMA)
    assert hooks(around) == 0


def test_tap_energy_of_shares_is_the_logits_weighed_by_them() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])
    assert tap_energy(logits, torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])).tolist() == [2.5, 5.0]
