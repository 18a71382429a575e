"""Where the page's runtime comes from, and what is said where it does not."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from duovox.contracts import DuovoxError
from duovox.exporting.runtime import BINARY, PACKED, SCRIPTS, runtime_files

FILES = {name: name.encode() for name in (*SCRIPTS, BINARY)}


@pytest.mark.parametrize("inside", ["", "dist"])
def test_a_folder(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    for name, content in FILES.items():
        (tmp_path / inside / name).write_bytes(content)
    (tmp_path / inside / "other.js").write_text("")
    found = runtime_files(tmp_path)
    assert gzip.decompress(found.pop(PACKED)) == FILES[BINARY]
    assert found == {name: FILES[name] for name in SCRIPTS}


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_lacks_a_file(tmp_path: Path, name: str) -> None:
    for other, content in FILES.items():
        if other != name:
            (tmp_path / other).write_bytes(content)
    with pytest.raises(DuovoxError, match=rf"--ort-web .*: {name} is missing; give the folder of the npm package onnxruntime-web@"):
        runtime_files(tmp_path)


def test_no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DuovoxError, match=r"npm is not installed: unpack the npm package onnxruntime-web@.* --ort-web"):
        runtime_files(None)


def npm(monkeypatch: pytest.MonkeyPatch, status: int, words: str, files: dict[str, bytes] | None) -> None:
    """Let npm end with a status and words, and leave a package with these files."""

    def run(_command: list[str], cwd: str, **_: Any) -> subprocess.CompletedProcess[str]:
        if files is not None:
            with tarfile.open(Path(cwd) / "package.tgz", "w:gz") as package:
                for name, content in files.items():
                    entry = tarfile.TarInfo(f"package/dist/{name}")
                    entry.size = len(content)
                    package.addfile(entry, io.BytesIO(content))
        return subprocess.CompletedProcess([], status, "", words)

    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", run)


def test_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, 0, "", FILES)
    assert gzip.decompress(runtime_files(None)[PACKED]) == FILES[BINARY]


def test_npm_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, 1, "npm error code ENOTFOUND\nnpm error network", None)
    with pytest.raises(DuovoxError, match=r"npm does not give onnxruntime-web@.* \(npm error code ENOTFOUND\): unpack it yourself"):
        runtime_files(None)


def test_a_package_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, 0, "", {BINARY: b""})
    with pytest.raises(DuovoxError, match=rf"has no dist/{SCRIPTS[0]}"):
        runtime_files(None)
