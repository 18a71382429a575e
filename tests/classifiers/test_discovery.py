"""discovery.py: on toy networks of every family, the layers that can be tapped, the axes of their outputs and the choice of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duovox.classifiers.discovery import FEW, ITEMS, MOST, Candidate, candidates, choose, find_axes, resolve
from duovox.classifiers.exported import Scripted
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.config import ExternalConfig, MelConfig, MelInput, MelScale, NoiseConfig, TapConfig, WaveInput
from duovox.contracts import ClassifierError
from duovox.model import build_model
from duovox.sound.vocoder.griffin_lim import GriffinLim

MEL = MelConfig(n_mels=16, frames=16, clip_samples=3840)
"""As many rows as frames: no shape tells which axis is which."""

WAVE = WaveInput(samples=3840, layout="B1S")
Layout = str | WaveInput


def external(network: nn.Module, takes: Layout = "B1MT", taps: tuple[TapConfig, ...] = ()) -> ExternalClassifier:
    """`network`, with three labels, on our own mel in a layout, or on a waveform."""
    wave = takes if isinstance(takes, WaveInput) else None
    mel = None if wave else MelInput(n_mels=16, frames=16, layout=takes)  # type: ignore[arg-type]
    config = ExternalConfig(labels=("a", "b", "c"), mel_input=mel, wave_input=wave, taps=taps)
    vocoder = GriffinLim(MEL, iterations=4, inversion_steps=10) if wave else None
    front_end = build_front_end(MEL, mel, wave, vocoder)
    return ExternalClassifier(config, network, front_end, MEL, MelScale("standard", -5.0, 2.5), NoiseConfig())


def found_in(network: nn.Module, takes: Layout = "B1MT") -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in candidates(external(network.eval(), takes))}


def image_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 10, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3)),
    )


class ChannelsLast(nn.Module):
    """As in ConvNeXt: normalised and mixed with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 8, 2, stride=2), nn.Conv2d(8, 8, 2, stride=2)
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, mel: Tensor) -> Tensor:
        mixed = self.mix(self.norm(self.stem(mel).permute(0, 2, 3, 1)))
        return self.head(self.down(torch.tanh(mixed).permute(0, 3, 1, 2)).mean(dim=(2, 3)))


def sequence_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(16, 12, 3, padding=1), nn.ReLU(), nn.Conv1d(12, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


def wave_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(1, 8, 80, stride=16), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.Conv1d(8, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 3)),
    )


