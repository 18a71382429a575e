"""classifiers/loading.py: every place a network can come from gives the same logits, and nothing pickled is ever opened."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from duovox.classifiers import exported as programs
from duovox.classifiers import hugging_face
from duovox.classifiers.frozen import FrozenClassifier, fingerprint
from duovox.classifiers.loading import export_bytes, load_network, needs, rebuild_network
from duovox.config import ExternalConfig, MelInput, WaveInput
from duovox.contracts import BundleError, ConfigError, ShapeError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")

PROBE = torch.randn(3, 1, 8, 6, generator=torch.Generator().manual_seed(0))
CODE = """
import torch
from torch import nn

def build(width=4, labels=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, labels))

def number():
    return 7

def broken():
    raise RuntimeError("no such file\\nsecond line")

def tied():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network

constant = 3
"""


class Net(nn.Module):
    """With batch norm and dropout, which eval mode must hold still, and layers inside layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        nn.init.uniform_(self.body[1].running_mean)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x).mean((2, 3))))


class Recurrent(nn.Module):
    """A layer that gives two things, of which one is used; outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.gru(x[:, 0])[0].mean(1))}


class Deciding(nn.Module):
    """Looks at its numbers to choose its way: torch.export cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


class Remembering(nn.Module):
    """Changes a buffer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]
        return x.flatten(1)[:, :3] + self.calls


class Trap:
    """Opening a pickle of it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module `nets_for_loading` in it that is not imported yet."""
    (tmp_path / "nets_for_loading.py").write_text(CODE)
    (tmp_path / "nets_that_fail.py").write_text("import missing_package_of_theirs\n")
    (tmp_path / "nets_that_leave.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_for_loading", raising=False)
    return tmp_path


def save_program(network: nn.Module, path: Path, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(network, (PROBE,), dynamic_shapes=shapes, strict=False), path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(Net().eval(), tmp_path_factory.mktemp("export") / "net.pt2")


@pytest.fixture(scope="module", params=["script", "trace"])
def scripted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = Net().eval()
    path = tmp_path_factory.mktemp("script") / "net.pt"
    program = torch.jit.script(network) if request.param == "script" else torch.jit.trace(network, PROBE)
    program.save(str(path))
    return path


def external(**settings: Any) -> ExternalConfig:
    return ExternalConfig(wave_input=WaveInput(), labels=("yes", "no", "stop"), **settings)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Functions


def test_a_function_is_called_with_its_arguments_and_filled(here: Path) -> None:
    first = load_network("nets_for_loading:build", arguments={"width": 5})
    save_file(first.network.state_dict(), here / "w.safetensors")
    second = load_network("nets_for_loading:build", here / "w.safetensors", {"width": 5})
    assert (second.source, second.entry, json.loads(second.arguments)) == ("factory", "nets_for_loading:build", {"width": 5})
    assert second.network[1].out_features == 5  # type: ignore[index]
    assert torch.equal(first.network(PROBE), second.network(PROBE))
    assert (second.mel_input, second.wave_input, second.labels) == (None, None, None)


def test_the_current_folder_is_importable_only_meanwhile(here: Path) -> None:
    before = list(sys.path)
    load_network("nets_for_loading:build")
    assert sys.path == before
    with pytest.raises(ConfigError):
        load_network("nets_for_loading:broken")
    assert sys.path == before


def test_a_factory_is_rebuilt_from_a_bundle_only_on_trust(here: Path) -> None:
    loaded = load_network("nets_for_loading:build", arguments={"labels": 2})
    config = external(source="factory", entry=loaded.entry, arguments=loaded.arguments)
    sys.modules.pop("nets_for_loading")
    with pytest.raises(BundleError, match=r"function nets_for_loading:build.*trust_code=True") as caught:
        rebuild_network(config, loaded.network.state_dict(), None, trust_code=False)
    assert one_line(caught)
    assert "nets_for_loading" not in sys.modules
    again = rebuild_network(config, loaded.network.state_dict(), None, trust_code=True)
    assert torch.equal(again(PROBE), loaded.network(PROBE))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nets_for_loading:biuld", "no function 'biuld'; did you mean build"),
        ("nets_for_loading:constant", "no function 'constant'"),
        ("nets_for_loading:number", "gave 'int', not a torch.nn.Module"),
        ("nets_for_loading:broken", "calling nets_for_loading:broken failed: RuntimeError: no such file"),
        ("absent_package.nets:build", "cannot import 'absent_package.nets'"),
        ("nets_for_loading.sub:build", "is not a package"),
        ("nets_that_fail:build", "importing nets_that_fail failed: ModuleNotFoundError: No module named 'missing_package_of_theirs'"),
        ("nets_that_leave:build", "importing nets_that_leave failed: SystemExit: 3"),
        ("nets/for.py:build", "does not exist, and is not of the form"),
        ("nowhere.pt2", "does not exist"),
    ],
)
def test_what_is_no_factory_is_one_line(here: Path, source: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_network(source)
    assert says in one_line(caught)


def test_arguments_must_fit_and_be_json(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"TypeError.*'depth'"):
        load_network("nets_for_loading:build", arguments={"depth": 3})
    with pytest.raises(ConfigError, match="must be numbers"):
        load_network("nets_for_loading:build", arguments={"width": torch.zeros(1)})


def test_weights_and_arguments_are_for_functions_alone(exported: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own"):
        load_network(exported, weights="w.safetensors")
    with pytest.raises(ConfigError, match="brings its own"):
        load_network(exported, arguments={"width": 3})


# Weights


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"1.weight": None, "3.bias": None}, "tensor '1.weight' is missing (2 missing, 0 unexpected, 0 misshapen)"),
        ({"extra": torch.zeros(2)}, "tensor 'extra' is unexpected (0 missing, 1 unexpected, 0 misshapen)"),
        (
            {"3.bias": torch.zeros(9)},
            "tensor '3.bias' (float32 (9,), the network has float32 (3,)) is misshapen (0 missing, 0 unexpected, 1 misshapen)",
        ),
        ({"3.bias": torch.zeros(3, dtype=torch.int64)}, "'3.bias' (int64 (3,), the network has float32 (3,))"),
    ],
)
def test_weights_fit_exactly_or_not_at_all(here: Path, change: dict[str, Tensor | None], says: str) -> None:
    state = {**load_network("nets_for_loading:build").network.state_dict(), **change}
    save_file({name: value for name, value in state.items() if value is not None}, here / "w.safetensors")
    with pytest.raises(ConfigError) as caught:
        load_network("nets_for_loading:build", here / "w.safetensors")
    assert says in one_line(caught)


def test_a_bundle_that_does_not_fit_says_so(here: Path) -> None:
    with pytest.raises(BundleError, match="the bundle's classifier does not fit"):
        rebuild_network(external(source="factory", entry="nets_for_loading:build"), {}, None, trust_code=True)


def test_half_precision_weights_are_widened(here: Path) -> None:
    state = {name: value.half() for name, value in load_network("nets_for_loading:build").network.state_dict().items()}
    save_file(state, here / "w.safetensors")
    network = load_network("nets_for_loading:build", here / "w.safetensors").network
    assert all(value.dtype == torch.float32 and torch.equal(value, state[name].float()) for name, value in network.state_dict().items())


def test_one_name_of_tied_tensors_is_enough(here: Path) -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    state = {"0.weight": weight, "0.bias": torch.ones(4), "1.bias": torch.zeros(4)}
    save_file(state, here / "w.safetensors")
    network = load_network("nets_for_loading:tied", here / "w.safetensors").network
    assert torch.equal(network[1].weight, weight)  # type: ignore[index]
    save_file({name: value for name, value in state.items() if name != "0.weight"}, here / "w.safetensors")
    with pytest.raises(ConfigError, match="2 missing"):
        load_network("nets_for_loading:tied", here / "w.safetensors")


def test_missing_and_broken_weights(here: Path) -> None:
    with pytest.raises(ConfigError, match="do not exist"):
        load_network("nets_for_loading:build", "absent.safetensors")
    save_file({"a": torch.zeros(100)}, here / "w.safetensors")
    (here / "w.safetensors").write_bytes((here / "w.safetensors").read_bytes()[:-8])
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_network("nets_for_loading:build", here / "w.safetensors")
    assert one_line(caught)


@pytest.mark.parametrize("name", ["w.safetensors", "nets_for_loading:build"])
def test_weights_alone_are_no_network(here: Path, name: str) -> None:
    """Under the name of a function too: a path that exists is a path."""
    save_file({"a": torch.zeros(2)}, here / name)
    with pytest.raises(ConfigError, match=r"no network: name package\.module:function"):
        load_network(name)


# Pickles


def write_pickle(path: Path, how: str) -> Path:
    """A pickle that leaves a mark beside it when it is opened."""
    trap = {"weights": Trap(path.with_name("mark"))}
    if how == "bare":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net.ckpt", "net.pkl", "net.pt2", "net.safetensors", "net"])
def test_pickles_are_refused_unopened_under_any_name(here: Path, name: str, how: str) -> None:
    path = write_pickle(here / name, how)
    for source, weights in ((path, None), ("nets_for_loading:build", path)):
        with pytest.raises(ConfigError) as caught:
            load_network(source, weights)
        assert "can run any code" in one_line(caught)
    assert not (here / "mark").exists()


def test_the_conversion_that_the_error_names_works(here: Path) -> None:
    """The command is run as it stands in the message; its file then loads."""
    state = load_network("nets_for_loading:build").network.state_dict()
    torch.save(state, here / "net.pth")
    with pytest.raises(ConfigError) as caught:
        load_network("nets_for_loading:build", "net.pth")
    command = one_line(caught).split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", command], check=True, cwd=here)
    network = load_network("nets_for_loading:build", "net.safetensors").network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_other_files_are_no_network(here: Path) -> None:
    (here / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with zipfile.ZipFile(here / "net.zip", "w") as archive:
        archive.writestr("something", "else")
    for name in ("net.onnx", "net.zip"):
        with pytest.raises(ConfigError, match="is no safetensors, exported program"):
            load_network(here / name)


# Exported programs


def test_an_exported_program_gives_the_same_logits_and_gradients(exported: Path) -> None:
    loaded = load_network(exported)
    assert (loaded.source, loaded.entry, loaded.arguments, loaded.code) == ("export", "", "{}", exported.read_bytes())
    network, original = FrozenClassifier(loaded.network).network, Net().eval()
    for batch in (1, 2, 3):
        x = PROBE[:batch].clone().requires_grad_()
        assert torch.allclose(network(x), original(x), atol=1e-6)
        ours, theirs = (torch.autograd.grad(net(x)[:, 1].sum(), x)[0] for net in (network, original))
        assert theirs.abs().max() > 0
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_layers_of_an_exported_program_can_be_hooked_once_copied_too(exported: Path) -> None:
    original, seen, loaded = Net().eval(), list[Tensor](), load_network(exported).network
    for network in (loaded, copy.deepcopy(loaded)):
        seen.clear()
        network.get_submodule("body.1").register_forward_hook(lambda _, __, output: seen.append(output))
        network(PROBE)
        assert len(seen) == 1
        assert torch.allclose(seen[0], original.body[:2](PROBE), atol=1e-6)
        assert torch.autograd.grad(network(PROBE).sum(), seen[-1])[0].abs().max() > 0


def test_an_exported_program_has_its_state_and_no_modes(exported: Path) -> None:
    """Its names are the module's; train mode changes neither what it gives nor its statistics."""
    network, original = load_network(exported).network, Net().eval()
    assert fingerprint(network) == fingerprint(original)
    assert torch.equal(network.train()(PROBE), network.eval()(PROBE))
    assert fingerprint(network) == fingerprint(original)
    assert not any(parameter.requires_grad for parameter in network.requires_grad_(False).parameters())


