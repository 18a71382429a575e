"""Classifiers of every kind, each sent once down the whole way, for the tests of `repurposing/`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_elsewhere import OnWaves
from safetensors.torch import save_file
from torch import Tensor, nn

from duovox.classifiers.loading import Loaded, export_bytes, load_network
from duovox.config import MelInput, Recipe, SampleConfig, WaveInput
from duovox.repurposing import Repurposed, building, repurpose
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.voice import Clip, Duovox

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
    THEIR_FOLDERS.append(str(folder))
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
    clip = voice.generate("low", seed=3, steps=2, keep_faulty=True)[0]
    voice.save_pretrained(root / "bundle")
    source = made.classifier.config.source
    needed = {"huggingface": {}, "object": {"classifier": network}}.get(source, {"trust_code": True})
    return Spoken(network, before, made, voice, clip, root / "bundle", source, needed)  # type: ignore[arg-type]


KINDS = ("plain", "gru", "waves", "factory", "export", "script", "whisper")


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


KNOWN: dict[str, Spoken] = {}
"""The classifiers that were sent down the whole way so far, in whichever test module."""

THEIR_FOLDERS: list[str] = []
"""Where the module `their_words` lies, once it was written."""


def make(kind: str, root: Path, data: Path, recipe: Recipe) -> Spoken:
    options: dict[str, Any] = {"labels": WORDS, "features": MEL}
    if kind == "whisper":
        return speak(write_whisper(root / "hf"), data, root, recipe)
    if kind == "waves":
        options |= {"features": WaveInput(samples=3840, layout="B1S"), "vocoder": tiny_vocoder(recipe)}
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
    return speak(given[kind](), data, root, recipe, **options)


@pytest.fixture(scope="module")
def tellers_fixture(
    tiny_features: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Spoken]]:
    """Each kind of classifier, sent once down the whole way."""
    paths = list(sys.path)
    sys.path[:0] = THEIR_FOLDERS

    def teller(kind: str) -> Spoken:
        if kind not in KNOWN:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(building, "export_bytes", export_bytes)  # whatever the test that asks first has put in its place
                KNOWN[kind] = make(kind, tmp_path_factory.mktemp(kind), tiny_features, tiny_recipe)
        return KNOWN[kind]

    yield teller
    sys.path[:] = paths
    sys.modules.pop("their_words", None)


@pytest.fixture(params=KINDS)
def spoken_fixture(request: pytest.FixtureRequest, tellers: Callable[[str], Spoken]) -> Spoken:
    return tellers(request.param)


@pytest.fixture
def no_export_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trying torch.export, which takes a second: the module then is for its owner alone to give again."""
    monkeypatch.setattr(building, "export_bytes", lambda *_: None)


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