class Recurrent(nn.Module):
    """A recurrent network over time; its layer gives a tuple."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool = True) -> None:
        super().__init__()
        self.first = batch_first
        self.rnn = kind(16, 12, num_layers=2, batch_first=batch_first)  # type: ignore[call-arg]
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, mel: Tensor) -> Tensor:
        over_time = self.norm(self.rnn(mel if self.first else mel.transpose(0, 1))[0])
        return self.head(over_time.mean(dim=1 if self.first else 0))


class Attentive(nn.Module):
    """A transformer with places; `convolved` puts a convolution before it whose output has the same shape, transposed."""

    def __init__(self, width: int = 12, layers: int = 4, convolved: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.enter = nn.Conv1d(16, width, 3, padding=1) if convolved else nn.Linear(16, width)
        self.convolved, self.place = convolved, nn.Parameter(torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        final = nn.LayerNorm(width) if norm else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm=final, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, mel: Tensor) -> Tensor:
        entered = self.enter(mel.transpose(1, 2)).transpose(1, 2) if self.convolved else self.enter(mel)
        return self.head(self.encoder(entered + self.place).mean(dim=1))


AXES: dict[str, tuple[Callable[[], nn.Module], Layout, dict[str, tuple[str, tuple[int, ...], tuple[float, float]]]]] = {
    "images": (
        image_net,
        "B1MT",
        {
            **{str(i): ("BCMT", (6, 16, 16), (1.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCMT", (8, 8, 8), (2.0, 2.0)) for i in (2, 3)},
            **{str(i): ("BCMT", (10, 4, 4), (4.0, 4.0)) for i in (4, 5)},
        },
    ),
    "images, time first": (
        image_net,
        "B1TM",
        {
            **{str(i): ("BCTM", (6, 16, 16), (1.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCTM", (8, 8, 8), (2.0, 2.0)) for i in (2, 3)},
            **{str(i): ("BCTM", (10, 4, 4), (4.0, 4.0)) for i in (4, 5)},
        },
    ),
    "channels last": (
        ChannelsLast,
        "B1MT",
        {
            "stem": ("BCMT", (8, 8, 8), (2.0, 2.0)),
            "norm": ("BMTC", (8, 8, 8), (2.0, 2.0)),
            "mix": ("BMTC", (8, 8, 8), (2.0, 2.0)),
            "down": ("BCMT", (8, 4, 4), (4.0, 4.0)),
        },
    ),
    "sequences": (
        sequence_net,
        "BMT",
        {
            **{str(i): ("BCT", (12, 16), (16.0, 1.0)) for i in (0, 1)},
            **{str(i): ("BCT", (16, 8), (16.0, 2.0)) for i in (2, 3)},
        },
    ),
    "waves": (
        wave_net,
        WAVE,
        {
            **{str(i): ("BCT", (8, 236), (16.0, 16 / 236)) for i in (0, 1, 2)},
            "3": ("BCT", (8, 59), (16.0, 16 / 59)),
            **{str(i): ("BCT", (24, 57), (16.0, 16 / 57)) for i in (4, 5)},
        },
    ),
    "GRU": (lambda: Recurrent(nn.GRU), "BTM", dict.fromkeys(("rnn", "norm"), ("BTC", (16, 12), (16.0, 1.0)))),
    "LSTM": (lambda: Recurrent(nn.LSTM), "BTM", dict.fromkeys(("rnn", "norm"), ("BTC", (16, 12), (16.0, 1.0)))),
    "LSTM, batch second": (lambda: Recurrent(nn.LSTM, False), "BTM", dict.fromkeys(("rnn", "norm"), ("TBC", (16, 12), (16.0, 1.0)))),
    "attention": (
        Attentive,
        "BTM",
        {
            **dict.fromkeys(("enter", "encoder", *(f"encoder.layers.{i}" for i in range(4))), ("BTC", (16, 12), (16.0, 1.0))),
            **{f"encoder.layers.{i}.linear1": ("BTC", (16, 24), (16.0, 1.0)) for i in range(4)},
            **{f"encoder.layers.{i}.self_attn": ("BTC", (16, 12), (16.0, 1.0)) for i in range(4)},
        },
    ),
    "attention, as wide as long": (
        lambda: Attentive(16, 2, convolved=True),
        "BTM",
        {
            "enter": ("BCT", (16, 16), (16.0, 1.0)),
            **dict.fromkeys(("encoder", "encoder.layers.0", "encoder.layers.1.self_attn"), ("BTC", (16, 16), (16.0, 1.0))),
        },
    ),
}


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


def moved(shape: tuple[int, ...], axis: int, by: float) -> tuple[Tensor, Tensor]:
    """Changes on the first and the last disturbance whose centres along an axis are `by` of its length apart."""
    ramp = (torch.linspace(-1, 1, shape[axis]) * by).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    slope = 1 / torch.linspace(-1, 1, shape[axis]).square().mean()
    return (1 - slope * ramp).expand(shape), (1 + slope * ramp).expand(shape)


@pytest.mark.parametrize(("by", "axes"), [(0.0, "BCMT"), (0.1, "BCMT"), (0.2, "BCTM"), (0.3, "BCTM")])
def test_the_usual_order_is_preferred_but_a_little(by: float, axes: str) -> None:
    """Time moves along axis 2 and frequency along axis 3: both together must outweigh 0.3."""
    shape = (ITEMS, 5, 8, 6)
    score, found = find_axes(torch.zeros(shape), torch.zeros(ITEMS - 1, 5, 8, 6), moved(shape, 3, by), moved(shape, 2, by))
    assert found == axes
    assert score == pytest.approx(2 * by if axes == "BCTM" else 0.3, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "fewer"),
    [
        ((ITEMS, 4), (ITEMS - 1, 4)),
        ((1, 4, 5), (1, 4, 5)),
        ((ITEMS, 4, ITEMS), (ITEMS - 1, 4, ITEMS - 1)),
        ((2 * ITEMS, 4, 5), (2 * ITEMS - 2, 4, 5)),
        ((ITEMS, 2, 2, 2, 2), (ITEMS - 1, 2, 2, 2, 2)),
        ((ITEMS, 4, 5), (ITEMS - 1, 4)),
    ],
)
def test_without_a_batch_or_time_there_are_no_axes(shape: tuple[int, ...], fewer: tuple[int, ...]) -> None:
    still = (torch.zeros(shape), torch.zeros(shape))
    assert find_axes(torch.zeros(shape), torch.zeros(fewer), still, still) == (0.0, "")


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


class Faulty(nn.Module):
    """Every way in which a layer can be no tap."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.good = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.twice = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1)
        self.dead_end, self.blind = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.unused, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.good(self.relu(self.enter(mel)))
        hidden = self.twice(torch.tanh(self.twice(hidden)))
        hidden = hidden + self.dead_end(hidden).detach() + self.blind(mel.detach())
        self.unused(hidden)
        return self.head(hidden.mean(dim=(2, 3)))


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


