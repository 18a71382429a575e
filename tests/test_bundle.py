"""bundle/: what is written is read back; every kind of damage is one line that names the file; nothing half-written."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from duovox import files as module
from duovox.bundle import Bundle, locate, locating, read_bundle, write_bundle
from duovox.config import Calibration
from duovox.contracts import BundleError, ConfigError, OutputError
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.voice import Duovox


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(bundle: Bundle) -> dict[str, Tensor]:
    assert bundle.vocoder is not None
    parts = {"classifier": bundle.model.classifier.network, "subnet": bundle.model.score_network, "vocoder": bundle.vocoder}
    return {f"{part}.{name}": value for part, network in parts.items() for name, value in network.state_dict().items()}


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file and its digest into config.json, as a forger or a careful converter would."""
    (folder / name).write_bytes(content)
    change_config(folder, lambda config: config["digests"].update({name: hashlib.sha256(content).hexdigest()}))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object], name: str = "model.safetensors") -> None:
    tensors = load((folder / name).read_bytes())
    change(tensors)
    mel = json.dumps(json.loads((folder / "config.json").read_text())["recipe"]["mel"])
    replace_file(folder, name, save(tensors, {"mel": mel} if name == "vocoder.safetensors" else None))


def assert_refused(folder: Path, *words: str) -> None:
    """One line, from the reader and from the public object, that holds these words."""
    for open_it in (read_bundle, Duovox.from_pretrained):
        with pytest.raises(BundleError) as caught:
            open_it(folder)
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value)


# round trip


def test_a_bundle_is_read_back_as_it_was_written(tiny_bundle: Bundle, bundle_folder: Path) -> None:
    read = read_bundle(bundle_folder)
    before, after = states(tiny_bundle), states(read)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], value.half().float()), name
    assert dataclasses.replace(read.config, digests={}) == tiny_bundle.config
    assert read.card == "# Tiny\n"
    assert sorted(contents(bundle_folder)) == ["README.md", "config.json", "model.safetensors", "vocoder.safetensors"]
    assert not read.model.training and not any(p.requires_grad for p in read.model.parameters())
    assert read.model.classifier.unchanged()


