"""Files that are whole or not there: atomic writes, safetensors with a JSON header, folders held by one process, what differs; and
names of files that stay in their folder.

Takes bytes, tensors and settings from every part that writes; nothing here loads torch until a tensor is written.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duovox.contracts import OutputError

if TYPE_CHECKING:
    from torch import Tensor

MAX_NAME_BYTES = 150
"""Of a name made from a label: room is left for a seed, a suffix and what marks an unfinished file (file systems take 255)."""


def safe_name(label: str) -> str:
    """A label as the name of a file or folder, or as the start of one, that can never leave its folder nor hide in it.

    An ordinary label is its own name. Separators, control characters, what Windows does not take in a name, dots at the start, and dots
    and spaces at the end are written %2F and so on, as is % itself: different labels have different names. A long name is cut and ends
    in a digest.
    """
    name = "".join(_percent(c) if _needs_escape(c) else c for c in label)
    if name.startswith("."):
        name = _percent(".") + name[1:]
    if name.endswith((".", " ")):
        name = name[:-1] + _percent(name[-1])
    encoded = name.encode()
    if len(encoded) > MAX_NAME_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:16]
        name = f"{encoded[: MAX_NAME_BYTES - 17].decode(errors='ignore')}-{digest}"
    return name or "%"


def _needs_escape(character: str) -> bool:
    return character in '/\\:*?"<>|%' or not character.isprintable()


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def write_whole(path: Path, content: bytes, force: bool = False, parents: bool = False) -> None:
    """Write a file under a temporary name beside `path`, then rename it; raises `OutputError` and leaves nothing half-written."""
    if path.is_dir() or (path.exists() and not force):
        raise OutputError(f"{path} exists and is {'a folder' if path.is_dir() else 'not overwritten without --force'}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path, "partial") as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk and rename it. Raises `OutputError`."""
    from safetensors import SafetensorError
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path, "tmp") as temporary, open(temporary, "wb") as file:
            file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, dict(metadata)))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def _unfinished(path: Path, kind: str) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it does not; those that killed
    processes left for the same file vanish too."""
    for left in _left_behind(path.parent).get(path.name, ()):
        _remove_abandoned(left)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{kind}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.(?:tmp|partial|old|new-\w+)")
"""How `write_whole`, `write_tensors`, `write_folder` and `built_beside` name what is unfinished: of which name, by which process."""


@lru_cache(maxsize=64)
def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """The unfinished things in a folder as this process first met it, by the names they were to have."""
    found: dict[str, list[Path]] = {}
    with suppress(OSError):
        for entry in os.scandir(folder):
            if match := _TEMPORARY.fullmatch(entry.name):
                found.setdefault(match[1], []).append(folder / entry.name)
    return found


def _remove_abandoned(left: Path) -> None:
    """Remove something unfinished, file or folder, whose process is no more."""
    match = _TEMPORARY.fullmatch(left.name)
    if match and not is_running(int(match[2])):
        with suppress(OSError):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def write_folder(folder: Path, files: Mapping[str, bytes], what: str) -> None:
    """Write the files (names may hold slashes) into a folder beside its place, then put it there, whole or not at all; what was there
    before stays until then. Raises `OutputError` that calls it `what`."""
    work: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers([folder])
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.{os.getpid()}.new-", dir=folder.parent))
        (work / "new").mkdir()
        for name, content in files.items():
            place = work / "new" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        _swap(work / "new", folder, work / "old")
    except OSError as error:
        raise OutputError(f"cannot write {what} {folder}: {error.strerror or error}") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, place: Path, aside: Path) -> None:
    """Move `new` to `place` and what was there `aside`; move it back if that fails."""
    if not place.exists():
        os.replace(new, place)
        return
    os.replace(place, aside)
    try:
        os.replace(new, place)
    except BaseException:
        os.replace(aside, place)
        raise


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
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another run is writing {what} to {folder}; wait for it or choose another folder") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
            raise OutputError(f"cannot lock {folder} to write {what} to it: {error.strerror}; choose another folder") from None


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what killed processes left of their writing of these files or folders: what is unfinished, and whose process is no more."""
    for path in paths:
        for found in path.parent.glob(f".{glob.escape(path.name)}.*"):
            match = _TEMPORARY.fullmatch(found.name)
            if match and match[1] == path.name:
                _remove_abandoned(found)


def is_running(process: int) -> bool:
    """Whether a process of another number than ours runs: what a killed one left may bear our number, once it is given out again."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # there, asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is someone else's, or the system cannot tell
        return True
    return True


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, as (dotted path, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