# What is left behind


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


# The choice


def candidate(name: str, size: tuple[int, int], fault: str = "", same_as: str = "") -> Candidate:
    rows, columns = size
    return Candidate(name, "Layer", (4, *size), "BCMT", rows, columns, (16 / rows, 16 / columns), 4 * rows * columns, fault, same_as)


def names(taps: tuple[TapConfig, ...]) -> list[str]:
    return [tap.name for tap in taps]


def test_the_last_layer_of_each_resolution_is_chosen() -> None:
    sizes = [(16, 16), (16, 16), (8, 8), (8, 8), (4, 4), (2, 2), (2, 2)]
    assert names(choose([candidate(f"l{i}", size) for i, size in enumerate(sizes)])) == ["l1", "l3", "l4", "l6"]


def test_resolutions_that_hardly_differ_count_as_one() -> None:
    found = [candidate(f"l{i}", (1, n)) for i, n in enumerate((100, 98, 40, 38, 20, 19, 9, 8))]
    assert names(choose(found)) == ["l1", "l3", "l5", "l7"]


def test_at_most_six_are_chosen_the_deepest() -> None:
    found = [candidate(f"l{i}", (1, 2 ** (12 - i))) for i in range(9)]
    assert names(choose(found)) == [f"l{i}" for i in range(9 - MOST, 9)]


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("numbered", range(3))
def test_at_least_four_are_chosen_if_there_are_so_many(count: int, numbered: int) -> None:
    """Few numbered layers are no reason to leave the others out."""
    found = [candidate(f"layers.{i}" if i < numbered else f"layer{i}", (8, 8)) for i in range(count)]
    chosen = names(choose(found))
    assert min(FEW, count) <= len(chosen) <= MOST
    assert chosen == sorted(set(chosen), key=[c.name for c in found].index)
    assert all(c.name in chosen for c in found[:numbered])


def test_other_resolutions_fill_up_a_short_one() -> None:
    found = [candidate(name, (8, 8)) for name in ("a", "b")] + [candidate(name, (2, 2)) for name in ("c", "d")]
    assert names(choose(found)) == ["a", "b", "c", "d"]


def test_of_one_resolution_the_choice_is_spread_evenly() -> None:
    found = [candidate(f"layers.{i}", (1, 50)) for i in range(12)] + [candidate("norm", (1, 50))]
    assert names(choose(found)) == ["layers.0", "layers.4", "layers.7", "layers.11", "norm"]


def test_faulty_layers_are_never_chosen() -> None:
    found = [candidate("a", (8, 8)), candidate("b", (8, 8), fault="bad"), candidate("c", (4, 4), fault="bad")]
    assert names(choose(found)) == ["a"]
    assert choose(found[1:]) == ()


def test_one_tensor_is_chosen_once_by_its_numbered_name() -> None:
    twins = [candidate("layers.0.norm", (8, 8)), candidate("layers.0", (8, 8), same_as="layers.0.norm")]
    twins.append(candidate("encoder", (8, 8), same_as="layers.0.norm"))
    assert names(choose(twins)) == ["layers.0"]


