"""The runtime of the page without a server: onnxruntime-web's files from its npm package, in a folder or fetched by npm."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from duovox.contracts import DuovoxError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SCRIPTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
BINARY = "ort-wasm-simd-threaded.wasm"
PACKED = f"{BINARY}.packed"


def runtime_files(folder: Path | None) -> dict[str, bytes]:
    """The runtime's files by name, its binary packed (gzip): from `folder`, the unpacked npm package, or else by `npm pack`.

    Raises `DuovoxError` for a folder that lacks them, and where npm is missing or does not give them.
    """
    found = _from_folder(folder) if folder is not None else _by_npm()
    return {name: content for name, content in found.items() if name in SCRIPTS} | {PACKED: gzip.compress(found[BINARY], 9, mtime=0)}


def _from_folder(folder: Path) -> dict[str, bytes]:
    place = folder / "dist" if (folder / "dist").is_dir() else folder
    for name in (*SCRIPTS, BINARY):
        if not (place / name).is_file():
            raise DuovoxError(f"--ort-web {folder}: {name} is missing; give the folder of the npm package {PACKAGE}")
    return {name: (place / name).read_bytes() for name in (*SCRIPTS, BINARY)}


def _by_npm() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise DuovoxError(f"npm is not installed: unpack the npm package {PACKAGE} and give its folder with --ort-web")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", PACKAGE, "--silent"], cwd=folder, capture_output=True, text=True, check=False)
        archive = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or archive is None:
            reason = next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}")
            raise DuovoxError(f"npm does not give {PACKAGE} ({reason}): unpack it yourself and give its folder with --ort-web")
        return _unpacked(archive.read_bytes())


def _unpacked(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        for name in (*SCRIPTS, BINARY):
            try:
                file = package.extractfile(f"package/dist/{name}")
            except KeyError:
                file = None
            if file is None:
                raise DuovoxError(f"the npm package {PACKAGE} has no dist/{name}; give the folder of another with --ort-web")
            found[name] = file.read()
    return found
