"""modulation.py: a scale and a shift by noise level lie along the right axes, and the hooks are gone afterwards."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch
from tapped import MEL, SIGMA, TAPS, external, seeded, toy
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier, NoiseModulation
from duovox.config import TapConfig
from duovox.contracts import ClassifierError
from duovox.diffusion.taps import first_tensor
from duovox.sound.mel import LogMel


def awaken(classifier: ExternalClassifier) -> ExternalClassifier:
    """The modulation says something."""
    assert classifier.modulation is not None
    for number, layer in enumerate(classifier.modulation.layers):
        with torch.no_grad():
            layer.weight.copy_(seeded(*layer.weight.shape, seed=number))  # type: ignore[operator]
    return classifier


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


MATRIX, OTHER, CUBE = seeded(2, 3), seeded(2, 3, seed=1), seeded(2, 5, 3, seed=2)

Named = namedtuple("Named", ["first", "second"])


def test_a_fresh_modulation_changes_nothing() -> None:
    noised = seeded(3, 1, 16, 16)
    plain, conditioned = external(toy(), taps=TAPS), external(toy(), taps=TAPS, conditioned=True)
    assert plain.modulation is None
    assert external(toy(), conditioned=True).modulation is None
    assert torch.equal(conditioned(noised, SIGMA), plain(noised, SIGMA))
    conditioned(noised, SIGMA).sum().backward()
    assert conditioned.modulation is not None
    assert all(layer.weight.grad.any() for layer in conditioned.modulation.layers)  # type: ignore[union-attr,operator]


def test_an_awake_modulation_tells_noise_levels_apart() -> None:
    """At one input: its amplitude is undone, so that the modulation alone knows sigma."""
    network = toy()
    classifier, plain = awaken(external(network, taps=TAPS, conditioned=True)), external(network)
    mel, sigmas = seeded(1, 1, 16, 16), torch.tensor([0.05, 0.5, 5.0])
    noised = mel * (0.25 + sigmas.square()).sqrt()[:, None, None, None] / 0.5
    same, logits = plain(noised, sigmas), classifier(noised, sigmas)
    torch.testing.assert_close(same, same[:1].expand(3, 3), rtol=1e-4, atol=1e-4)
    assert min((logits[i] - logits[j]).abs().max().item() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01
    for i in range(3):
        torch.testing.assert_close(classifier(noised[i : i + 1], sigmas[i : i + 1])[0], logits[i])


def test_a_heard_wave_counts_as_clean() -> None:
    classifier, wave = awaken(external(toy(), taps=TAPS, conditioned=True)), 0.1 * seeded(1, 3840)
    mel = (LogMel(MEL)(wave) + 5) / 2.5
    torch.testing.assert_close(
        classifier.hear(wave), classifier(mel * (0.25 + 1e-4) ** 0.5 / 0.5, torch.tensor([0.01])), rtol=1e-3, atol=1e-3
    )


class Giving(nn.Module):
    """Gives what it is told to, whatever it is asked."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: object = None) -> object:
        return self.output


def modulation_of(channels: int) -> NoiseModulation:
    """Scales channel c by 1 + c + level and shifts it by 10 (c + 1), where `level` is what `applied` is called with."""
    modulation = NoiseModulation({"layer": channels}, width=2)
    modulation.embedding = nn.Identity()  # type: ignore[assignment]
    count = torch.arange(channels, dtype=torch.float32)
    with torch.no_grad():
        layer = modulation.layers[0]
        layer.weight.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)])[:, None] * torch.tensor([1.0, 0.0]))  # type: ignore[operator]
        layer.bias.copy_(torch.cat([count, 10 * (count + 1)]))  # type: ignore[operator]
    return modulation


