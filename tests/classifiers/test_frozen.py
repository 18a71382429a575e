"""classifiers/frozen.py: what is frozen stays so, and the fingerprint sees a single bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from duovox.classifiers.frozen import FrozenClassifier, fingerprint


class Network(nn.Module):
    """With dropout and batch norm: both behave otherwise, and one changes its state, in train mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 3)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.linear(self.dropout(self.norm(noised))) + sigma[:, None]


@pytest.fixture
def frozen() -> FrozenClassifier:
    return FrozenClassifier(Network().train())


INPUT = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5)


def is_locked(frozen: FrozenClassifier) -> bool:
    return not any(m.training for m in frozen.network.modules()) and not any(p.requires_grad for p in frozen.parameters())


def test_freezing_puts_the_whole_network_in_eval_mode_without_gradients(frozen: FrozenClassifier) -> None:
    assert is_locked(frozen)
    assert torch.equal(frozen(*INPUT), frozen(*INPUT))
    assert frozen.unchanged()


def test_train_and_requires_grad_have_no_effect(frozen: FrozenClassifier) -> None:
    assert frozen.train() is frozen
    assert frozen.train(True).eval() is frozen
    assert frozen.requires_grad_() is frozen
    assert is_locked(frozen)


def test_train_on_what_holds_it_has_no_effect(frozen: FrozenClassifier) -> None:
    """Batch statistics and dropout would make the classifier another one at every step."""
    holder = nn.ModuleDict({"classifier": frozen, "other": nn.Linear(2, 2)}).train()
    assert holder["other"].training
    assert is_locked(frozen)
    frozen(*INPUT)
    assert frozen.unchanged()


def test_copies_stay_frozen(frozen: FrozenClassifier) -> None:
    twin = copy.deepcopy(frozen)
    assert is_locked(twin.train())
    assert twin.unchanged()
    assert twin.fingerprint == frozen.fingerprint


def test_one_flipped_bit_is_seen(frozen: FrozenClassifier) -> None:
    with torch.no_grad():
        bits = frozen.network.linear.weight.view(torch.int32)  # type: ignore[union-attr, operator]
        bits[1, 2] ^= 1
    assert not frozen.unchanged()
    with torch.no_grad():
        bits[1, 2] ^= 1
    assert frozen.unchanged()


def test_a_changed_buffer_is_seen(frozen: FrozenClassifier) -> None:
    frozen.network.norm.running_mean[0] += 1e-6  # type: ignore[union-attr, index]
    assert not frozen.unchanged()


def test_the_sign_of_zero_is_a_bit() -> None:
    one, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    one.weight.data.fill_(0.0)
    other.weight.data.fill_(-0.0)
    assert fingerprint(one) != fingerprint(other)


def test_names_shapes_and_types_count() -> None:
    """The same bytes under another name, in another shape or as another type are another state."""
    values = torch.arange(4.0)

    def state(name: str, tensor: Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return fingerprint(module)

    assert state("a", values) == state("a", values.clone())
    assert state("a", values) != state("b", values)
    assert state("a", values) != state("a", values.reshape(2, 2))
    assert state("a", values) != state("a", values.view(torch.int32))


def test_the_fingerprint_ignores_how_a_tensor_lies_in_memory() -> None:
    """channels_last is a matter of speed, not of state; a scalar buffer has bytes too."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = fingerprint(module)
    assert fingerprint(module.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
    module[1].num_batches_tracked += 1  # type: ignore[operator]
    assert fingerprint(module) != before


def test_freezing_again_takes_the_new_state(frozen: FrozenClassifier) -> None:
    before = frozen.fingerprint
    frozen.network.load_state_dict({name: value + 1 for name, value in frozen.network.state_dict().items()})
    assert not frozen.unchanged()
    frozen.freeze()
    assert frozen.unchanged()
    assert frozen.fingerprint != before
