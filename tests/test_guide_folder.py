"""guide_folder.py: guides read back as they were written; what is no guide, damaged, or code that nobody trusts, is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duovox.classifiers.exported import export_bytes
from duovox.config import Calibration, ExternalConfig, GuideConfig, GuideStrength, MelInput, MelScale, Recipe
from duovox.contracts import GuideError, OutputError
from duovox.guide_folder import FORMAT, GuideNetwork, halved, is_guide, locate_guide, packaged_guides, read_guide, with_digests
from duovox.model import build_classifier

STRENGTH = GuideStrength(4.0, 0.1, 5.0, 0.2)
CALIBRATION = Calibration("estimate", (0.1, 1.0), (2.0, 3.0))


def noise(count: int) -> Tensor:
    """Mels of 16 x 16, the same every time."""
    return 4 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weight


@pytest.fixture(scope="module")
def ours(tiny_recipe: Recipe) -> GuideNetwork:
    """An embedding network of ours with three references and a background clip."""
    torch.manual_seed(0)
    config = GuideConfig(FORMAT, "embedding", ("a", "b", "c"), tiny_recipe, MelScale("standard", -5.0, 2.0), CALIBRATION, STRENGTH)
    return with_digests(GuideNetwork("ours", config, build_classifier(tiny_recipe, 3).eval(), torch.eye(4, 3)))


@pytest.fixture(scope="module")
def program() -> GuideNetwork:
    """A program of torch.export."""
    code = export_bytes(Means(), noise(1))
    external = ExternalConfig(labels=("a", "b", "c"), source="export", mel_input=MelInput(n_mels=16, frames=16))
    config = GuideConfig(FORMAT, "classifier", ("a", "b", "c"), Recipe("guide", external=external))
    return with_digests(GuideNetwork("program", config, Means().eval(), None, code))


@pytest.fixture
def folder(ours: GuideNetwork, tmp_path: Path) -> Path:
    return ours.write(tmp_path / "mine")


def refused(call: Callable[[], Any], *parts: str, kind: type[Exception] = GuideError) -> None:
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and all(part in said for part in parts), said


def test_a_guide_is_read_back_as_it_was_written(ours: GuideNetwork, folder: Path) -> None:
    again = read_guide(folder)
    assert again.config == ours.config and again.digest == ours.digest and again.name == "mine"
    assert again.anchors is not None and torch.equal(again.anchors, torch.eye(4, 3))
    mels, sigma = noise(2), torch.tensor([0.1, 3.0])
    assert torch.equal(again.network(mels, sigma), ours.network(mels, sigma))
    assert sorted(path.name for path in folder.iterdir()) == ["guide.json", "guide.safetensors"]


def test_a_program_is_run_only_with_trust(program: GuideNetwork, tmp_path: Path) -> None:
    folder = program.write(tmp_path / "program")
    refused(lambda: read_guide(folder), "would run the program", "the folder of the guide chose", "trust_code=True, --trust-code")
    again = read_guide(folder, trust_code=True)
    x = noise(3)
    torch.testing.assert_close(again.network(x), Means()(x))
    assert again.digest == program.digest


def test_the_digest_is_of_what_it_answers_not_of_how_strongly_it_guides(ours: GuideNetwork) -> None:
    def digest(**changes: Any) -> str:
        return replace(ours, config=replace(ours.config, **changes)).digest

    assert digest(strength=GuideStrength()) == ours.digest == digest(notes=("something",))
    assert len({ours.digest, digest(labels=("a", "b", "d")), digest(calibration=Calibration()), digest(kind="classifier")}) == 4


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda folder: (folder / "guide.json").unlink(), ("is no guide: it has no guide.json", "make one with `duovox guide`")),
        (lambda folder: (folder / "guide.json").write_text("[1"), ("guide.json cannot be read",)),
        (lambda folder: (folder / "guide.json").write_text("[1]"), ("guide.json has guide format None, duovox reads format 1",)),
        (lambda folder: edit(folder, format=2), ("guide format 2, duovox reads format 1",)),
        (lambda folder: edit(folder, labels=["a", "a"]), ("guide.json cannot be read", "guide.labels")),
        (lambda folder: edit(folder, surprise=1), ("unknown setting 'surprise'",)),
        (lambda folder: edit(folder, digests={}), ("the network of the guide", "is not the one its guide.json names")),
        (lambda folder: edit(folder, labels=["a", "b", "c", "d"]), ("needs anchors of 4 references and background", "(4, 3)")),
        (lambda folder: edit(folder, kind="classifier", labels=["a", "b"]), ("does not fit the network", "misshapen")),
        (lambda folder: (folder / "guide.safetensors").unlink(), ("guide.safetensors cannot be read",)),
        (lambda folder: (folder / "guide.safetensors").write_bytes(b"\x80\x04pickle"), ("guide.safetensors cannot be read",)),
    ],
)
def test_damaged_folders(folder: Path, change: Callable[[Path], object], parts: tuple[str, ...]) -> None:
    change(folder)
    refused(lambda: read_guide(folder), *parts)


def test_what_loses_nothing_is_written_in_half_precision(ours: GuideNetwork, tmp_path: Path) -> None:
    whole, half = ours.write(tmp_path / "whole"), halved(ours).write(tmp_path / "half")
    lengths = [(folder / "guide.safetensors").stat().st_size for folder in (whole, half)]
    assert lengths[1] < 0.6 * lengths[0]
    again = read_guide(half)
    assert again.digest == halved(ours).digest != ours.digest
    assert all(value.dtype == torch.float32 for value in again.network.state_dict().values())
    torch.testing.assert_close(again.network(noise(2), torch.ones(2)), ours.network(noise(2), torch.ones(2)), rtol=0.02, atol=0.02)


def test_a_name_of_the_package_stands_before_a_folder() -> None:
    assert locate_guide("mine") == Path("mine")
    for name in packaged_guides():
        assert is_guide(locate_guide(name)) and locate_guide(name).name == name and locate_guide(f"./{name}") == Path(name)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "guide.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_changed_byte_is_seen(folder: Path) -> None:
    content = bytearray((folder / "guide.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "guide.safetensors").write_bytes(content)
    refused(lambda: read_guide(folder), "is not the one its guide.json names; make the guide again")


def test_another_program_is_never_run(program: GuideNetwork, tmp_path: Path) -> None:
    folder = program.write(tmp_path / "program")
    (folder / "network.pt2").write_bytes(b"PK\x05\x06" + bytes(18))
    refused(lambda: read_guide(folder, trust_code=True), "the program of the guide", "is not the one its guide.json names")
    (folder / "network.pt2").unlink()
    refused(lambda: read_guide(folder, trust_code=True), "network.pt2 cannot be read")


def test_what_is_there_is_kept(ours: GuideNetwork, folder: Path, tmp_path: Path) -> None:
    refused(lambda: ours.write(folder), "exists; add --force to overwrite it", kind=OutputError)
    ours.write(folder, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("mine")
    for force in (False, True):
        refused(lambda force=force: ours.write(tmp_path / "other", force), "exists and is no guide", kind=OutputError)  # type: ignore[misc]
    shutil.rmtree(folder)
    assert read_guide(ours.write(folder)).digest == ours.digest


def test_a_network_in_memory_alone_is_not_written(program: GuideNetwork, tmp_path: Path) -> None:
    external = replace(program.config.recipe.external, source="object")  # type: ignore[type-var]
    config = replace(program.config, recipe=replace(program.config.recipe, external=external))
    lone = with_digests(GuideNetwork("lone", config, Means(), None, None))
    refused(lambda: lone.write(tmp_path / "lone"), "exists in memory alone", "load it by a function", kind=OutputError)
    assert not (tmp_path / "lone").exists()