@pytest.mark.parametrize(("norm", "last"), [(False, []), (True, ["encoder.norm"])])
def test_of_a_transformer_whole_layers_are_chosen(norm: bool, last: list[str]) -> None:
    """The encoder's own output is that of its last layer or of its norm: that tensor is read once."""
    torch.manual_seed(0)
    found = found_in(Attentive(norm=norm), "BTM")
    assert names(choose(list(found.values()))) == [*(f"encoder.layers.{i}" for i in range(4)), *last]
    assert found["encoder.layers.0"].same_as == "encoder.layers.0.norm2"
    assert found["encoder"].same_as == ("encoder.norm" if norm else "encoder.layers.3.norm2")
    assert found["enter"].same_as == ""


def test_a_layer_after_one_that_works_in_place_is_no_twin() -> None:
    """The convolution's tensor is the very same, but it can be tapped only once it is finished."""
    found = found_in(Faulty())
    assert (found["relu"].same_as, found["relu"].fault) == ("", "")


@pytest.mark.parametrize("family", AXES)
def test_a_chosen_set_makes_a_model(family: str, tiny_recipe: Any) -> None:
    """Different resolutions where there are some; every tap is read, with its gradient, and the denoiser runs."""
    torch.manual_seed(0)
    make, takes, _ = AXES[family]
    network = make().eval()
    found = candidates(external(network, takes))
    chosen = choose(found)
    assert min(FEW, sum(not c.fault for c in found)) <= len(chosen) <= MOST
    sizes = {c.name: (c.rows, c.columns) for c in found}
    assert {sizes[tap.name] for tap in chosen} == {(c.rows, c.columns) for c in found if not c.fault} - (
        {(1, 59)} if takes is WAVE else set()  # 57 columns are as good
    )
    model = build_model(tiny_recipe, external(network, takes, chosen))
    taps = model.taps(0.5 * torch.randn(2, 1, 16, 16), torch.tensor([0.1, 2.0]))
    by_name = {c.name: c for c in found}
    assert taps.gradients is not None
    for tap, activation, gradient in zip(chosen, taps.activations[1:], taps.gradients[1:], strict=True):
        its = by_name[tap.name]
        assert activation.shape == gradient.shape == (2, its.values // (its.rows * its.columns), its.rows, its.columns)
        assert gradient.any()
    assert model(torch.ones(2, 1, 16, 16), torch.tensor([0.1, 2.0])).shape == (2, 1, 16, 16)


# Taps that were asked for


FOUND = [candidate("features.0", (8, 8)), candidate("features.1", (8, 8), fault="it runs 2 times in one forward")]


def test_taps_are_resolved_by_name_or_pass_with_their_axes() -> None:
    own = TapConfig("features.0", "BCTM")
    assert resolve(FOUND, ["features.0"]) == (TapConfig("features.0", "BCMT"),)
    assert resolve(FOUND, [own]) == (own,)
    assert resolve(FOUND, []) == ()


@pytest.mark.parametrize("name", ["feature.0", TapConfig("feature.0", "BCMT")])
def test_an_unknown_tap_offers_near_names(name: str | TapConfig) -> None:
    with pytest.raises(ClassifierError, match=r"no layer 'feature\.0' that runs; near are features\.0, features\.1"):
        resolve(FOUND, [name])
    with pytest.raises(ClassifierError, match=r"no layer 'xyzzy' that runs; `duovox taps` lists all"):
        resolve(FOUND, ["xyzzy"])


@pytest.mark.parametrize("name", ["features.1", TapConfig("features.1", "BCMT")])
def test_a_faulty_tap_says_why(name: str | TapConfig) -> None:
    with pytest.raises(ClassifierError, match=r"'features\.1' cannot be tapped: it runs 2 times in one forward"):
        resolve(FOUND, [name])


def test_axes_of_another_number_are_refused() -> None:
    with pytest.raises(ClassifierError, match=r"has 4 axes \(BCMT\), not BCT"):
        resolve(FOUND, [TapConfig("features.0", "BCT")])
