"""folders.py: one walk for every door."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duovox.sound.folders import find_sounds


def test_sounds_at_any_depth_in_order_hidden_ones_passed_over(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "deep/er/c.ogg", "deep/d.opus", "a.wav.txt", "notes", ".e.wav", "._b.wav", ".git/f.wav", "deep/.g.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    found = find_sounds(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.sounds] == ["a.FLAC", "b.wav", "deep/d.opus", "deep/er/c.ogg"]
    assert [path.name for path in found.others] == ["a.wav.txt", "notes"] and found.unusable == {}
    assert "(none)" in found.others[tmp_path / "notes"]


def test_links_are_followed_broken_ones_and_circles_are_named(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.wav").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "near").symlink_to(tmp_path / "far")
    (root / "file.wav").symlink_to(tmp_path / "far" / "a.wav")
    (root / "broken.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "far" / "up").symlink_to(tmp_path / "far")
    found = find_sounds(root)
    assert found.sounds == [root / "file.wav", root / "near" / "a.wav"]
    assert found.unusable == {root / "broken.wav": "is a broken link", root / "near" / "up": "is a link to a folder that it lies in"}


@pytest.mark.skipif(os.name != "posix", reason="pipes have names on POSIX systems alone")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert find_sounds(tmp_path).unusable == {tmp_path / "pipe.wav": "is no file"}


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.wav").write_bytes(b"")
    walk = Path.iterdir

    def refuse(self: Path) -> object:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return walk(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = find_sounds(tmp_path)
    assert found.sounds == [tmp_path / "a.wav"] and found.unusable == {tmp_path / "closed": "cannot be read: Permission denied"}
