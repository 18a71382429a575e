"""Download the official Speech Commands archives: takes a name, gives a folder of words for `sources`.

An interrupted download goes on where it stopped; nothing is unpacked before its SHA-256 digest is right.
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from duovox.contracts import DataError, OutputError
from duovox.data.labels import SC09
from duovox.data.storage import built_beside

TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**20
_MARK = ".duovox-archive"


@dataclass(frozen=True)
class Archive:
    """A .tar.gz on the web, its SHA-256, and the folders to unpack from it (none named: all)."""

    url: str
    sha256: str
    labels: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.sha256} {','.join(self.labels)}".strip()


# Digests: `_CHECKSUMS` in torchaudio's datasets/speechcommands.py (both), and url_checksums/speech_commands.txt of
# tensorflow-datasets (v0.02: the same).
_V1 = (
    "http://download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
    "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
)
_V2 = (
    "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)
ARCHIVES = {"sc09": Archive(*_V1, labels=SC09), "speech_commands_v0.01": Archive(*_V1), "speech_commands_v0.02": Archive(*_V2)}


def fetch(name: str, out: str | Path, progress: bool = True) -> Path:
    """Download and unpack a data set of `ARCHIVES` into the folder `out`, as `fetch_archive` does."""
    if name not in ARCHIVES:
        raise DataError(f"no data set named {name!r}; there are {', '.join(ARCHIVES)}")
    return fetch_archive(ARCHIVES[name], out, progress)


def fetch_archive(archive: Archive, out: str | Path, progress: bool = True) -> Path:
    """Download, check and unpack `archive` into the folder `out`, and return it; at once where that was done before.

    The unfinished download lies beside `out` as `<out>.tar.gz.part`. Raises `DataError` when the network or the server
    fails, or what came is not the archive, and `OutputError` where `out` holds something else or cannot be written.
    """
    out = Path(out)
    if _is_fetched(archive, out):
        return out
    part = out.with_name(f"{out.name}.tar.gz.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _download(archive, out, part, progress)
        _check_digest(archive, part)
        with built_beside(out) as folder:
            _unpack(archive, part, folder)
            (folder / _MARK).write_text(archive.identity, encoding="utf-8")
        part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    return out


def _is_fetched(archive: Archive, out: Path) -> bool:
    """Whether `out` is this archive already; raises `OutputError` where it is something else."""
    mark = out / _MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") == archive.identity:
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and holds something else; choose another place, nothing there was changed")
    return False


def _download(archive: Archive, out: Path, part: Path, progress: bool) -> None:
    """Bring `part` to its full length, going on from what it has."""
    have = part.stat().st_size if part.exists() else 0
    response = _open_url(archive, out, have)
    if response is None:
        return
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc="downloading", disable=not progress) as bar,
        ):
            for block in _blocks(archive, response):
                file.write(block)
                bar.update(len(block))
            if total is not None and file.tell() < total:
                raise _broken(archive, f"it ended after {file.tell()} of {total} bytes")


def _open_url(archive: Archive, out: Path, have: int) -> http.client.HTTPResponse | None:
    """The server's answer from byte `have` on; None when there is nothing beyond."""
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    words = f" --labels {','.join(archive.labels)}" if archive.labels else ""
    by_hand = f"you may download it by hand, unpack it to {out} and run `duovox data prepare {out}{words} --out FEATURES`"
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise DataError(f"{archive.url}: the server answered {error.code} {error.reason}; {by_hand}") from None
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{archive.url}: the network could not be reached ({getattr(error, 'reason', error)}); {by_hand}") from None


def _blocks(archive: Archive, response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body of a response, with network errors told apart from those of the disk."""
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(archive, str(error)) from None
        if not block:
            return
        yield block


def _broken(archive: Archive, reason: str) -> DataError:
    return DataError(f"{archive.url}: the connection broke ({reason}); run the same command again to go on from there")


def _check_digest(archive: Archive, part: Path) -> None:
    """Remove what was downloaded, and raise `DataError`, unless it is the pinned archive."""
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        part.unlink()
        raise DataError(f"{archive.url}: what came has the SHA-256 {digest}, not {archive.sha256}; it was removed, try again")


def _unpack(archive: Archive, part: Path, folder: Path) -> None:
    try:
        with tarfile.open(part, "r:gz") as tar:
            tar.extractall(folder, members=_wanted(archive, tar), filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.url}: cannot be unpacked ({error})") from None


def _wanted(archive: Archive, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in the archive's labels, and the files beside them (split lists, licence, readme)."""
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if not archive.labels or (parts and parts[0] in archive.labels) or (len(parts) == 1 and member.isfile()):
            yield member