def test_a_second_writing_is_byte_identical(tiny_bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    write_bundle(tiny_bundle, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(bundle_folder)
    write_bundle(read_bundle(bundle_folder), tmp_path / "through")  # float16 is a fixed point
    assert contents(tmp_path / "through") == contents(bundle_folder)


def test_the_digest_is_of_the_weights(tiny_bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    config = read_bundle(bundle_folder).config
    for name, digest in config.digests.items():
        assert digest == hashlib.sha256((bundle_folder / name).read_bytes()).hexdigest()
    assert config.digests.keys() == {"model.safetensors", "vocoder.safetensors"}
    scored = dataclasses.replace(tiny_bundle, config=dataclasses.replace(tiny_bundle.config, scores={"accuracy": 1.0}))
    assert write_bundle(scored, tmp_path / "scored").digest == config.digest
    assert write_bundle(dataclasses.replace(tiny_bundle, vocoder=None), tmp_path / "mute").digest != config.digest


def test_a_bundle_without_a_vocoder(tiny_bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(dataclasses.replace(tiny_bundle, vocoder=None, card=""), tmp_path / "b")
    read = read_bundle(tmp_path / "b")
    assert read.vocoder is None and read.card == ""
    assert not (tmp_path / "b" / "vocoder.safetensors").exists()


def test_the_format_before_is_still_read(copy: Path, tiny_bundle: Bundle) -> None:
    """It had no calibration, no classifiers of others and no place of guidance; the bundle in the package has it."""
    packaged = json.loads((locate("sc06") / "config.json").read_text())
    assert packaged["format"] == 1 and "calibration" not in packaged and "guide_at" not in packaged["recipe"]["sample"]
    read = read_bundle(locate("sc06"))
    assert read.config.format == 1 and read.config.labels == tuple(packaged["labels"]) and read.model.classifier.unchanged()
    assert read.config.calibration == Calibration() and read.config.recipe.sample.guide_at == "noised"

    def age(config: dict[str, Any]) -> None:
        config["format"] = 1
        del config["calibration"], config["recipe"]["sample"]["guide_at"]

    change_config(copy, age)
    before = read_bundle(copy)
    assert all(torch.equal(value, states(before)[name]) for name, value in states(read_bundle(copy)).items())
    assert dataclasses.replace(before.config, digests={}, format=2) == tiny_bundle.config
    assert write_bundle(before, copy, force=True).format == 2


# damage


def test_no_folder_and_no_config(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        read_bundle(tmp_path / "nowhere")
    (copy / "config.json").unlink()
    assert_refused(copy, "config.json", str(copy))


@pytest.mark.parametrize("name", ["model.safetensors", "vocoder.safetensors"])
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert_refused(copy, f"{name} is missing")


@pytest.mark.parametrize("version", [0, 3, "1", 1.0, True, None, [1]])
def test_an_unknown_version(copy: Path, version: object) -> None:
    change_config(copy, lambda config: config.update(format=version))
    assert_refused(copy, "config.json", "format")


@pytest.mark.parametrize("text", [b"", b"not json", b"[]", b"3", b"\xff\xfe", b'{"format": 1', b"null"])
def test_a_config_that_is_no_json_object(copy: Path, text: bytes) -> None:
    (copy / "config.json").write_bytes(text)
    assert_refused(copy, "config.json")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda config: config.pop("labels"), "labels"),
        (lambda config: config.update(labels=[]), "labels"),
        (lambda config: config.update(labels=["high", "high", "mid"]), "labels"),
        (lambda config: config.update(labels="abc"), "labels"),
        (lambda config: config.update(labels=["high", "", "mid"]), "labels: '' cannot be a label, it is empty"),
        (lambda config: config.update(labels=["high", " ", "mid"]), "labels: ' ' cannot be a label, it is empty"),
        (lambda config: config.update(labels=["high", "lo\0w", "mid"]), r"it holds the character \x00"),
        (lambda config: config.update(labels=["high", "low\n", "mid"]), r"it holds the character \n"),
        (lambda config: config.update(labels=["high", "low\u2028", "mid"]), r"it holds the character \u2028"),
        (lambda config: config.update(labels=["high", "..", "mid"]), "'..' cannot be a label, it is no name"),
        (lambda config: config["recipe"].update(widths=3), "widths"),
        (lambda config: config["recipe"]["mel"].update(hop_length="256"), "hop_length"),
        (lambda config: config["recipe"]["noise"].update(sigma_data=-1), "sigma_data"),
        (lambda config: config["mel_scale"].update(scale=0.0), "scale"),
        (lambda config: config["mel_scale"].update(shift=float("nan")), "shift"),
        (lambda config: config.update(digests=[]), "digests"),
        (lambda config: config.update(origin=3), "origin"),
        (lambda config: config.update(digests={}), "model.safetensors"),
        (lambda config: config.update(digests={"model.safetensors": 5}), "model.safetensors"),
        (lambda config: config.update(surprise=1), "surprise"),
    ],
)
def test_settings_that_cannot_be(copy: Path, change: Callable[[dict[str, Any]], object], word: str) -> None:
    change_config(copy, change)
    assert_refused(copy, word, str(copy))


@pytest.mark.parametrize("name", ["model.safetensors", "vocoder.safetensors"])
def test_a_changed_byte_is_seen_by_its_digest(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    assert_refused(copy, name, "sha256")


@pytest.mark.parametrize("name", ["model.safetensors", "vocoder.safetensors"])
@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_truncated_file(copy: Path, name: str, length: int) -> None:
    content = (copy / name).read_bytes()[:length]
    (copy / name).write_bytes(content)
    assert_refused(copy, name, "sha256")
    replace_file(copy, name, content)
    assert_refused(copy, name, "cannot be read")


def test_foreign_tensors(copy: Path) -> None:
    replace_file(copy, "model.safetensors", save({"some.other": torch.ones(3)}))
    assert_refused(copy, "model.safetensors", "lacks tensor")


def test_pickle_is_never_opened(copy: Path, tmp_path: Path) -> None:
    """A pickle that would leave a mark if anything unpickled it."""

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "mark"),)

    torch.save({"classifier.stem.weight": Trap()}, tmp_path / "trap.pt")
    replace_file(copy, "model.safetensors", (tmp_path / "trap.pt").read_bytes())
    assert_refused(copy, "model.safetensors", "cannot be read")
    assert not (tmp_path / "mark").exists()


FIRST = "classifier.stem.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(FIRST), ("lacks tensor", FIRST, "1 missing")),
        (lambda t: t.update({"classifier.extra": torch.ones(1)}), ("unknown tensor", "classifier.extra", "1 extra")),
        (lambda t: t.update({FIRST: t[FIRST][:1].clone()}), ("shape (1, 4, 3, 3)", FIRST, "needs (8, 4, 3, 3)")),
        (lambda t: t.update({FIRST: t[FIRST] * float("nan")}), (FIRST, "not finite")),
        (lambda t: t.update({FIRST: t[FIRST] * float("inf")}), (FIRST, "not finite")),
        (lambda t: t.update({FIRST: t[FIRST].int()}), (FIRST, "torch.int32")),
    ],
)
def test_tensors_that_do_not_fit(copy: Path, change: Callable[[dict[str, Tensor]], object], words: tuple[str, ...]) -> None:
    change_tensors(copy, change)
    assert_refused(copy, "model.safetensors", *words)


