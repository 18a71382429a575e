"""repurposing.py: any module learns to speak, comes back from its bundle bit for bit, and is never touched itself."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from duovox.classifiers.loading import Loaded, load_network
from duovox.config import MelInput, Recipe, SampleConfig, TapConfig, WaveInput, read_recipe
from duovox.contracts import BundleError, ClassifierError, ConfigError, DataError, TrainingError
from duovox.data import open_features, prepare, relabelled, which_split
from duovox.repurposing import Repurposed, building, repurpose
from duovox.runs import features_for
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.classifier import ClassifierTraining
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining
from duovox.voice import Clip, Duovox

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")

WORDS = ("mid", "high", "low")
"""The classifiers' labels: those of the data, in another order than the data's."""
MEL = MelInput(n_mels=16, frames=16)
CPU: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
SAMPLE = SampleConfig(steps=2, gamma=0.5)


class Plain(nn.Module):
    """Convolutions with BatchNorm (whose count is an integer), whose statistics are no fresh ones."""

    def __init__(self, labels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, labels)
        nn.init.uniform_(self.body[1].running_mean, -0.5, 0.5)  # type: ignore[arg-type]
        self.body[1].num_batches_tracked.fill_(2**24 + 1)  # type: ignore[union-attr,operator]  # no float32 holds it

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Recurrent(nn.Module):
    """A GRU over time, in a form that torch.export does not follow, with its logits in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.gru(x[:, 0].transpose(1, 2))[0]
        if float(hidden.detach().sum()) > 1e6:
            hidden = 2 * hidden
        return {"hidden": hidden, "scores": self.head(hidden.mean(1))}


class OnWaves(nn.Module):
    """One-dimensional convolutions on a waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 8, 64, 128), nn.ReLU(), nn.Conv1d(8, 12, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(2))


FACTORY = """
import torch
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 3))
"""


def fresh(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().eval()


def tiny_vocoder(recipe: Recipe) -> ISTFTNet:
    torch.manual_seed(4)
    return ISTFTNet(recipe.vocoder, recipe.mel)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trying torch.export, which takes a second: the module then is for its owner alone to give again."""
    monkeypatch.setattr(building, "export_bytes", lambda *_: None)


HOOKS = sorted(name for name in vars(nn.Module()) if "hook" in name)


def seen(hooks: Any) -> Any:
    return dict(hooks) if isinstance(hooks, dict) else hooks


def snapshot(network: nn.Module) -> dict[str, Any]:
    """Everything of a module that anyone could see: bytes, modes, flags, gradients, hooks, attributes, and which objects they are."""
    layers = {name: layer for name, layer in network.named_modules() if not isinstance(layer, torch.jit.ScriptModule)}
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {
        "bytes": {name: (t.dtype, tuple(t.shape), t.detach().numpy().tobytes()) for name, t in tensors},
        "objects": {name: id(t) for name, t in tensors if not isinstance(network, torch.jit.ScriptModule)},
        "flags": {name: (t.requires_grad, t.device, None if t.grad is None else t.grad.tolist()) for name, t in tensors},
        "state": list(network.state_dict()),
        "modes": {name: layer.training for name, layer in network.named_modules()},
        "hooks": {name: {hook: seen(getattr(layer, hook)) for hook in HOOKS if getattr(layer, hook)} for name, layer in layers.items()},
        "attributes": {name: sorted(vars(layer)) for name, layer in layers.items()},
        "kinds": {name: type(layer) for name, layer in layers.items()},
    }


@dataclasses.dataclass
class Spoken:
    """One classifier on its whole way: given, repurposed, trained, asked for a clip, saved."""

    network: nn.Module
    before: dict[str, Any]
    made: Repurposed
    voice: Duovox
    clip: Clip
    folder: Path
    source: str
    how: dict[str, Any]  # what from_pretrained needs


def program(network: nn.Module, path: Path) -> Path:
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network, (torch.randn(2, 1, 16, 16),), dynamic_shapes=shapes, strict=False), path)
    return path


def write_factory(folder: Path) -> Loaded:
    """A module file and its weights, which are not those that the function makes."""
    (folder / "their_words.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    torch.manual_seed(5)
    network = load_network("their_words:build", arguments={"width": 8}).network
    network[1].running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr,operator,index]
    save_file(network.state_dict(), folder / "theirs.safetensors")
    return load_network("their_words:build", folder / "theirs.safetensors", {"width": 8})


def write_whisper(folder: Path) -> Loaded:
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "classifier_proj_size": 8}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 60, "pad_token_id": 0}
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = transformers.WhisperConfig(
        **sizes, **tokens, num_mel_bins=16, max_source_positions=8, encoder_layerdrop=0.5, id2label=dict(enumerate(WORDS))
    )
    torch.manual_seed(6)
    transformers.WhisperForAudioClassification(config).save_pretrained(folder)
    facts = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "hop_length": 256, "n_fft": 1024}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return load_network(folder)


