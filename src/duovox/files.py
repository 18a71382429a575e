"""Files that are whole or not there: atomic writes, safetensors with a JSON header, folders held by one process, what differs.

Takes bytes, tensors and settings from every part that writes; nothing here loads torch until a tensor is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duovox.contracts import OutputError

if TYPE_CHECKING:
    from torch import Tensor


def write_whole(path: Path, content: bytes, force: bool = False, parents: bool = False) -> None:
    """Write a file under a temporary name beside `path`, then rename it; raises `OutputError` and leaves nothing half-written."""
    if path.is_dir() or (path.exists() and not force):
        raise OutputError(f"{path} exists and is {'a folder' if path.is_dir() else 'not overwritten without --force'}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk and rename it. Raises `OutputError`."""
    from safetensors import SafetensorError
    from safetensors.torch import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, dict(metadata)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def claimed(folder: Path, what: str = "clips") -> Iterator[None]:
    """Hold a folder (made if missing) for this process alone; a lock of the file system, so a killed run leaves none behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write {what} to {folder}: {error.strerror or error}") from None
    try:
        _lock(handle, folder, what)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, what: str) -> None:
    import fcntl  # not on every system: only who makes clips needs it

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another run is writing {what} to {folder}; wait for it or choose another folder") from None


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, as (dotted path, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
