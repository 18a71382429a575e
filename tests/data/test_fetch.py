"""data/fetch.py: official archives, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from making import make_words, names

from duovox.contracts import DataError, OutputError
from duovox.data import ARCHIVES, SC09, Archive, fetch, fetch_archive, scan


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words(tmp_path_factory.mktemp("data") / "words")


class Server(ThreadingHTTPServer):
    """Serves `content` at every address, with or without ranges, breaking off after `limit` bytes of an answer."""

    content = b""
    ranges = True
    limit: int | None = None
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/words.tar.gz"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(self.server.status if self.server.status != 200 else 416 if start and not body else 206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(words: Path) -> Iterator[Server]:
    server = Server()
    server.content = tar_of(words)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tar_of(folder: Path, extra: dict[str, bytes] | None = None) -> bytes:
    """The folder as the official archives pack theirs: `./label/stem.wav`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
        for name, content in ({"./validation_list.txt": b"", "./_background_noise_/hum.wav": b"hum"} | (extra or {})).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def archive_of(server: Server, labels: tuple[str, ...] = ()) -> Archive:
    return Archive(server.url, hashlib.sha256(server.content).hexdigest(), labels)


def test_fetch_unpacks_what_prepare_takes(server: Server, words: Path, tmp_path: Path) -> None:
    out = fetch_archive(archive_of(server), tmp_path / "new" / "words", progress=False)
    assert names(out) == [".duovox-archive", "_background_noise_", "no", "validation_list.txt", "yes"]
    assert names(out / "no") == names(words / "no") and names(out.parent) == ["words"]
    (out / "validation_list.txt").unlink()
    assert scan(out).labels == ("no", "yes")
    fetch_archive(archive_of(server), out, progress=False)
    assert len(server.asked) == 1


def test_fetch_unpacks_only_the_labels_asked_for(server: Server, tmp_path: Path) -> None:
    out = fetch_archive(archive_of(server, ("yes",)), tmp_path / "words", progress=False)
    assert names(out) == [".duovox-archive", "validation_list.txt", "yes"]


@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_goes_on_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    """A server that knows no ranges sends all of it again."""
    server.limit, out = 1000, tmp_path / "words"
    with pytest.raises(DataError, match=f"ended after 1000 of {len(server.content)} bytes.*run the same command again"):
        fetch_archive(archive_of(server), out, progress=False)
    assert names(tmp_path) == ["words.tar.gz.part"] and (tmp_path / "words.tar.gz.part").stat().st_size == 1000
    server.limit, server.ranges = None, ranges
    fetch_archive(archive_of(server), out, progress=False)
    assert server.asked == [None, "bytes=1000-"] and names(tmp_path) == ["words"]


def test_fetch_uses_a_download_that_is_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "words.tar.gz.part").write_bytes(server.content)
    out = fetch_archive(archive_of(server), tmp_path / "words", progress=False)
    assert (out / "yes").is_dir()


def test_fetch_refuses_another_digest(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"not {'0' * 64}; it was removed"):
        fetch_archive(Archive(server.url, "0" * 64), tmp_path / "words", progress=False)
    assert names(tmp_path) == []


def test_fetch_refuses_an_archive_that_climbs_out(server: Server, words: Path, tmp_path: Path) -> None:
    server.content = tar_of(words, {"../../outside.wav": b"boo"})
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch_archive(archive_of(server), tmp_path / "deep" / "words", progress=False)
    assert names(tmp_path) == ["deep"] and names(tmp_path / "deep") == ["words.tar.gz.part"]


def test_fetch_refuses_what_is_no_archive(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch_archive(archive_of(server), tmp_path / "words", progress=False)
    assert not (tmp_path / "words").exists()


def test_fetch_offline_or_refused(server: Server, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/words.tar.gz"
    out = tmp_path / "words"
    with pytest.raises(DataError, match="the network could not be reached") as caught:
        fetch_archive(Archive(url, "0" * 64), out, progress=False)
    for part in (url, "download it by hand", f"duovox data prepare {out}"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    server.status = 404
    with pytest.raises(DataError, match="answered 404 Not Found"):
        fetch_archive(archive_of(server), out, progress=False)
    assert names(tmp_path) == []


def test_fetch_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        fetch_archive(archive_of(server), tmp_path, progress=False)
    assert server.asked == [] and names(tmp_path) == ["thesis.txt"]


def test_fetch_knows_its_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set named 'sc10'; there are sc09, speech_commands_v0\.01, speech_commands_v0\.02"):
        fetch("sc10", tmp_path / "words")
    assert ARCHIVES["sc09"].labels == SC09
    assert all(len(archive.sha256) == 64 for archive in ARCHIVES.values())