def test_weights_of_another_recipe(copy: Path) -> None:
    change_config(copy, lambda config: config["recipe"]["classifier"].update(widths=[8, 8]))
    assert_refused(copy, "model.safetensors")


def test_more_labels_than_the_weights_know(copy: Path) -> None:
    change_config(copy, lambda config: config.update(labels=["high", "low", "mid", "more"]))
    assert_refused(copy, "model.safetensors", "classifier.head")


def test_a_vocoder_for_another_mel(copy: Path, tiny_bundle: Bundle) -> None:
    """All its tensors fit and its digest is right, but it was made for another hop."""
    mel = dataclasses.replace(tiny_bundle.config.recipe.mel, floor=1e-4)
    other = dataclasses.replace(tiny_bundle.config.recipe, mel=mel)
    config = dataclasses.replace(tiny_bundle.config, recipe=other)
    vocoder = ISTFTNet(other.vocoder, mel)
    write_bundle(Bundle(config, tiny_bundle.model, vocoder), copy.parent / "other")
    replace_file(copy, "vocoder.safetensors", (copy.parent / "other" / "vocoder.safetensors").read_bytes())
    assert_refused(copy, "vocoder", "mel.floor = 0.0001", "1e-05")
    with pytest.raises(BundleError, match=r"mel\.floor"):
        Bundle(tiny_bundle.config, tiny_bundle.model, vocoder)


def test_a_vocoder_that_does_not_say_its_mel(copy: Path) -> None:
    replace_file(copy, "vocoder.safetensors", save(load((copy / "vocoder.safetensors").read_bytes()), {"mel": "[1]"}))
    assert_refused(copy, "vocoder.safetensors", "mel")


def test_a_card_that_is_no_text(copy: Path) -> None:
    (copy / "README.md").write_bytes(b"\xff\xfe\xfa")
    assert_refused(copy, "README.md")


# writing