def speak(given: nn.Module | Loaded, data: Path, root: Path, recipe: Recipe, **options: Any) -> Spoken:
    network = given.network if isinstance(given, Loaded) else given
    before = snapshot(network)
    made = repurpose(given, recipe=recipe, **options)
    voice = made.train(data, root / "out", updates=2, **CPU)
    clip = voice.generate("low", seed=3, steps=2)[0]
    voice.save_pretrained(root / "bundle")
    source = made.classifier.config.source
    needed = {"huggingface": {}, "object": {"classifier": network}}.get(source, {"trust_code": True})
    return Spoken(network, before, made, voice, clip, root / "bundle", source, needed)  # type: ignore[arg-type]


KINDS = ("plain", "gru", "waves", "factory", "export", "script", "whisper")


@pytest.fixture(scope="module")
def tellers(tiny_features: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Spoken]]:
    """Each kind of classifier, sent once down the whole way."""
    known: dict[str, Spoken] = {}
    paths = list(sys.path)

    def make(kind: str) -> Spoken:
        root = tmp_path_factory.mktemp(kind)
        options: dict[str, Any] = {"labels": WORDS, "features": MEL}
        if kind == "whisper":
            return speak(write_whisper(root / "hf"), tiny_features, root, tiny_recipe)
        if kind == "waves":
            options |= {"features": WaveInput(samples=3840, layout="B1S"), "vocoder": tiny_vocoder(tiny_recipe)}
        if kind == "gru":
            options["output"] = "scores"
        if kind == "script":
            torch.jit.trace(fresh(Plain), torch.randn(1, 1, 16, 16)).save(str(root / "theirs.pt"))
        given: dict[str, Callable[[], nn.Module | Loaded]] = {
            "plain": lambda: fresh(Plain),
            "gru": lambda: fresh(Recurrent),
            "waves": lambda: fresh(OnWaves),
            "factory": lambda: write_factory(root),
            "export": lambda: load_network(program(fresh(Plain), root / "theirs.pt2")),
            "script": lambda: load_network(root / "theirs.pt"),
        }
        return speak(given[kind](), tiny_features, root, tiny_recipe, **options)

    def teller(kind: str) -> Spoken:
        if kind not in known:
            known[kind] = make(kind)
        return known[kind]

    yield teller
    sys.path[:] = paths
    sys.modules.pop("their_words", None)


@pytest.fixture(params=KINDS)
def spoken(request: pytest.FixtureRequest, tellers: Callable[[str], Spoken]) -> Spoken:
    return tellers(request.param)


def one_line(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@torch.no_grad()
def round_as_bundles_do(voice: Duovox) -> None:
    """Bundles hold the subnet and the vocoder in float16."""
    for module in (voice.bundle.model.score_network, voice.bundle.vocoder):
        for value in module.state_dict().values() if module else ():
            value.copy_(value.half())


# the whole way


def test_it_comes_back_from_its_bundle_bit_for_bit(spoken: Spoken) -> None:
    again = Duovox.from_pretrained(spoken.folder, **spoken.how)
    assert again.labels == WORDS and again.config.calibration == spoken.voice.config.calibration
    assert again.config.recipe.external == spoken.made.recipe.external
    round_as_bundles_do(spoken.voice)
    for label, seed in (("low", 3), (None, 4)):
        one, other = (voice.generate(label, seed=seed, steps=2)[0] for voice in (spoken.voice, again))
        assert np.array_equal(one.log_mel, other.log_mel) and np.array_equal(one.wave, other.wave)
        assert one.probabilities == other.probabilities and np.ptp(one.log_mel) > 0.1
    assert not np.array_equal(again.generate("low", seed=5, steps=2)[0].log_mel, one.log_mel)
    again.save_pretrained(spoken.folder.parent / "through", force=True)
    for path in spoken.folder.iterdir():
        assert path.read_bytes() == (spoken.folder.parent / "through" / path.name).read_bytes(), path.name


def test_the_bundle_holds_the_users_own_weights(spoken: Spoken) -> None:
    stored = load_file(spoken.folder / "model.safetensors")
    state = spoken.network.state_dict()
    names = {name.removeprefix("classifier.network.") for name in stored if name.startswith("classifier.network.")}
    assert names == state.keys()
    for name, value in state.items():
        held = stored[f"classifier.network.{name}"]
        assert held.dtype == value.dtype and held.equal(value.detach()), name


def test_the_users_module_is_untouched(spoken: Spoken) -> None:
    assert snapshot(spoken.network) == spoken.before


def test_it_hears_what_the_user_s_module_hears(spoken: Spoken) -> None:
    """Through its own front end, from a real wave: the probabilities are the module's own, under the right words."""
    wave = torch.randn(1, 3840, generator=torch.Generator().manual_seed(0)) * 0.1
    network = spoken.network
    was = [(layer, layer.training) for layer in network.modules()]
    try:
        with torch.no_grad():
            output = network.eval()(spoken.made.classifier.front_end.from_wave(wave))
    finally:
        for layer, mode in was:
            layer.training = mode
    logits = output if isinstance(output, Tensor) else output["scores" if "scores" in output else "logits"]
    heard = spoken.voice.classify(wave[0].numpy())
    assert list(heard) == list(WORDS)
    assert list(heard.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)


def test_what_the_bundle_needs_is_said(spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    if spoken.source == "huggingface":
        assert Duovox.from_pretrained(spoken.folder).labels == WORDS
        monkeypatch.setitem(sys.modules, "transformers", None)
        words: tuple[str, ...] = ("pip install 'duovox[hf]'",)
    elif spoken.source == "object":
        words = ("Duovox.from_pretrained(path, classifier=module)",)
    else:
        what = {"factory": "the function their_words:build", "export": "network.pt2", "torchscript": "network.torchscript"}
        words = ("trust_code=True", what[spoken.source])
    with pytest.raises(BundleError) as caught:
        Duovox.from_pretrained(spoken.folder)
    one_line(caught, *words)


def test_each_kind_is_kept_in_its_own_way(tellers: Callable[[str], Spoken]) -> None:
    sources = {kind: tellers(kind).source for kind in KINDS if kind != "whisper"}
    expected = {"plain": "export", "gru": "object", "waves": "export", "factory": "factory", "export": "export", "script": "torchscript"}
    assert sources == expected
    files = {kind: {path.name for path in tellers(kind).folder.iterdir()} for kind in sources}
    assert "network.pt2" in files["plain"] & files["waves"] & files["export"] and "network.torchscript" in files["script"]
    assert not (files["gru"] | files["factory"]) & {"network.pt2", "network.torchscript"}
    assert "vocoder.safetensors" in files["waves"] and "vocoder.safetensors" not in files["plain"]
    assert tellers("gru").made.taps == ("gru",) and tellers("script").made.taps == ()
    assert tellers("plain").made.recipe.sample.guide_at == "estimate"


def test_the_module_of_a_factory_must_be_there(tellers: Callable[[str], Spoken], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tellers("factory").folder
    monkeypatch.delitem(sys.modules, "their_words")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "their_words.py").exists()])
    with pytest.raises(BundleError, match=r"cannot import 'their_words'.*current folder or be installed"):
        Duovox.from_pretrained(folder, trust_code=True)
    assert "their_words" not in sys.modules
    monkeypatch.chdir(folder.parent)
    assert Duovox.from_pretrained(folder, trust_code=True).labels == WORDS