@pytest.mark.parametrize("axes", ["BCMT", "BCTM", "BMTC", "TBCM", "CBT", "BCT", "BTC", "TBC", "TCB", "BCM"])
def test_scale_and_shift_lie_along_batch_and_channels(axes: str) -> None:
    sizes = {"B": 2, "C": 3, "M": 4, "T": 5}
    tensor = seeded(*(sizes[letter] for letter in axes))
    parent = nn.Module()
    parent.layer = Giving(tensor)
    levels = torch.tensor([[0.0, 9.0], [0.5, 9.0]])
    with modulation_of(3).applied(parent, {"layer": axes}, levels):
        changed = parent.layer()
    for b in range(2):
        for c in range(3):
            index = tuple({"B": b, "C": c}.get(letter, slice(None)) for letter in axes)
            torch.testing.assert_close(changed[index], tensor[index] * (1 + c + 0.5 * b) + 10 * (c + 1))
    assert torch.equal(parent.layer(), tensor)


@pytest.mark.parametrize(
    "output",
    [
        CUBE,
        (CUBE, OTHER),
        [CUBE, None],
        (None, CUBE, OTHER),
        ([], (CUBE, OTHER)),
        {"mask": None, "hidden": CUBE, "other": OTHER},
        OrderedDict(hidden=(CUBE, OTHER)),
        Named(CUBE, OTHER),
    ],
    ids=["tensor", "tuple", "list", "after None", "nested", "dict", "ordered", "named"],
)
def test_the_modulated_tensor_is_the_tapped_one(output: object) -> None:
    """Of outputs of several parts the first tensor, as `taps.first_tensor` says; all else stays, and so does the original."""
    parent = nn.Module()
    parent.layer = Giving(output)
    with modulation_of(3).applied(parent, {"layer": "BTC"}, torch.zeros(2, 2)):
        changed = parent.layer()
    assert type(changed) is type(output)
    scale, shift = torch.arange(3.0), 10 * torch.arange(1.0, 4.0)
    torch.testing.assert_close(first_tensor(changed), CUBE * (1 + scale) + shift)
    assert first_tensor(output) is CUBE
    assert str(output).count("tensor") == str(changed).count("tensor")


def test_a_tapped_recurrent_layer_is_modulated() -> None:
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(16, 4), nn.Linear(4, 3)

        def forward(self, mel: Tensor) -> Tensor:
            return self.head(self.rnn(mel[:, 0].permute(2, 0, 1))[0].mean(dim=0))

    classifier = awaken(external(Recurrent().eval(), taps=(TapConfig("rnn", "TBC"),), conditioned=True))
    assert classifier.modulation is not None
    assert [layer.out_features for layer in classifier.modulation.layers] == [8]
    noised = seeded(3, 1, 16, 16)
    plain = external(classifier.network)
    assert (classifier(noised, SIGMA) - plain(noised, SIGMA)).abs().amax(dim=1).min() > 0.01


def test_the_hooks_are_gone_afterwards() -> None:
    classifier = awaken(external(toy(), taps=TAPS, conditioned=True))
    assert hooks(classifier) == 0
    seen: list[int] = []
    classifier.network.head.register_forward_hook(lambda *_: seen.append(hooks(classifier)))  # type: ignore[operator,union-attr]
    classifier(torch.zeros(1, 1, 16, 16), torch.ones(1))
    assert seen == [1 + len(TAPS)]
    assert hooks(classifier) == 1


def test_the_hooks_are_gone_after_an_error() -> None:
    classifier = awaken(external(toy(), taps=TAPS, conditioned=True))

    def breaks(*_: object) -> None:
        raise ValueError("first\nsecond")

    handle = classifier.network.head.register_forward_pre_hook(breaks)  # type: ignore[operator,union-attr]
    with pytest.raises(ClassifierError, match=r"cannot run on an input of shape \(1, 1, 16, 16\) \(ValueError: first\);"):
        classifier(torch.zeros(1, 1, 16, 16), torch.ones(1))
    handle.remove()
    assert hooks(classifier) == 0