def test_weights_that_float16_cannot_hold_are_not_written(tiny_bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    for value in (1e6, float("nan")):
        broken = read_bundle(bundle_folder)
        with torch.no_grad():
            broken.model.score_network.head[2].bias[0] = value
        with pytest.raises(BundleError, match=r"subnet\.head\.2\.bias.*float16"):
            write_bundle(broken, tmp_path / "b")
        assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_needs_force(tiny_bundle: Bundle, copy: Path) -> None:
    (copy / "README.md").write_text("mine")
    before = contents(copy)
    with pytest.raises(OutputError, match=r"exists; use --force"):
        write_bundle(tiny_bundle, copy)
    assert contents(copy) == before
    write_bundle(tiny_bundle, copy, force=True)
    assert contents(copy) == {**before, "README.md": b"# Tiny\n"}
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_an_empty_folder_is_a_place(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write_bundle(tiny_bundle, tmp_path / "b")
    assert read_bundle(tmp_path / "b").config.labels == tiny_bundle.config.labels


def test_parents_are_made(tiny_bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tiny_bundle, tmp_path / "a" / "b")
    assert read_bundle(tmp_path / "a" / "b").config.labels == tiny_bundle.config.labels


@pytest.mark.parametrize(
    "files",
    [("thesis.txt",), ("config.json", "model.safetensors", "thesis.txt"), ("README.md",), ("config.json",), ("config.json", "README.md")],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_bundle_is_never_replaced(tiny_bundle: Bundle, tmp_path: Path, files: tuple[str, ...], force: bool) -> None:
    for name in files:
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="is no bundle"):
        write_bundle(tiny_bundle, tmp_path, force)
    assert contents(tmp_path) == dict.fromkeys(files, b"mine")


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_place_is_kept(tiny_bundle: Bundle, tmp_path: Path, force: bool) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(OutputError, match="cannot write the bundle"):
        write_bundle(tiny_bundle, tmp_path / "b", force)
    with pytest.raises(OutputError, match="cannot write the bundle"):
        write_bundle(tiny_bundle, tmp_path / "b" / "c", force)
    assert contents(tmp_path) == {"b": b"mine"}


def test_a_link_to_a_bundle_stays_a_link(tiny_bundle: Bundle, copy: Path) -> None:
    (copy / "README.md").write_text("old")
    link = copy.parent / "link"
    link.symlink_to(copy)
    write_bundle(tiny_bundle, link, force=True)
    assert link.is_symlink() and (copy / "README.md").read_text() == "# Tiny\n"


@pytest.mark.parametrize("call", ["mkdtemp", "write", "replace 0", "replace 1"])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tiny_bundle: Bundle, copy: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at every step of the way; `replace 1` is between taking the old bundle away and putting the new one in place."""
    before, real = contents(copy), os.replace
    calls: list[object] = []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) - 1 == int(call[-1]):
            full()
        real(source, target)

    with monkeypatch.context() as patch:
        if call == "mkdtemp":
            patch.setattr(tempfile, "mkdtemp", full)
        elif call == "write":
            patch.setattr(Path, "write_bytes", full)
        else:
            patch.setattr(module.os, "replace", replace)
        with pytest.raises(OutputError, match="No space left on device"):
            write_bundle(tiny_bundle, copy, force=True)
    assert contents(copy.parent) == {f"copy/{name}": content for name, content in before.items()}
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_an_interrupted_writing_leaves_nothing(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tiny_bundle, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_as_readable_as_any_other_folder(tiny_bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tiny_bundle, tmp_path / "b")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "other").stat().st_mode


# where bundles are


def test_a_name_is_a_bundle_in_the_package(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folders there are where one stands; `./name` is such a folder."""
    package = tmp_path / "package"
    (package / "bundles").mkdir(parents=True)
    (package / "bundles" / "other").symlink_to(bundle_folder)
    monkeypatch.setattr(locating, "BUNDLES", package / "bundles")
    (tmp_path / "other").mkdir()
    (tmp_path / "third").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("other") == package / "bundles" / "other"
    assert locate("./other") == locate(Path("other")) == Path("other")
    assert locate("third") == Path("third")
    for name in ("", ".."):
        with pytest.raises(BundleError):
            Duovox.from_pretrained(name)
    with pytest.raises(BundleError, match=r"no bundle at nothing; .* in the package: other$"):
        locate("nothing")


def test_the_hub_is_asked_for_owner_and_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'duovox\[hub\]'"):
        locate("owner/name")
    for source in ("a/b/c", "./name", "/owner/name", Path("owner/name")):
        with pytest.raises(BundleError, match="no bundle at"):
            locate(source)


def test_languages_are_codes_of_labels_and_absent_where_there_are_none(bundle_folder: Path, tiny_bundle: Bundle) -> None:
    assert "languages" not in json.loads((bundle_folder / "config.json").read_text())
    assert read_bundle(bundle_folder).config.languages == {}
    for languages, words in (
        ({"seven": "en"}, "'seven' is none of the labels"),
        ({"low": ""}, "is empty"),
        ({"low": "Low German"}, "no code"),
    ):
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(tiny_bundle.config, languages=languages)
