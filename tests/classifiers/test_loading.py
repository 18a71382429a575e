"""loading.py: every place a network can come from gives the same logits, and a bundle runs code only on trust."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from networks_on_disk import PROBE, Net, external, go_to, one_line, save_program, save_script, write_pickle
from safetensors.torch import save_file

from duovox.classifiers.loading import load_network, needs, rebuild_network
from duovox.contracts import BundleError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return go_to(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(Net().eval(), tmp_path_factory.mktemp("export") / "net.pt2")


@pytest.fixture(scope="module", params=["script", "trace"])
def scripted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_script(request.param, tmp_path_factory.mktemp("script") / "net.pt")


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


def test_a_bundle_that_does_not_fit_says_so(here: Path) -> None:
    with pytest.raises(BundleError, match="the bundle's classifier does not fit"):
        rebuild_network(external(source="factory", entry="nets_for_loading:build"), {}, None, trust_code=True)


def test_a_bundles_program_must_be_of_its_kind(scripted: Path, exported: Path, tmp_path: Path) -> None:
    for source, file in (("export", scripted), ("torchscript", exported), ("torchscript", write_pickle(tmp_path / "net.pt", "zip"))):
        with pytest.raises(BundleError, match=f"no file of the kind '{source}'"):
            rebuild_network(external(source=source), None, file, trust_code=True)
    for file in (None, Path("absent.pt2")):
        with pytest.raises(BundleError, match="is missing"):
            rebuild_network(external(source="export"), None, file, trust_code=True)
    assert not (tmp_path / "mark").exists()


def test_an_object_must_be_passed() -> None:
    with pytest.raises(BundleError, match=r"Duovox\.from_pretrained\(path, classifier=module\)"):
        rebuild_network(external(source="object"), {}, None, trust_code=True)


def test_needs_is_one_sentence_for_every_source() -> None:
    assert needs(external(source="factory", entry="a.b:make")) == "the module a.b with its function make must be importable"
    assert "transformers" in needs(external(source="huggingface", entry="X"))
    assert needs(external(source="export")) == needs(external(source="torchscript")) == "nothing beyond torch is needed"
    assert "classifier=module" in needs(external(source="object"))


@pytest.mark.parametrize("name", ["w.safetensors", "nets_for_loading:build"])
def test_weights_alone_are_no_network(here: Path, name: str) -> None:
    """Under the name of a function too: a path that exists is a path."""
    save_file({"a": torch.zeros(2)}, here / name)
    with pytest.raises(ConfigError, match=r"no network: name package\.module:function"):
        load_network(name)
