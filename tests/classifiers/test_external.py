"""external.py: someone else's network runs as it is; what it is fed, what is taken of its output, and the modulation by noise."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier, NoiseModulation, Squares, at_rest, pick_logits
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, MelConfig, MelInput, MelScale, NoiseConfig, TapConfig, WaveInput
from duovox.contracts import ClassifierError, ShapeError
from duovox.diffusion.taps import first_tensor
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.griffin_lim import GriffinLim

MEL = MelConfig(n_mels=16, frames=16, clip_samples=3840)
SCALE = MelScale("standard", -5.0, 2.5)
LABELS = ("a", "b", "c")
TAPS = (TapConfig("conv", "BCMT"), TapConfig("mix", "BMTC"))
SIGMA = torch.tensor([0.05, 1.0, 20.0])


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Toy(nn.Module):
    """A network on (B, 1, 16, 16): convolution, batch statistics, dropout, and a layer with the channels last."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, outputs)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.drop(torch.tanh(self.norm(self.conv(mel))))
        return self.head(torch.tanh(self.mix(hidden.permute(0, 2, 3, 1))).mean(dim=(1, 2)))


def toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    network = Toy()
    network.norm.running_mean = seeded(4)
    network.norm.running_var = seeded(4, seed=1).exp()
    return network.eval()


def external(network: nn.Module, noise: NoiseConfig | None = None, output: str = "", **settings: Any) -> ExternalClassifier:
    """`network` as a classifier on our own mel, unscaled."""
    mel = MelInput(n_mels=16, frames=16)
    config = ExternalConfig(labels=LABELS, mel_input=mel, output=output, **settings)
    front_end = build_front_end(MEL, mel, None, None)
    return ExternalClassifier(config, network, front_end, MEL, SCALE, noise or NoiseConfig())


def awaken(classifier: ExternalClassifier) -> ExternalClassifier:
    """The modulation says something."""
    assert classifier.modulation is not None
    for number, layer in enumerate(classifier.modulation.layers):
        with torch.no_grad():
            layer.weight.copy_(seeded(*layer.weight.shape, seed=number))  # type: ignore[operator]
    return classifier


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@contextmanager
def heard(classifier: ExternalClassifier) -> Iterator[list[Tensor]]:
    """The inputs that the network gets within the context."""
    inputs: list[Tensor] = []
    handle = classifier.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    yield inputs
    handle.remove()


# What the network is fed


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
    assert torch.equal(Squares(1)(noised), noised)


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


def test_other_networks_run_with_cudnn() -> None:
    seen: list[bool] = []
    network = toy()
    network.conv.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    external(network)(torch.zeros(1, 1, 16, 16), torch.ones(1))
    assert seen == [True]


# What is taken of the output

MATRIX, OTHER, CUBE = seeded(2, 3), seeded(2, 3, seed=1), seeded(2, 5, 3, seed=2)
Named = namedtuple("Named", ["first", "second"])


@pytest.mark.parametrize(
    ("output", "entry"),
    [
        (MATRIX, ""),
        (MATRIX, "0"),
        ({"logits": MATRIX, "hidden": OTHER}, ""),
        (OrderedDict(hidden=OTHER, logits=MATRIX), ""),
        ({"head": MATRIX, "logits": OTHER}, "head"),
        ({"hidden": CUBE, "scores": MATRIX, "loss": None}, ""),
        ((MATRIX,), ""),
        ((CUBE, MATRIX), ""),
        ([MATRIX, None, "text"], ""),
        ((OTHER, MATRIX), "1"),
        (Named(OTHER, MATRIX), "1"),
        (SimpleNamespace(logits=MATRIX, hidden=OTHER), ""),
        (SimpleNamespace(pooled=OTHER, scores=MATRIX, loss=None), "scores"),
        (SimpleNamespace(scores=MATRIX, hidden_states=(CUBE, CUBE)), ""),
    ],
)
def test_the_logits_are_found(output: object, entry: str) -> None:
    assert pick_logits(output, entry) is MATRIX


@pytest.mark.parametrize(
    ("output", "entry", "message"),
    [
        ((MATRIX, OTHER), "", r"tuple with the tensors 0 \(2, 3\), 1 \(2, 3\); say which holds the logits: output="),
        ({"x": CUBE}, "", r"dict with the tensors x \(2, 5, 3\)"),
        (SimpleNamespace(a=MATRIX, b=OTHER), "", r"SimpleNamespace with the tensors a \(2, 3\), b \(2, 3\)"),
        ("text", "", r"str with the tensors \(none\)"),
        (None, "", r"NoneType with the tensors \(none\)"),
        ({"a": MATRIX, "b": OTHER}, "head", "has no entry 'head'; it has a, b"),
        ((MATRIX, None), "1", "has no entry '1'; it has 0"),
        (MATRIX, "logits", "has no entry 'logits'; it has 0"),
        (None, "logits", "has no entry 'logits'; it has none"),
    ],
)
def test_logits_that_are_not_plain_are_named(output: object, entry: str, message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        pick_logits(output, entry)


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
    with pytest.raises(ClassifierError, match=r"3 labels need \(B, 3\): name their entry: output="):
        external(Wrapped(wrap))(torch.zeros(2, 1, 16, 16), SIGMA[:2])


# A copy that knows noise


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


# Modes


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