def test_a_factory_is_not_run_without_trust(tellers: Callable[[str], Spoken], monkeypatch: pytest.MonkeyPatch) -> None:
    import their_words  # type: ignore[import-not-found]

    monkeypatch.setattr(their_words, "build", lambda **_: pytest.fail("was run"))
    with pytest.raises(BundleError, match="trust_code"):
        Duovox.from_pretrained(tellers("factory").folder)


def test_any_bundle_takes_the_module_itself_in_place_of_trust(tellers: Callable[[str], Spoken]) -> None:
    """Its weights are the bundle's, the module given stays as it is, even one in train mode."""
    spoken = tellers("plain")
    torch.manual_seed(9)
    given = Plain().train()
    before = snapshot(given)
    voice = Duovox.from_pretrained(spoken.folder, classifier=given)
    mine, theirs = voice.bundle.model.classifier.network.network, spoken.network.state_dict()
    assert all(value.equal(theirs[name]) for name, value in mine.state_dict().items())
    assert np.allclose(voice.generate("low", seed=3, steps=2)[0].log_mel, spoken.clip.log_mel, atol=0.05)
    assert snapshot(given) == before


@pytest.mark.parametrize("given", [Recurrent, nn.Identity, OnWaves, lambda: Plain(labels=4)])
def test_another_module_than_the_bundles_is_refused(tellers: Callable[[str], Spoken], given: Callable[[], nn.Module]) -> None:
    with pytest.raises((BundleError, ClassifierError)) as caught:
        Duovox.from_pretrained(tellers("plain").folder, classifier=given())
    one_line(caught)


