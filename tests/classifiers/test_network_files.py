"""network_files.py: weights fit exactly or not at all, and nothing pickled is ever opened."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks_on_disk import go_to, one_line, save_script, write_pickle
from safetensors.torch import save_file
from torch import Tensor

from duovox.classifiers.loading import load_network
from duovox.classifiers.network_files import conversion
from duovox.contracts import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return go_to(tmp_path, monkeypatch)


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


@pytest.mark.parametrize("how", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net.ckpt", "net.pkl", "net.pt2", "net.safetensors", "net"])
def test_pickles_are_refused_unopened_under_any_name(here: Path, name: str, how: str) -> None:
    path = write_pickle(here / name, how)
    for source, weights in ((path, None), ("nets_for_loading:build", path)):
        with pytest.raises(ConfigError) as caught:
            load_network(source, weights)
        assert "can run any code" in one_line(caught)
    assert not (here / "mark").exists()


CHECKPOINTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "weights alone": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "loss": 0.5},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}},
    "model_state": lambda state: {"model_state": state, "epoch": torch.tensor(3)},
    "model_state_dict": lambda state: {"model_state_dict": OrderedDict(state), "args": {"width": 4}},
    "nested twice": lambda state: {"model": {"state_dict": state, "step": 7}},
    "with other things": lambda state: {**state, "version": 2},
    "tied and strided": lambda state: {**state, "1.weight": state["1.weight"].T.contiguous().T, "3.bias": state["3.bias"].expand(2, -1)[0]},
    "wrapped": lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    "of a trainer": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "global_step": 1},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_conversion_that_the_error_names_works(here: Path, name: str) -> None:
    """The command is read by the shell as it stands in the message; its file then loads."""
    state = load_network("nets_for_loading:build").network.state_dict()
    torch.save(CHECKPOINTS[name](dict(state)), here / "net.pth")
    converted = obey("net.pth", in_a_process=name == "nested twice")
    assert converted == "net.safetensors"
    network = load_network("nets_for_loading:build", converted).network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["my net.pt", "it's.pt", 'a"b$HOME`c.pt', "net.safetensors"])
def test_the_conversion_works_for_every_name_and_overwrites_nothing(here: Path, name: str) -> None:
    state = load_network("nets_for_loading:build").network.state_dict()
    torch.save(state, here / name)
    before = (here / name).read_bytes()
    converted = obey(name)
    assert converted == f"{Path(name).stem}{'-converted' if name == 'net.safetensors' else ''}.safetensors"
    load_network("nets_for_loading:build", converted)
    assert (here / name).read_bytes() == before


def test_tensors_of_another_device_come_to_the_cpu() -> None:
    """What cannot be tried without CUDA: the line says so to torch."""
    assert "map_location='cpu', weights_only=True" in conversion(Path("a.pt"), Path("a.safetensors"))


def obey(name: str, in_a_process: bool = False) -> str:
    """Run the command in the refusal of a pickled file, its Python here or in a process of its own; the file that it wrote."""
    with pytest.raises(ConfigError) as caught:
        load_network("nets_for_loading:build", name)
    said = one_line(caught)
    assert "package.module:function" not in said, "it was just given"
    before = set(os.listdir())
    command = said.split("where you trust it: ")[1].split(", then give that file as the weights")[0]
    python = f'{sys.executable} "$@"' if in_a_process else 'printf %s "$2"'
    command = f"python() {{ {python}; }}; {command}"
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    exec(done.stdout, {})
    (new,) = set(os.listdir()) - before
    return new


def test_a_refusal_says_what_is_still_missing(here: Path) -> None:
    """Given as the classifier itself, the file needs a function as well."""
    torch.save({}, here / "net.pt")
    with pytest.raises(ConfigError, match=r"then name package\.module:function, and give net\.safetensors as its weights"):
        load_network("net.pt")


def test_programs_are_no_weights(here: Path) -> None:
    save_script("trace", here / "net.pt")
    with pytest.raises(ConfigError, match=r"net\.pt is no weights but a whole program: give it alone"):
        load_network("nets_for_loading:build", "net.pt")


def test_prefixes_and_precision_are_said(here: Path) -> None:
    state = load_network("nets_for_loading:build").network.state_dict()
    save_file({f"module.{name}": value.double() for name, value in state.items()}, here / "w.safetensors")
    loaded = load_network("nets_for_loading:build", "w.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())
    assert loaded.notes == ("the names of its weights are read without 'module.'", "its weights are float64; they are converted to float32")
    save_file({f"module.{name}": value for name, value in state.items() if name != "3.bias"}, here / "w.safetensors")
    with pytest.raises(ConfigError, match=r"'3\.bias' is missing \(1 missing, 0 unexpected"):
        load_network("nets_for_loading:build", "w.safetensors")


def test_weights_keep_their_precision_in_a_network_of_half(here: Path) -> None:
    """The function's network is widened before it is filled."""
    (here / "half.py").write_text("import nets_for_loading\n\ndef build():\n    return nets_for_loading.build().half()\n")
    state = load_network("nets_for_loading:build").network.state_dict()
    save_file(state, here / "w.safetensors")
    loaded = load_network("half:build", "w.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items()) and loaded.notes == ()
    assert load_network("half:build").notes == ("its weights are float16; they are converted to float32",)


def test_other_files_are_no_network(here: Path) -> None:
    (here / "net.bin2").write_bytes(b"\x08\x07\x12\x07pytorch")
    with zipfile.ZipFile(here / "net.zip", "w") as archive:
        archive.writestr("something", "else")
    for name in ("net.bin2", "net.zip"):
        with pytest.raises(ConfigError, match="is no safetensors, exported program"):
            load_network(here / name)
