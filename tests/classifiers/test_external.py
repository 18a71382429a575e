"""external.py: someone else's network runs as it is; what it is fed, and what is taken of its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from tapped import LABELS, MEL, SCALE, SIGMA, TAPS, Toy, external, seeded, toy
from torch import Tensor, nn

from duovox.classifiers.exported import Scripted
from duovox.classifiers.external import ExternalClassifier, PatchStem, at_rest
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, NoiseConfig, TapConfig, WaveInput
from duovox.contracts import ClassifierError, ShapeError
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.griffin_lim import GriffinLim

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


@contextmanager
def heard(classifier: ExternalClassifier) -> Iterator[list[Tensor]]:
    """The inputs that the network gets within the context."""
    inputs: list[Tensor] = []
    handle = classifier.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    yield inputs
    handle.remove()


@pytest.mark.parametrize("kind", ["edm", "vp"])
def test_without_noise_the_logits_are_the_networks_own(kind: Literal["edm", "vp"]) -> None:
    """On the log-mel itself, -5 + 2.5 * mel."""
    network, mel = toy(), seeded(3, 1, 16, 16) / 2
    classifier = external(network, NoiseConfig(kind=kind))
    torch.testing.assert_close(classifier(mel, torch.full((3,), 1e-6)), network(-5 + 2.5 * mel))


@pytest.mark.parametrize("kind", ["edm", "vp"])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_a_noised_mel_is_brought_back_to_the_amplitude_of_a_clean_one(kind: Literal["edm", "vp"], sigma: float) -> None:
    """Whatever the noise process: what counts is sigma beside sigma_data."""
    classifier = external(toy(), NoiseConfig(kind=kind))
    noised = seeded(2, 1, 16, 16) / 2 + sigma * seeded(2, 1, 16, 16, seed=1)
    with heard(classifier) as inputs:
        classifier(noised, torch.full((2,), sigma))
    mel = (inputs[0] + 5) / 2.5
    amplitude = 0.5 / math.sqrt(0.25 + sigma**2)
    torch.testing.assert_close(mel, amplitude * noised)
    assert 0.4 < mel.std().item() < 0.6


def test_each_clip_has_its_own_noise_level() -> None:
    classifier, noised = external(toy()), seeded(3, 1, 16, 16)
    together = classifier(noised, SIGMA)
    for i in range(3):
        torch.testing.assert_close(classifier(noised[i : i + 1], SIGMA[i : i + 1])[0], together[i])
    assert (together - classifier(noised, SIGMA.flip(0))).abs().max() > 1e-3


def test_a_wave_is_heard_through_the_networks_own_front_end() -> None:
    """No scale of ours and no amplitude: the log-mel as it is."""
    network, wave = toy(), 0.1 * seeded(2, 3840)
    torch.testing.assert_close(external(network).hear(wave), network(LogMel(MEL)(wave)), rtol=1e-4, atol=1e-4)


def test_a_network_of_waves_hears_the_wave_itself_and_the_mel_through_the_vocoder() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(1, 4, 80, stride=40), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    wave_input, vocoder = WaveInput(samples=3000, layout="B1S"), GriffinLim(MEL, iterations=4, inversion_steps=10)
    config = ExternalConfig(labels=LABELS, wave_input=wave_input)
    classifier = ExternalClassifier(config, network, build_front_end(MEL, None, wave_input, vocoder), MEL, SCALE, NoiseConfig())
    wave, mel = 0.1 * seeded(2, 3840), seeded(2, 1, 16, 16) / 2
    torch.testing.assert_close(classifier.hear(wave), network(wave[:, None, :3000]))
    expected = network(vocoder(-5 + 2.5 * mel)[:, None, :3000])
    torch.testing.assert_close(classifier(mel, torch.full((2,), 1e-6)), expected, rtol=1e-3, atol=1e-4)


def test_the_stem_is_the_input_itself_in_squares() -> None:
    classifier, noised = external(toy(), patch=4), seeded(2, 1, 16, 16)
    outputs: list[Tensor] = []
    handle = classifier.stem.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    classifier(noised, torch.full((2,), 1.0))
    handle.remove()
    (stem,) = outputs
    assert stem.shape == (2, 16, 4, 4)
    torch.testing.assert_close(nn.functional.pixel_shuffle(stem, 4), noised * 0.5 / math.sqrt(1.25))
    assert torch.equal(PatchStem(1)(noised), noised)


def test_tap_names_and_axes() -> None:
    plain, tapped = external(toy()), external(toy(), taps=TAPS)
    assert plain.tap_names == ("stem",) * 4
    assert plain.tap_axes == ("BCMT",) * 4
    assert tapped.tap_names == ("stem", "network.conv", "network.mix")
    assert tapped.tap_axes == ("BCMT", "BCMT", "BMTC")


@pytest.mark.parametrize("shape", [(2, 1, 16, 15), (2, 1, 15, 16), (2, 16, 16), (2, 2, 16, 16)])
def test_other_mels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected a mel"):
        external(toy())(torch.zeros(shape), torch.ones(2))


def test_under_autocast_the_front_end_stays_in_float32() -> None:
    """And the logits come in float32 whatever the network does."""
    classifier, noised = external(toy()), seeded(2, 1, 16, 16)
    with heard(classifier) as inputs:
        plain = classifier(noised, SIGMA[:2])
        with torch.autocast("cpu", torch.bfloat16):
            cast = classifier(noised, SIGMA[:2])
    assert torch.equal(inputs[0], inputs[1])
    assert cast.dtype == torch.float32
    assert not torch.equal(cast, plain)
    torch.testing.assert_close(cast, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_networks_run_without_cudnn(kind: type[nn.RNNBase]) -> None:
    """cuDNN refuses the gradient of a recurrent layer in eval mode; it is off while such a network runs, and on again afterwards."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head, self.seen = kind(16, 3, batch_first=True), nn.Linear(3, 3), []  # type: ignore[var-annotated,call-arg]

        def forward(self, mel: Tensor) -> Tensor:
            self.seen.append(torch.backends.cudnn.enabled)
            return self.head(self.rnn(mel[:, 0])[0].mean(dim=1))

    network = Recurrent().eval()
    external(network)(torch.zeros(1, 1, 16, 16), torch.ones(1))
    assert network.seen == [False]
    assert torch.backends.cudnn.enabled


