"""benchmarks/repurposed.py: figures and clips of a tiny bundle, made once, refused for another bundle."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from duovox import Duovox
from duovox.evaluation.judge import Judge, build_network

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import repurposed

LABELS = ("high", "low", "mid")
Compare = Callable[..., str]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    torch.manual_seed(1)
    Judge("compact", LABELS, build_network("compact", 3).state_dict()).save(path)
    return path


@pytest.fixture
def run_folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A run folder with the tiny bundle in it."""
    shutil.copytree(bundle_folder, tmp_path / "runs" / "ours" / "bundle")
    return tmp_path / "runs" / "ours"


@pytest.fixture
def compare(run_folder: Path, tiny_features: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Runs the benchmark with n clips a label; gives what it prints."""

    def run(n: int = 1) -> str:
        repurposed.main((run_folder,), tiny_features, tmp_path / "out", n, limit=4, judge=judge, fid=False)
        return capsys.readouterr().out

    return run


def test_a_bundle_is_measured_heard_and_drawn(compare: Compare, tmp_path: Path) -> None:
    text, out = compare(), tmp_path / "out"
    first, second, taps = text.strip().split("\n\n")
    assert first.splitlines()[2].startswith("| ours | ") and len(first.splitlines()) == 3
    assert [line.split(" |")[0] for line in second.splitlines()[2:]] == ["| ours, noised *", "| ours, estimate"]
    assert all(line.count("|") == lines[0].count("|") for lines in (first.splitlines(), second.splitlines()) for line in lines)
    assert taps.startswith("Taps of ours: ")
    facts = json.loads((out / "ours.json").read_text())
    assert facts["updates"] == {"classifier": 4, "subnet": 0} and facts["judged"]["n"] == 3
    assert facts["accuracy_own_front_end"] == facts["accuracy_bridge"], "our classifier has no bridge"
    assert facts["unconditional_gmacs"] < facts["guided_gmacs"]
    assert (out / "ours.md").read_text().startswith("| clips ") and (out / "tables.md").read_text() == text
    assert Image.open(out / "sheet.png").size == (3 * 2 * 16 + 2 * 4, 2 * 16)


def test_what_is_there_is_not_made_again(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare()
    clips = sorted((tmp_path / "out").rglob("*.wav"))
    assert [str(path.relative_to(tmp_path / "out")) for path in clips] == [f"ours/{label}/0.wav" for label in LABELS]
    clips[0].unlink()
    before = [path.stat().st_mtime_ns for path in clips[1:]]
    generate, asked = Duovox.generate_batch, []

    def noted(self: Duovox, wanted: object, *settings: object) -> object:
        asked.append(wanted)
        return generate(self, wanted, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Duovox, "generate_batch", noted)
    monkeypatch.setattr(repurposed, "calibrate", None)
    compare()
    assert asked == [tuple((label, 0) for label in LABELS)], "the batch in which it was made"
    assert [path.stat().st_mtime_ns for path in clips[1:]] == before


def test_another_bundle_of_the_same_name_is_refused(compare: Compare, run_folder: Path) -> None:
    compare()
    voice = Duovox.from_pretrained(run_folder / "bundle")
    with torch.no_grad():
        next(voice.bundle.model.score_network.parameters()).add_(1)
    voice.save_pretrained(run_folder / "bundle", force=True)
    with pytest.raises(SystemExit, match="another bundle"):
        compare()


def test_equal_names_are_refused() -> None:
    with pytest.raises(SystemExit, match="two bundles are called one"):
        repurposed.named([Path("a/one"), Path("b/one")])