def test_an_exported_program_learns(exported: Path) -> None:
    """A copy of it can be fine-tuned: what is written into its parameters counts, and the other keeps its own."""
    network = load_network(exported).network
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.get_parameter("head.bias").add_(1.0)
    assert torch.allclose(twin(PROBE), network(PROBE) + 1.0)


def test_a_bundle_fills_an_exported_program(exported: Path) -> None:
    state = {name: value + 1 for name, value in Net().state_dict().items()}
    with pytest.raises(BundleError, match=r"net\.pt2.*trust_code=True"):
        rebuild_network(external(source="export"), None, exported, trust_code=False)
    network = rebuild_network(external(source="export"), state, exported, trust_code=True)
    original = Net().eval()
    assert torch.allclose(rebuild_network(external(source="export"), None, exported, True)(PROBE), original(PROBE), atol=1e-6)
    original.load_state_dict(state)
    assert torch.allclose(network(PROBE), original(PROBE), atol=1e-5)


def test_other_shapes_are_refused(exported: Path) -> None:
    with pytest.raises(ShapeError, match=r"\(B, 1, 8, 6\), got \(2, 1, 8, 7\)"):
        load_network(exported).network(torch.zeros(2, 1, 8, 7))


def test_programs_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batches of 3 alone"):
        load_network(save_program(Net().eval(), tmp_path / "static.pt2", dynamic=False))
    with pytest.raises(ConfigError, match=r"training mode.*network\.eval"):
        load_network(save_program(Net().train(), tmp_path / "train.pt2"))