@pytest.mark.filterwarnings("ignore")  # tracing warns of what a recurrent layer checks
def test_recurrent_programs_run_without_cudnn_too() -> None:
    """The guard stands around the call of the network, so a program that no hook sees has it as well."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(16, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, mel: Tensor) -> Tensor:
            return self.head(self.rnn(mel[:, 0])[0].mean(dim=1))

    example, seen = torch.zeros(2, 1, 16, 16), list[bool]()
    program = torch.export.export(Recurrent().eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for network in (Scripted(torch.jit.trace(Recurrent().eval(), example)), torch.export.unflatten(program)):
        network.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
        noised = torch.zeros(2, 1, 16, 16, requires_grad=True)
        external(network)(noised, torch.ones(2)).sum().backward()
        assert noised.grad is not None and torch.backends.cudnn.enabled
    assert seen == [False, False]


def test_other_networks_run_with_cudnn() -> None:
    seen: list[bool] = []
    network = toy()
    network.conv.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    external(network)(torch.zeros(1, 1, 16, 16), torch.ones(1))
    assert seen == [True]


class Wrapped(nn.Module):
    """`toy`, with its logits in something."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.toy, self.wrap = toy(), wrap

    def forward(self, mel: Tensor) -> object:
        return self.wrap(self.toy(mel))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: {"logits": x}, ""),
        (lambda x: (x + 1, x), "1"),
        (lambda x: SimpleNamespace(head=x, body=x + 1), "head"),
        (lambda x: x.double(), ""),
    ],
    ids=["dict", "tuple", "object", "float64"],
)
def test_a_classifier_gives_the_logits_it_is_told_to(wrap: Callable[[Tensor], object], output: str) -> None:
    noised = seeded(3, 1, 16, 16)
    logits = external(Wrapped(wrap), output=output)(noised, SIGMA)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, external(toy())(noised, SIGMA))


