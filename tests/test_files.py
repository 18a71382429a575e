"""files.py: names made from labels, which stay in their folder whatever a label holds; and what killed processes left of their writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duovox.files import MAX_NAME_BYTES, safe_name, write_folder, write_tensors, write_whole


@pytest.mark.parametrize("label", ["three", "zéro", "数字", "left up", "_silence_", "a.b", "-x", "don't", "C++", "१"])
def test_an_ordinary_label_is_its_own_name(label: str) -> None:
    assert safe_name(label) == label


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("/tmp/x", "%2Ftmp%2Fx"),
        ("..\\up", "%2E.%5Cup"),
        ("C:\\x", "C%3A%5Cx"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        (".hidden", "%2Ehidden"),
        ("end.", "end%2E"),
        ("end ", "end%20"),
        ("a\nb\0c\td", "a%0Ab%00c%09d"),
        ("100%", "100%25"),
        ("\u202etxt", "%E2%80%AEtxt"),
        ("\ud800", "%ED%A0%80"),
        ("", "%"),
    ],
)
def test_what_could_lead_elsewhere_is_written_out(label: str, name: str) -> None:
    assert safe_name(label) == name


@given(st.lists(st.text(alphabet=st.sampled_from("./\\%2EF\n\0 a\ud800é"), max_size=6), min_size=2, max_size=9, unique=True))
def test_different_labels_have_different_names_and_each_stays_in_its_folder(labels: list[str]) -> None:
    names = [safe_name(label) for label in labels]
    assert len(set(names)) == len(names)
    for name in names:
        assert (Path("out") / name).parent == Path("out") and not name.startswith(".")
        assert Path(name).name == name and name.isprintable()


def test_long_labels_are_cut_and_stay_apart(tmp_path: Path) -> None:
    one, other = safe_name("é" * 300 + "1"), safe_name("é" * 300 + "2")
    assert one != other and len(one.encode()) <= MAX_NAME_BYTES
    (tmp_path / f".{one}_{2**63}.wav.{2**22}.partial").write_bytes(b"")


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


WRITERS = {
    "write_whole": lambda path: write_whole(path, b"whole"),
    "write_tensors": lambda path: write_tensors(path, {"x": torch.ones(1)}, {}),
    "write_folder": lambda path: write_folder(path, {"a": b"whole"}, "the folder"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_killed_processes_left_of_a_file_goes_when_it_is_written(name: str, tmp_path: Path, gone: int) -> None:
    """Of this file alone; what a running process writes, and what others call hidden, stays."""
    (tmp_path / f".x.{gone}.new-abc").mkdir()
    (tmp_path / f".x.{gone}.new-abc" / "half").write_bytes(b"")
    theirs = [f".y.{gone}.partial", ".x.1.partial", ".x.rc", f".x.{gone}.bak", f".a.x.{gone}.tmp"]
    for file in (f".x.{gone}.partial", f".x.{gone}.tmp", *theirs):
        (tmp_path / file).write_bytes(b"half")
    WRITERS[name](tmp_path / "x")
    assert {path.name for path in tmp_path.iterdir()} == {"x", *theirs}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