def test_a_broken_program_is_one_line(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("archive/archive_format", "pt2")
    with pytest.raises(ConfigError, match=r"reading .*net\.pt2 failed") as caught:
        load_network(tmp_path / "net.pt2")
    assert one_line(caught)


# TorchScript


def test_torchscript_gives_the_same_logits_and_gradients(scripted: Path) -> None:
    loaded = load_network(scripted)
    network, original = FrozenClassifier(loaded.network).network, Net().eval()
    assert (loaded.source, loaded.code) == ("torchscript", scripted.read_bytes())
    x = PROBE.clone().requires_grad_()
    assert torch.allclose(network(x), original(x), atol=1e-6)
    ours, theirs = (torch.autograd.grad(net(x)[:, 1].sum(), x)[0] for net in (network, original))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_copies_of_torchscript_are_independent_and_bundles_fill_it(scripted: Path) -> None:
    network = load_network(scripted).network.eval()
    twin = copy.deepcopy(network)
    state = {name: value + 1 for name, value in network.state_dict().items()}
    filled, original = rebuild_network(external(source="torchscript"), state, scripted, trust_code=True).eval(), Net().eval()
    with torch.no_grad():
        dict(twin.named_parameters())["program.head.bias"].add_(1.0)
    assert torch.allclose(network(PROBE), original(PROBE), atol=1e-6)
    assert torch.allclose(twin(PROBE), original(PROBE) + 1.0, atol=1e-6)
    original.load_state_dict({name.removeprefix("program."): value for name, value in state.items()})
    assert torch.allclose(filled(PROBE), original(PROBE), atol=1e-5)


def test_layers_of_torchscript_refuse_hooks(scripted: Path) -> None:
    """Why such a network can be tapped at its output alone."""
    network = load_network(scripted).network
    with pytest.raises(RuntimeError, match="not supported on ScriptModules"):
        network.get_submodule("program.head").register_forward_hook(lambda *_: None)
    seen: list[Tensor] = []
    network.register_forward_hook(lambda _, __, output: seen.append(output))
    assert torch.equal(network(PROBE), seen[0])


def test_torchscript_of_a_bundle_needs_trust(scripted: Path) -> None:
    config = external(source="torchscript")
    with pytest.raises(BundleError, match=r"net\.pt.*trust_code=True"):
        rebuild_network(config, None, scripted, trust_code=False)
    assert torch.allclose(rebuild_network(config, None, scripted, trust_code=True)(PROBE), Net().eval()(PROBE), atol=1e-6)


def test_a_bundles_program_must_be_of_its_kind(scripted: Path, exported: Path, tmp_path: Path) -> None:
    for source, file in (("export", scripted), ("torchscript", exported), ("torchscript", write_pickle(tmp_path / "net.pt", "zip"))):
        with pytest.raises(BundleError, match=f"no file of the kind '{source}'"):
            rebuild_network(external(source=source), None, file, trust_code=True)
    for file in (None, Path("absent.pt2")):
        with pytest.raises(BundleError, match="is missing"):
            rebuild_network(external(source="export"), None, file, trust_code=True)
    assert not (tmp_path / "mark").exists()


# What a bundle says


def test_an_object_must_be_passed() -> None:
    with pytest.raises(BundleError, match=r"Duovox\.from_pretrained\(path, classifier=module\)"):
        rebuild_network(external(source="object"), {}, None, trust_code=True)


def test_needs_is_one_sentence_for_every_source() -> None:
    assert needs(external(source="factory", entry="a.b:make")) == "the module a.b with its function make must be importable"
    assert "transformers" in needs(external(source="huggingface", entry="X"))
    assert needs(external(source="export")) == needs(external(source="torchscript")) == "nothing beyond torch is needed"
    assert "classifier=module" in needs(external(source="object"))


# Modules that become programs


def test_a_module_becomes_a_program_and_stays_as_it_was(tmp_path: Path) -> None:
    network = Net().train()
    network.body.eval()
    network.head.bias.requires_grad_(False)
    before, modes = fingerprint(network), [module.training for module in network.modules()]
    content = export_bytes(network, PROBE[:1], taps=("body.1",))
    assert content is not None
    assert fingerprint(network) == before
    assert [module.training for module in network.modules()] == modes
    assert [name for name, value in network.named_parameters() if not value.requires_grad] == ["head.bias"]
    assert not any(module._forward_hooks for module in network.modules())
    (tmp_path / "net.pt2").write_bytes(content)
    assert torch.allclose(load_network(tmp_path / "net.pt2").network(PROBE), network.eval()(PROBE), atol=1e-6)


def test_tapped_layers_keep_the_form_of_their_output(tmp_path: Path) -> None:
    forms: dict[bool, Any] = {}
    for kept in (True, False):
        (tmp_path / "net.pt2").write_bytes(export_bytes(Recurrent(), PROBE, taps=("gru",) if kept else ()) or b"")
        network = load_network(tmp_path / "net.pt2").network
        network.get_submodule("gru").register_forward_hook(lambda _, __, output, kept=kept: forms.update({kept: output}))
        assert set(network(PROBE)) == {"logits"}
    assert isinstance(forms[True], tuple) and forms[True][0].shape == (3, 8, 5)
    assert isinstance(forms[False], Tensor)


def test_what_cannot_be_exported_is_none_without_a_word(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert export_bytes(Deciding(), PROBE) is None
    assert capfd.readouterr() == ("", "")
    logging.getLogger("duovox.test").warning("heard again")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["heard again"]


def test_a_module_that_counts_its_calls_counts_none_of_ours() -> None:
    network = Remembering()
    export_bytes(network, PROBE)
    assert network.calls == 0


def test_a_program_with_other_logits_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison decides, not torch's word."""
    other = Net().eval()
    with torch.no_grad():
        other.head.bias += 0.01
    export = programs._export
    monkeypatch.setattr(programs, "_export", lambda network, inputs, taps: export(other, inputs, taps))
    assert export_bytes(Net(), PROBE) is None


# Hugging Face


def write_model(folder: Path, name: str) -> nn.Module:
    """A tiny model of transformers in a folder, with its preprocessor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "classifier_proj_size": 8}
    if name == "whisper":
        sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 20}
        names = {"id2label": {0: "yes", 1: "no", 2: "stop"}, "label2id": {"yes": 0, "no": 1, "stop": 2}}
        config = transformers.WhisperConfig(**small, **sizes, **names, num_mel_bins=10, decoder_start_token_id=1)
        network, extractor = transformers.WhisperForAudioClassification(config), transformers.WhisperFeatureExtractor(feature_size=10)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 4}
        convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2}
        position = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        config = transformers.Wav2Vec2Config(**small, **sizes, **convolutions, **position)
        network, extractor = transformers.Wav2Vec2ForSequenceClassification(config), transformers.Wav2Vec2FeatureExtractor()
    with hugging_face._quiet():
        network.save_pretrained(folder)
        extractor.save_pretrained(folder)
    return network.eval()


def change_json(path: Path, **changes: Any) -> None:
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@pytest.fixture
def whisper(tmp_path: Path) -> tuple[Path, nn.Module]:
    return tmp_path / "model", write_model(tmp_path / "model", "whisper")


MELS = torch.randn(2, 10, 40, generator=torch.Generator().manual_seed(0))


def test_whisper_comes_with_weights_input_and_labels(whisper: tuple[Path, nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    folder, original = whisper
    loaded = load_network(folder)
    assert (loaded.source, loaded.entry) == ("huggingface", "WhisperForAudioClassification")
    assert loaded.mel_input == MelInput(
        16000, 400, 400, 160, 10, 0.0, 8000.0, 40, "slaney", "slaney", 2, "log10", 1e-10, "whisper", layout="BMT"
    )
    assert loaded.wave_input is None
    assert loaded.labels == ("yes", "no", "stop")
    assert torch.allclose(loaded.network.eval()(MELS).logits, original(MELS).logits, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_wav2vec_comes_with_its_wave_and_no_invented_labels(tmp_path: Path) -> None:
    original = write_model(tmp_path, "wav2vec")
    loaded = load_network(tmp_path)
    assert loaded.wave_input == WaveInput(16000, 16000, "item", "BS")
    assert (loaded.mel_input, loaded.labels) == (None, None)
    wave = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded.network.eval()(wave).logits, original(wave).logits, atol=1e-5)
    change_json(tmp_path / "preprocessor_config.json", do_normalize=False, sampling_rate=8000)
    assert load_network(tmp_path).wave_input == WaveInput(8000, 8000, "none", "BS")


def test_old_names_of_weights_are_understood(tmp_path: Path) -> None:
    """Files from before torch's parametrizations name weight norm's parts otherwise."""
    write_model(tmp_path, "wav2vec")
    state = load_file(tmp_path / "model.safetensors")
    expected = state["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_v" in state
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    network = load_network(tmp_path).network
    assert torch.equal(network.state_dict()["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"], expected)


def test_a_model_is_rebuilt_without_its_folder_and_without_trust(whisper: tuple[Path, nn.Module]) -> None:
    folder, original = whisper
    loaded = load_network(folder)
    assert str(folder) not in loaded.arguments
    config = external(source="huggingface", entry=loaded.entry, arguments=loaded.arguments)
    (folder / "model.safetensors").unlink()
    network = rebuild_network(config, original.state_dict(), None, trust_code=False).eval()
    assert torch.allclose(network(MELS).logits, original(MELS).logits, atol=1e-5)


def test_half_precision_and_parts_are_joined(whisper: tuple[Path, nn.Module]) -> None:
    folder, original = whisper
    state = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    parts = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(state)}
    for part in set(parts.values()):
        save_file({name: value for name, value in state.items() if parts[name] == part}, folder / part, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    network = load_network(folder).network.eval()
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert torch.allclose(network(MELS).logits, original(MELS).logits, atol=1e-2)


def test_a_model_whose_weights_do_not_fit_is_refused(whisper: tuple[Path, nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    """Transformers alone would leave random numbers where tensors are missing or misshapen, and say so in passing."""
    folder, _ = whisper
    good = load_file(folder / "model.safetensors")
    cases = {
        r"'classifier\.bias' is missing \(1 missing, 1 unexpected": {"extra": torch.zeros(1), "classifier.bias": None},
        r"'extra' is unexpected \(0 missing, 1 unexpected": {"extra": torch.zeros(1)},
        r"'classifier\.bias' \(\(5,\), the network has \(3,\)\) is misshapen \(0 missing, 0 unexpected, 1": {
            "classifier.bias": torch.zeros(5)
        },
    }
    for says, change in cases.items():
        state = {name: value for name, value in {**good, **change}.items() if value is not None}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ConfigError, match=says) as caught:
            load_network(folder)
        assert one_line(caught)
    assert capfd.readouterr() == ("", "")


def test_code_of_a_model_folder_is_never_asked_for(whisper: tuple[Path, nn.Module]) -> None:
    """Neither remote classes nor kernels, pickles, quantizers or adapters that a configuration may name."""
    folder, original = whisper
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    write_pickle(folder / "adapter_model.bin", "zip")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    change_json(
        folder / "config.json",
        auto_map={"AutoModelForAudioClassification": "evil.Net"},
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        transformers_weights="adapter_model.bin",
        quantization_config={"quant_method": "gptq", "bits": 4},
        dtype="float16",
    )
    loaded = load_network(folder)
    assert loaded.network.config._attn_implementation == "eager"  # type: ignore[union-attr]
    assert torch.allclose(loaded.network.eval()(MELS).logits, original(MELS).logits, atol=1e-5)
    assert "someone" not in loaded.arguments and "evil" not in loaded.arguments
    assert not (folder / "mark").exists()


def test_pickled_models_are_refused_with_a_conversion(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="do not exist"):
        load_network(folder)
    write_pickle(folder / "pytorch_model.bin", "zip")
    with pytest.raises(ConfigError, match=r"can run any code.*pytorch_model\.bin.*model\.safetensors") as caught:
        load_network(folder)
    assert "package.module" not in one_line(caught)
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("name", ["TheirOwnNet", "os", "WhisperConfig", "__name__"])
def test_only_models_of_transformers_are_built(whisper: tuple[Path, nn.Module], name: str) -> None:
    folder, _ = whisper
    change_json(folder / "config.json", architectures=[name])
    with pytest.raises(ConfigError, match=f"has no model class '{name}'.*never run"):
        load_network(folder)
    with pytest.raises(BundleError, match="has no model class"):
        rebuild_network(external(source="huggingface", entry=name), {}, None, trust_code=False)


def test_configurations_that_cannot_be_built_are_one_line(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    change_json(folder / "config.json", encoder_attention_heads=3)
    with pytest.raises(ConfigError, match="WhisperForAudioClassification failed") as caught:
        load_network(folder)
    assert one_line(caught)
    change_json(folder / "config.json", encoder_attention_heads=2)
    change_json(folder / "preprocessor_config.json", hop_length="short")
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json\.hop_length"):
        load_network(folder)


def test_other_preprocessors_say_nothing(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor"}')
    assert (load_network(folder).mel_input, load_network(folder).wave_input) == (None, None)
    (folder / "preprocessor_config.json").unlink()
    assert load_network(folder).mel_input is None
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert load_network(folder).mel_input is not None


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        load_network(tmp_path)
    for text, says in (("{}", "names no architectures"), ("[]", "no table"), ("{", "cannot be read")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=says) as caught:
            load_network(tmp_path)
        assert one_line(caught)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"architectures": ["WhisperForAudioClassification"]}')
    with pytest.raises(ConfigError, match=r"pip install 'duovox\[hf\]'") as caught:
        load_network(tmp_path)
    assert one_line(caught)
    with pytest.raises(BundleError, match=r"duovox\[hf\]"):
        rebuild_network(external(source="huggingface", entry="X"), None, None, trust_code=False)


def test_transformers_is_imported_only_for_its_models() -> None:
    code = "import sys, duovox.classifiers.loading; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