def test_a_program_that_was_changed_is_not_opened(
    tellers: Callable[[str], Spoken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("was opened"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("was opened"))
    for kind, name in (("plain", "network.pt2"), ("script", "network.torchscript")):
        copy = Path(shutil.copytree(tellers(kind).folder, tmp_path / kind))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        for options in ({}, {"trust_code": True}, {"classifier": tellers(kind).network}):
            with pytest.raises(BundleError) as caught:
                Duovox.from_pretrained(copy, **options)  # type: ignore[arg-type]
            one_line(caught, name, "sha256")
        (copy / name).unlink()
        for options in ({}, {"trust_code": True}, {"classifier": tellers(kind).network}):
            with pytest.raises(BundleError) as caught:
                Duovox.from_pretrained(copy, **options)  # type: ignore[arg-type]
            one_line(caught, f"{name} is missing")


def test_the_hub_is_asked_for_programs_as_well(tellers: Callable[[str], Spoken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(source: str, allow_patterns: list[str]) -> str:
        folder = tellers(source.partition("/")[2]).folder
        left_out = [path.name for path in folder.iterdir() if not any(path.match(pattern) for pattern in allow_patterns)]
        return str(shutil.copytree(folder, tmp_path / source, ignore=lambda *_: left_out))

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    for kind in ("waves", "script"):
        assert Duovox.from_pretrained(f"somebody/{kind}", trust_code=True).labels == WORDS


# untouched, whatever happens


def touchy() -> nn.Module:
    """A module in every state that could be lost: layers of both modes, mixed flags, hooks, a gradient."""
    network = fresh(Plain)
    network.head.train()
    network.body[0].weight.requires_grad_(False)  # type: ignore[union-attr,index]
    network.head.bias.grad = torch.ones(3)  # type: ignore[union-attr]
    network.head.register_forward_hook(lambda _, __, output: output)
    network.body.register_forward_pre_hook(lambda _, inputs: None)
    network.body[3].register_full_backward_hook(lambda *_: None)  # type: ignore[index,union-attr]
    return network


class StopError(Exception):
    """Raised in the middle of something."""


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_untouched_when_training_ends_in_the_middle(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    network = touchy()
    before = snapshot(network)
    real = SubnetTraining.losses

    def broken(self: SubnetTraining, clean: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        real(self, clean, label, generator)
        raise error

    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe)
    with monkeypatch.context() as patch:
        patch.setattr(SubnetTraining, "losses", broken)
        with pytest.raises(error):
            made.train(tiny_features, tmp_path / "out", **CPU)
    assert snapshot(network) == before
    assert made.train(tiny_features, tmp_path / "out", updates=2, resume=True, **CPU).labels == WORDS
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(("part", "number"), [("classifier", signal.SIGTERM), ("subnet", signal.SIGINT)])
def test_a_stop_signal_stops_the_whole_and_it_goes_on_later(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, part: str
) -> None:
    """Not on to the next part, with half a classifier; the module as it was; and later the same end as without the stop."""
    network = touchy()
    before, handler = snapshot(network), signal.getsignal(number)
    kind: Any = ClassifierTraining if part == "classifier" else SubnetTraining
    real = kind.update

    def stopped(self: Any, step: int, generator: torch.Generator) -> dict[str, float]:
        if step == 0:
            os.kill(os.getpid(), number)
        return real(self, step, generator)  # type: ignore[no-any-return]

    made = repurpose(network, WORDS, MEL, recipe=tiny_recipe, conditioned=True)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "update", stopped)
        with pytest.raises(TrainingError, match=rf"{part}.*step 1 of 2.*resume=True"):
            made.train(tiny_features, tmp_path / "out", updates=2, **CPU)
    assert snapshot(network) == before and signal.getsignal(number) == handler
    assert (tmp_path / "out" / "subnet").exists() == (part == "subnet")
    voice = made.train(tiny_features, tmp_path / "out", updates=2, resume=True, **CPU)
    whole = made.train(tiny_features, tmp_path / "whole", updates=2, **CPU)
    ours, theirs = (v.bundle.model.state_dict() for v in (voice, whole))
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
def test_a_time_budget_is_no_stop(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    made = repurpose(fresh(Recurrent), WORDS, MEL, output="scores", recipe=tiny_recipe)
    assert made.train(tiny_features, tmp_path / "out", time_budget=0, **CPU).labels == WORDS


def test_untouched_when_repurposing_fails(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = touchy()
    before = snapshot(network)
    for options in ({"labels": ("a", "b")}, {"labels": WORDS, "taps": ["nothing"]}, {"labels": WORDS, "output": "nothing"}):
        with pytest.raises(ClassifierError):
            repurpose(network, features=MEL, recipe=tiny_recipe, **options)  # type: ignore[arg-type]
        assert snapshot(network) == before
    for name in ("candidates", "export_bytes", "_with_classifier"):
        with monkeypatch.context() as patch:
            patch.setattr(building, name, lambda *_: (_ for _ in ()).throw(StopError))
            with pytest.raises(StopError):
                repurpose(network, WORDS, MEL, recipe=tiny_recipe)
        assert snapshot(network) == before
    loaded = Loaded(network, "factory", "a:b")
    with pytest.raises(ClassifierError):
        repurpose(loaded, ("a", "b"), MEL, recipe=tiny_recipe)
    assert snapshot(network) == before


@pytest.mark.usefixtures("no_export")
def test_the_vocoder_given_is_not_touched_either(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    vocoder = tiny_vocoder(tiny_recipe).train()
    before = snapshot(vocoder)
    voice = repurpose(fresh(OnWaves), WORDS, WaveInput(samples=3840, layout="B1S"), recipe=tiny_recipe, vocoder=vocoder).train(
        tiny_features, tmp_path / "out", updates=1, **CPU
    )
    assert snapshot(vocoder) == before
    inner = voice.bundle.vocoder
    assert inner is not None and inner is not vocoder and not inner.training and not any(p.requires_grad for p in inner.parameters())


# what cannot be


class Variant(Plain):
    """A classifier whose forward goes through `change`."""

    def __init__(self, change: Callable[[Plain, Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self, x)


def in_place(self: Plain, x: Tensor) -> Tensor:
    return self.head(self.body[0](x).relu_().mean((2, 3)))


def refused(network: Any, *words: str, recipe: Recipe, kind: type[Exception] = ClassifierError, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        repurpose(network, **({"labels": WORDS, "features": MEL} | options), recipe=recipe)
    one_line(caught, *words)


def test_modules_that_cannot_be_frozen(tiny_recipe: Recipe) -> None:
    refused("model.pt", "torch.nn.Module", "str", "load_network", recipe=tiny_recipe)
    refused(Plain, "torch.nn.Module", recipe=tiny_recipe)
    script = torch.jit.trace(fresh(Plain), torch.randn(1, 1, 16, 16))
    refused(script, "TorchScript", "load_network", recipe=tiny_recipe)
    refused(Plain().train(), "'body.1'", "BatchNorm2d", "train mode", "eval()", recipe=tiny_recipe)
    network = fresh(Plain)
    network.body[1].train()  # type: ignore[index,union-attr]
    refused(network, "'body.1'", "train mode", recipe=tiny_recipe)
    network = fresh(Plain)
    network.body[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()  # type: ignore[index,operator]
    refused(network, "'body.1'", "no running statistics", recipe=tiny_recipe)
    network = fresh(Plain)
    network.head.weight = nn.Parameter(torch.empty(3, 8, device="meta"))  # type: ignore[union-attr]
    refused(network, "one device", "'head.weight' on meta", "on cpu", recipe=tiny_recipe)
    network = fresh(Plain)
    network.secret = (line for line in "ab")  # type: ignore[assignment]
    refused(network, "cannot be copied", "generator", recipe=tiny_recipe)
    network = fresh(Plain)
    network.cache = network.body(torch.zeros(1, 1, 16, 16))  # type: ignore[operator]
    refused(network, "cannot be copied", recipe=tiny_recipe)


class Holder(Plain):
    """State that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        pass


def test_state_that_no_file_of_tensors_holds(tiny_recipe: Recipe) -> None:
    refused(fresh(Holder), "_extra_state", recipe=tiny_recipe)


def test_labels_and_features_that_do_not_fit(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    refused(network, "(3, 3)", "2 labels", "order of its outputs", recipe=tiny_recipe, labels=("yes", "no"))
    refused(network, "labels", "order of the outputs", recipe=tiny_recipe, labels=None)
    refused(network, "labels", recipe=tiny_recipe, labels=())
    refused(network, "features=", recipe=tiny_recipe, features=None)
    refused(network, "different names", "'mid', 'mid'", recipe=tiny_recipe, labels=("mid", "mid", "low"), kind=ConfigError)
    refused(network, "texts", "0", recipe=tiny_recipe, labels=(0, 1, 2), kind=ConfigError)
    refused(network, "features", "dict", recipe=tiny_recipe, features={"n_mels": 16})
    refused(network, "package's vocoder", "recipe tiny", "vocoder=", recipe=tiny_recipe, features=WaveInput())
    wrong = dataclasses.replace(tiny_recipe, mel=dataclasses.replace(tiny_recipe.mel, floor=1e-4))
    refused(network, "mel.floor = 0.0001", recipe=tiny_recipe, vocoder=tiny_vocoder(wrong), kind=BundleError)
    refused(fresh(Recurrent), "no entry 'nothing'", "scores", recipe=tiny_recipe, output="nothing")
    refused(fresh(OnWaves), "cannot run", "(3, 1, 16, 16)", recipe=tiny_recipe)


def test_logits_that_are_none(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    nn.init.constant_(network.body[3].bias, float("nan"))  # type: ignore[index,union-attr]
    refused(network, "not finite", "'body.3'", recipe=tiny_recipe)
    for change in (lambda self, x: Plain.forward(self, x).detach(), lambda self, x: Plain.forward(self, 0 * x.detach())):
        refused(Variant(change).eval(), "no gradient", "detach()", recipe=tiny_recipe)
    refused(Variant(lambda self, x: Plain.forward(self, x).argmax(1)).eval(), "labels", recipe=tiny_recipe)
    refused(Variant(lambda self, x: Plain.forward(self, x)[0]).eval(), "(3,)", recipe=tiny_recipe)


@pytest.mark.usefixtures("no_export")
def test_taps_that_cannot_be(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    refused(network, "no layer 'body.9'", "near are", "body.4", recipe=tiny_recipe, taps=["body.9"])
    refused(network, "'head'", "no extent", recipe=tiny_recipe, taps=["head"])
    refused(network, "each layer once", recipe=tiny_recipe, taps=["body.0", "body.0"], kind=ConfigError)
    refused(network, "'body.0'", "BCT", "4", recipe=tiny_recipe, taps=[TapConfig("body.0", "BCT")])
    refused(Variant(in_place).eval(), "'body.0'", "in place", recipe=tiny_recipe, taps=["body.0"])
    aside = Variant(lambda self, x: Plain.forward(self, x) + 0 * self.body[3](self.body[0](x)).detach().mean()).eval()
    assert repurpose(aside, WORDS, MEL, recipe=tiny_recipe)
    lost = Variant(lambda self, x: (self.body[0](x).detach(), self.head(x.mean((2, 3)).expand(-1, 8)))[1]).eval()
    refused(lost, "'body.0'", "no gradient", recipe=tiny_recipe, taps=["body.0"])
    made = repurpose(network, WORDS, MEL, [TapConfig("body.3", "BCMT"), "body.0"], recipe=tiny_recipe)
    assert set(made.taps) == {"body.3", "body.0"}
    with pytest.raises(ConfigError, match="axes"):
        TapConfig("body.0", "BCMX")


def test_a_network_with_frozen_or_no_parameters(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    """TorchScript that was frozen holds its weights as constants."""
    program = torch.jit.freeze(torch.jit.trace(fresh(Plain), torch.randn(1, 1, 16, 16)))
    program.save(str(tmp_path / "theirs.pt"))
    made = repurpose(load_network(tmp_path / "theirs.pt"), WORDS, MEL, recipe=tiny_recipe)
    made.train(tiny_features, tmp_path / "out", updates=1, **CPU).save_pretrained(tmp_path / "bundle")
    assert Duovox.from_pretrained(tmp_path / "bundle", trust_code=True).generate("low", steps=1)


class Masked(Plain):
    """With a buffer of minus infinities, as attention masks are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x @ self.mask.softmax(1))


@pytest.mark.parametrize("conditioned", [False, True])
def test_infinite_masks_are_weights_too(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, conditioned: bool) -> None:
    made = repurpose(fresh(Masked), WORDS, MEL, recipe=tiny_recipe, conditioned=conditioned)
    made.train(tiny_features, tmp_path / "out", updates=1, **CPU).save_pretrained(tmp_path / "bundle")
    voice = Duovox.from_pretrained(tmp_path / "bundle", trust_code=True)
    assert voice.bundle.model.classifier.network.network.get_buffer("mask").isinf().sum() == 120


# the data


@pytest.mark.usefixtures("no_export")
def test_labels_are_numbered_as_the_classifier_numbers_them(tiny_features: Path, tiny_recipe: Recipe) -> None:
    features = open_features(tiny_features)
    words = ("low", "other", "mid", "high", "more")
    renamed = relabelled(features, words)
    assert features.labels == ("high", "low", "mid") and renamed.labels == words
    assert [words[n] for n in renamed.label] == [features.labels[n] for n in features.label]
    assert renamed.label.dtype == np.int64 and renamed.digest == features.digest and renamed.log_mels is features.log_mels
    assert relabelled(features, features.labels).label.tolist() == features.label.tolist()
    with pytest.raises(DataError) as caught:
        relabelled(features, ("low", "mid"))
    one_line(caught, "'high'", "low, mid")
    made = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe)
    mine = features_for(made.recipe, tiny_features)
    assert [WORDS[n] for n in mine.label] == [features.labels[n] for n in features.label]
    assert features_for(tiny_recipe, tiny_features).labels == ("high", "low", "mid")


class Knowing(nn.Module):
    """Tells the three tones apart, by the place of their energy: in the labels' order low, other, mid, high, more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 1)
        nn.init.constant_(self.layer.weight, 1.0)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(x).exp().mean((1, 3))
        low, mid, high = rows[:, :4].amax(1), rows[:, 4:8].amax(1), rows[:, 8:].amax(1)
        never = 0 * low - 9
        return torch.stack([low, never, mid, high, never], dim=1).clamp(min=-9) * 3


@pytest.mark.usefixtures("no_export")
def test_a_classifier_that_knows_more_words_than_the_data(
    tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training hands to the taps are the classifier's own numbers."""
    words = ("low", "other", "mid", "high", "more")
    seen: list[int] = []
    real = SubnetTraining.losses

    def watched(self: SubnetTraining, clean: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        sigma = torch.full((len(clean),), 0.01)
        logits = self.model.classifier(clean, sigma)
        assert logits.argmax(1).tolist() == label.tolist()
        seen.extend(label.tolist())
        return real(self, clean, label, generator)

    monkeypatch.setattr(SubnetTraining, "losses", watched)
    voice = repurpose(Knowing().eval(), words, MEL, recipe=tiny_recipe).train(tiny_features, tmp_path / "out", updates=3, **CPU)
    assert set(seen) == {0, 2, 3} and voice.labels == words
    assert voice.generate("other", steps=1)[0].label == "other"
    levels = voice.calibrate(tiny_features)
    assert levels[0].accuracy == 1


@pytest.mark.usefixtures("no_export")
def test_data_with_a_word_the_classifier_does_not_know(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    made = repurpose(fresh(Plain), ("low", "mid", "up"), MEL, recipe=tiny_recipe)
    for call in (made.train, made.write):
        with pytest.raises(DataError) as caught:
            call(tiny_features, tmp_path / "out")
        one_line(caught, "'high'", "low, mid, up")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_export")
def test_data_without_validation_or_test_clips_is_trained_on_without_temperatures(
    tiny_recipe: Recipe, tiny_words: Path, tmp_path: Path
) -> None:
    words = Path(shutil.copytree(tiny_words, tmp_path / "words"))
    for path in words.rglob("*.wav"):
        if which_split(path.stem) == "validation":
            path.unlink()
    prepare(words, tmp_path / "features", tiny_recipe.mel, progress=False)
    voice = repurpose(fresh(Plain), WORDS, MEL, recipe=tiny_recipe).train(tmp_path / "features", tmp_path / "out", updates=1, **CPU)
    assert voice.config.calibration.temperatures == () and voice.generate("low", steps=1)


# noise-conditioned copies


@pytest.fixture(scope="module")
def tuned(tiny_features: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    recipe = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=8, rate=0.02))
    network = fresh(Plain)
    network.requires_grad_(False)  # as its owner may keep it
    root = tmp_path_factory.mktemp("tuned")
    return speak(network, tiny_features, root, recipe, labels=WORDS, features=MEL, conditioned=True)


def test_a_conditioned_copy_is_fine_tuned(tuned: Spoken) -> None:
    out, state = tuned.folder.parent / "out", tuned.network.state_dict()
    original, copy = (load_file(out / part / "weights.safetensors") for part in ("original", "classifier"))
    assert original.keys() == copy.keys()
    for name, value in state.items():
        assert original[f"network.{name}"].equal(value) and original[f"network.{name}"].dtype == value.dtype
        trained = name.endswith(("weight", "bias"))
        assert copy[f"network.{name}"].equal(value) != trained, name  # statistics and counts stay
    assert any(not copy[name].equal(original[name]) for name in original if name.startswith("modulation"))
    stored = load_file(tuned.folder / "model.safetensors")
    assert all(stored[f"classifier.{name}"].equal(value) for name, value in copy.items())
    assert snapshot(tuned.network) == tuned.before


def test_a_conditioned_copy_is_asked_at_the_noised_mel(tuned: Spoken) -> None:
    assert tuned.made.recipe.sample.guide_at == "noised" and tuned.voice.config.calibration.guide_at == "noised"
    assert tuned.clip.settings.guide_at == "noised"
    settings = tuned.made.recipe.train_classifier
    assert settings.updates == 4 and settings.rate == 0.005
    again = Duovox.from_pretrained(tuned.folder, trust_code=True)
    round_as_bundles_do(tuned.voice)
    for label in ("low", None):
        one, other = (voice.generate(label, seed=3, steps=2)[0] for voice in (tuned.voice, again))
        assert np.array_equal(one.log_mel, other.log_mel) and one.probabilities == other.probabilities


def test_a_conditioned_copy_knows_the_noise_level(tuned: Spoken) -> None:
    network = tuned.voice.bundle.model.classifier.network
    mel = torch.zeros(1, 1, 16, 16)
    with torch.no_grad():
        quiet, loud = (network(mel, torch.tensor([sigma])) for sigma in (0.01, 1.0))
        plain = [tuned.made.classifier(mel, torch.tensor([sigma])) for sigma in (0.01, 1.0)]
    assert not torch.allclose(quiet, loud) and torch.allclose(*plain)  # before it was tuned: it knew nothing of noise


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("kind", ["factory", "script", "whisper", "gru", "waves"])
def test_every_kind_can_be_conditioned(
    tellers: Callable[[str], Spoken], kind: str, tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path
) -> None:
    before = tellers(kind)
    made, external = before.made, before.made.recipe.external
    assert external is not None
    given = Loaded(before.network, external.source, external.entry, external.arguments, code=made.classifier.code)  # type: ignore[arg-type]
    features = external.mel_input or external.wave_input
    loads = kind not in ("gru", "waves")
    taps = [tap.name for tap in external.taps]
    new = repurpose(
        given if loads else before.network, WORDS, features, taps, output=external.output, conditioned=True, recipe=tiny_recipe,
        vocoder=made.vocoder,
    )  # fmt: skip
    voice = new.train(tiny_features, tmp_path / "out", updates=1, **CPU)
    voice.save_pretrained(tmp_path / "bundle")
    again = Duovox.from_pretrained(tmp_path / "bundle", **(before.how if loads else {"classifier": before.network}))
    round_as_bundles_do(voice)
    mels = [v.sample_mels("low", [3], dataclasses.replace(SAMPLE, guide_at="noised")) for v in (voice, again)]
    assert mels[0].equal(mels[1])
    assert snapshot(before.network) == before.before
    bridge = {name: value for name, value in load_file(tmp_path / "out/classifier/weights.safetensors").items() if "front_end" in name}
    original = load_file(tmp_path / "out/original/weights.safetensors")
    assert all(value.equal(original[name]) for name, value in bridge.items()) and bool(bridge) == (kind == "waves")


@pytest.mark.usefixtures("no_export")
def test_repurposing_again_is_the_same_again(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    """In another process, with other random numbers drawn before, the run goes on."""
    weights = []
    for seed in (1, 2):
        network = fresh(Plain)
        torch.manual_seed(seed)
        made = repurpose(network, WORDS, MEL, recipe=tiny_recipe, conditioned=True)
        made.write(tiny_features, tmp_path / "out")
        weights.append(made.classifier.state_dict())
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def test_repurposing_draws_no_random_numbers(tiny_recipe: Recipe) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    repurpose(fresh_without_seed(), WORDS, MEL, recipe=tiny_recipe, conditioned=True)
    assert torch.rand(3).equal(expected)


def fresh_without_seed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return fresh(Plain)


# run folders


def test_a_recipe_file_takes_the_place_of_the_object(
    tellers: Callable[[str], Spoken], tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path
) -> None:
    """What `duovox train subnet --recipe OUT/recipe.toml` does."""
    made, out = tellers("factory").made, tmp_path / "out"
    path = made.write(tiny_features, out)
    assert path == out / "recipe.toml"
    recipe = read_recipe(path)
    assert recipe == made.recipe
    recipe = dataclasses.replace(recipe, train_subnet=dataclasses.replace(recipe.train_subnet, updates=2))
    assert start_training("subnet", recipe, tiny_features, out, **CPU).complete
    whole = load_file(tellers("factory").folder.parent / "out" / "subnet" / "weights.safetensors")
    mine = load_file(out / "subnet" / "weights.safetensors")
    assert all(value.equal(whole[name]) for name, value in mine.items())
    with pytest.raises(TrainingError, match="already holds a run"):
        start_training("subnet", recipe, tiny_features, out, **CPU)
    with pytest.raises(TrainingError, match=r"as it came; .*external\.conditioned = true"):
        start_training("classifier", recipe, tiny_features, out, **CPU)
    other = dataclasses.replace(recipe, subnet=dataclasses.replace(recipe.subnet, embedding=8))
    with pytest.raises(TrainingError, match=r"subnet\.embedding = 16, now it is 8"):
        start_training("subnet", other, tiny_features, out, resume=True, **CPU)
    external = dataclasses.replace(recipe.external, taps=())  # type: ignore[type-var]
    with pytest.raises(TrainingError, match=r"external\.taps"):
        start_training("subnet", dataclasses.replace(recipe, external=external), tiny_features, out, resume=True, **CPU)


def test_a_run_in_two_parts_is_the_run_in_one(tellers: Callable[[str], Spoken], tiny_features: Path, tmp_path: Path) -> None:
    made = tellers("factory").made
    out = tmp_path / "out"
    recipe = dataclasses.replace(made.recipe, train_subnet=dataclasses.replace(made.recipe.train_subnet, updates=2))
    made.write(tiny_features, out, recipe)
    start_training("subnet", recipe, tiny_features, out, time_budget=0, **CPU)
    assert start_training("subnet", recipe, tiny_features, out, resume=True, **CPU).complete
    whole = load_file(tellers("factory").folder.parent / "out" / "subnet" / "weights.safetensors")
    assert all(value.equal(whole[name]) for name, value in load_file(out / "subnet" / "weights.safetensors").items())


def test_a_folder_with_another_classifier_is_refused(tellers: Callable[[str], Spoken], tiny_recipe: Recipe, tiny_features: Path) -> None:
    spoken = tellers("plain")
    out = spoken.folder.parent / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    network = fresh(Plain)
    nn.init.zeros_(network.head.bias)  # type: ignore[union-attr,arg-type]
    for given, words, what in ((network, WORDS, "fingerprint"), (fresh(Plain), tuple(sorted(WORDS)), "labels")):
        made = repurpose(given, words, MEL, recipe=tiny_recipe)
        with pytest.raises(TrainingError) as caught:
            made.train(tiny_features, out, resume=True, **CPU)
        one_line(caught, str(out / "original"), "another classifier", what)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(TrainingError, match="already holds a run"):
        spoken.made.train(tiny_features, out, updates=2, **CPU)
    voice = spoken.made.train(tiny_features, out, updates=2, resume=True, **CPU)
    assert voice.config.calibration == spoken.voice.config.calibration


def test_only_its_owner_can_train_an_object(tellers: Callable[[str], Spoken], tiny_features: Path, tmp_path: Path) -> None:
    spoken = tellers("gru")
    recipe = read_recipe(spoken.made.write(tiny_features, tmp_path / "out"))
    with pytest.raises(BundleError, match=r"classifier=module"):
        start_training("subnet", recipe, tiny_features, tmp_path / "out", **CPU)
    assert start_training("subnet", recipe, tiny_features, tmp_path / "out", network=spoken.network, **CPU).complete
    assert snapshot(spoken.network) == spoken.before


@pytest.mark.usefixtures("no_export")
def test_one_update_is_enough(tiny_recipe: Recipe) -> None:
    recipe = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=1))
    assert repurpose(fresh(Plain), WORDS, MEL, recipe=recipe).recipe.train_classifier.updates == 1


def test_the_table_of_layers(tellers: Callable[[str], Spoken]) -> None:
    made = tellers("plain").made
    table = made.layers_table().splitlines()
    assert [line for line in table if line.startswith("| *")] == [line for line in table if any(f"* {tap} |" in line for tap in made.taps)]
    assert not any("head" in line for line in table)
    assert "| - head | Linear | its output has no extent in time or frequency |" in made.layers_table(faulty=True)