def test_another_number_of_labels_is_an_error() -> None:
    torch.manual_seed(0)
    with pytest.raises(ClassifierError, match=r"shape \(2, 4\), but 3 labels need \(B, 3\): name its 4 labels in the order of its outputs"):
        external(Toy(outputs=4).eval())(torch.zeros(2, 1, 16, 16), SIGMA[:2])


@pytest.mark.parametrize("wrap", [lambda x: x[:, None], lambda x: x.sum()], ids=["an axis more", "a number"])
def test_logits_of_another_rank_are_an_error(wrap: Callable[[Tensor], object]) -> None:
    with pytest.raises(ClassifierError, match=r"not of the axes BK that its recipe says"):
        external(Wrapped(wrap))(torch.zeros(2, 1, 16, 16), SIGMA[:2])


def test_in_train_mode_statistics_and_front_end_rest() -> None:
    classifier = external(toy(), taps=TAPS, conditioned=True)
    assert classifier.train() is classifier
    network = classifier.network
    assert network.training
    assert network.drop.training  # type: ignore[union-attr]
    assert not network.norm.training  # type: ignore[union-attr]
    assert not any(part.training for part in classifier.front_end.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert not torch.equal(*(classifier(seeded(3, 1, 16, 16), SIGMA) for _ in range(2)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    classifier.eval()
    assert not any(part.training for part in classifier.modules())


def test_counting_channels_leaves_a_network_in_train_mode_as_it_was() -> None:
    """One clip of silence would spoil batch statistics, and of a vector of one clip there are none."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3)
    )
    network[2].eval()
    network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    classifier = external(network, taps=(TapConfig("1", "BCMT"),), conditioned=True)
    assert classifier.modulation is not None
    assert [layer.out_features for layer in classifier.modulation.layers] == [8]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [layer.training for layer in network] == [True, True, False, True, True, True]
    assert [p.requires_grad for p in network[0].parameters()] == [False, True]


def test_a_network_that_cannot_run_is_refused_when_its_channels_are_counted() -> None:
    with pytest.raises(ClassifierError, match=r"input of shape \(1, 1, 16, 16\)"):
        external(nn.Sequential(nn.Conv2d(3, 4, 3)), taps=(TapConfig("0", "BCMT"),), conditioned=True)


def test_at_rest_and_back() -> None:
    network = toy().train()
    network.norm.eval()
    network.head.weight.requires_grad_(False)
    with pytest.raises(KeyError), at_rest(network):
        assert not any(part.training for part in network.modules())
        assert not any(p.requires_grad for p in network.parameters())
        raise KeyError
    assert [name for name, part in network.named_modules() if not part.training] == ["norm"]
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["head.weight"]


@pytest.mark.parametrize(
    ("wrap", "settings"),
    [
        (lambda x: x.softmax(1), {"output_kind": "probabilities"}),
        (lambda x: x.log_softmax(1), {"output_kind": "log_probabilities"}),
        (lambda x: x[:, None].expand(-1, 5, -1), {"output_axes": "BTK"}),
        (lambda x: x.T, {"output_axes": "KB"}),
    ],
    ids=["probabilities", "log-probabilities", "frames", "transposed"],
)
def test_outputs_are_read_as_they_are_said_to_be(wrap: Callable[[Tensor], object], settings: dict[str, Any]) -> None:
    noised = seeded(3, 1, 16, 16)
    logits = external(Wrapped(wrap), **settings)(noised, SIGMA)
    torch.testing.assert_close(logits.log_softmax(1), external(toy())(noised, SIGMA).log_softmax(1))
