"""exported.py: programs of torch.export and TorchScript run as their modules did, and modules become programs."""

from __future__ import annotations

import copy
import logging
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from networks_on_disk import PROBE, Net, external, one_line, save_program, save_script
from torch import Tensor, nn

from duovox.classifiers import exported as programs
from duovox.classifiers.exported import is_recurrent
from duovox.classifiers.frozen import FrozenClassifier, fingerprint
from duovox.classifiers.loading import export_bytes, load_network, rebuild_network
from duovox.contracts import BundleError, ConfigError, ShapeError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(Net().eval(), tmp_path_factory.mktemp("export") / "net.pt2")


@pytest.fixture(scope="module", params=["script", "trace"])
def scripted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_script(request.param, tmp_path_factory.mktemp("script") / "net.pt")


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


class Rolled(nn.Module):
    """A recurrent layer over time, or in its place a linear one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = {"gru": nn.GRU, "lstm": nn.LSTM, "tanh": nn.RNN, "linear": nn.Linear}[kind](6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.rnn(x[:, 0].transpose(0, 1))
        hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        return self.head(hidden.mean(0))


@pytest.mark.filterwarnings("ignore")  # tracing warns of what a recurrent layer checks
@pytest.mark.parametrize("kind", ["gru", "lstm", "tanh", "linear"])
@pytest.mark.parametrize("how", ["module", "trace", "frozen", "export", "inside"])
def test_recurrent_operators_are_seen_in_programs_too(how: str, kind: str, tmp_path: Path) -> None:
    """On CUDA they need cuDNN to be off: its backward refuses eval mode, whichever door the network came through."""
    network: nn.Module = Rolled(kind).eval()
    if how == "inside":
        network = nn.ModuleDict({"theirs": nn.Sequential(network)})
    elif how == "export":
        network = load_network(save_program(network, tmp_path / "net.pt2")).network
    elif how != "module":
        program = torch.jit.trace(network, PROBE)
        (torch.jit.freeze(program) if how == "frozen" else program).save(str(tmp_path / "net.pt"))
        network = load_network(tmp_path / "net.pt").network
    assert is_recurrent(network) == is_recurrent(copy.deepcopy(network)) == (kind != "linear")
