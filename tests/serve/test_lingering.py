"""serve/lingering.py over real sockets: clients that send everything before they read find their answer, within limits."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from serving import wait_until
from sockets import MEGA, announced, connect, ended, guarded, head, listening, refuse, refused, reply_of

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.serve import connection, lingering
from duovox.serve.settings import ServeConfig


@pytest.fixture(scope="module")
def port(tiny_bundle: Bundle) -> Iterator[int]:
    with guarded(Duovox(tiny_bundle)) as port:
        yield port


def chunked(size: int) -> Iterator[bytes]:
    part = b"10000\r\n" + bytes(2**16) + b"\r\n"
    for _ in range(size // 2**16):
        yield part
    yield b"0\r\n\r\n"


SIZES = [100_000, 4 * MEGA, 60 * MEGA]


@pytest.mark.parametrize("size", SIZES)
def test_a_large_body_sent_first_finds_its_413(port: int, size: int) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/generate", *announced(size)))
        client.sendall(bytes(size))
        assert refused(client) == (413, "too_large") and ended(client)


@pytest.mark.parametrize("size", [4 * MEGA, 60 * MEGA])
def test_a_large_body_in_chunks_finds_its_413(port: int, size: int) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/generate", "Content-Type: application/json", "Transfer-Encoding: chunked"))
        for part in chunked(size):
            client.sendall(part)
        assert refused(client) == (413, "too_large") and ended(client)


def test_a_large_upload_in_chunks_finds_its_413(port: int) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/classify", "Content-Type: multipart/form-data; boundary=x", "Transfer-Encoding: chunked"))
        start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        client.sendall(b"%x\r\n%b\r\n" % (len(start), start))
        for part in chunked(8 * MEGA):
            client.sendall(part)
        assert refused(client) == (413, "too_large") and ended(client)


@pytest.mark.parametrize("size", [10, *SIZES])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_body_with_a_wrong_token_finds_its_401(port: int, size: int, token: str) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/classify", *announced(size, "multipart/form-data; boundary=x"), token=token))
        client.sendall(bytes(size))
        assert refused(client) == (401, "unauthorized") and ended(client)


@pytest.mark.parametrize(
    ("path", "lines", "expected"),
    [
        ("/v1/generate", ["Content-Type: text/plain"], (415, "content_type")),
        ("/v1/generate", ["Content-Type: application/json", "Content-Encoding: gzip"], (415, "content_encoding")),
        ("/v1/generate", ["Content-Type: application/json", "X: " + "y" * 70_000], (431, "headers_too_large")),
    ],
)
def test_other_refusals_wait_for_the_body_as_well(port: int, path: str, lines: list[str], expected: tuple[int, str]) -> None:
    size = 8 * MEGA
    with connect(port) as client:
        client.sendall(head(path, *lines, f"Content-Length: {size}"))
        client.sendall(bytes(size))
        assert refused(client) == expected and ended(client)


@pytest.mark.parametrize(("path", "expected"), [("/nothing", (404, "not_found")), ("/healthz", (405, "method_not_allowed"))])
def test_a_body_in_chunks_that_nobody_wants_is_waited_for(port: int, path: str, expected: tuple[int, str]) -> None:
    with connect(port) as client:
        client.sendall(head(path, "Transfer-Encoding: chunked"))
        for part in chunked(8 * MEGA):
            client.sendall(part)
        assert refused(client) == expected and ended(client)


def test_a_client_that_shuts_its_side_is_answered(port: int) -> None:
    for size in (0, 8 * MEGA):
        with connect(port) as client:
            client.sendall(head("/v1/generate", *announced(size), token="wrong") + bytes(size))
            client.shutdown(socket.SHUT_WR)
            assert reply_of(client)[0] == 401
    with connect(port) as client:
        client.sendall(head("/v1/generate", *announced(9)) + b'{"n": 99}')
        client.shutdown(socket.SHUT_WR)
        assert reply_of(client)[0] == 422 and ended(client)


def test_who_waits_for_100_is_spared_the_body(port: int) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/generate", *announced(60 * MEGA), "Expect: 100-continue"))
        assert refused(client) == (413, "too_large")
    with connect(port) as client:
        client.sendall(head("/v1/generate", *announced(2), "Expect: 100-continue"))
        assert client.recv(1000).startswith(b"HTTP/1.1 100")
        client.sendall(b"{}")
        assert reply_of(client)[0] == 200


def test_a_connection_that_is_asked_well_stays_open(port: int) -> None:
    with connect(port) as client:
        for _ in range(3):
            client.sendall(head("/v1/generate", *announced(9)) + b'{"n": 99}')
            status, headers, _ = reply_of(client)
            assert status == 422 and "connection" not in headers


def test_a_client_that_shuts_its_side_and_asks_for_long_work_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED_SECONDS", 0.2)
    gone: list[float] = []

    async def work(scope: Any, receive: Any, send: Any) -> None:
        began = time.monotonic()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.append(time.monotonic() - began)

    with listening(work, ServeConfig()) as port, connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        client.shutdown(socket.SHUT_WR)
        assert ended(client)
        wait_until(lambda: len(gone) == 1)
    assert gone[0] >= 0.15


# limits of patience


def seconds_of_sending(client: socket.socket, part: bytes, pause: float) -> float:
    """How long it can go on sending."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 20:
            client.sendall(part)
            time.sleep(pause)
    return time.monotonic() - began


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n"


@pytest.mark.parametrize(
    ("limit", "value", "part", "pause"),
    [
        ("LINGER_SECONDS", 0.5, b"x", 0.02),
        ("LINGER_IDLE_SECONDS", 0.3, b"x", 1.0),
        ("LINGER_BYTES", 10 * MEGA, bytes(MEGA), 0.0),
    ],
)
def test_nobody_may_send_for_ever(monkeypatch: pytest.MonkeyPatch, limit: str, value: Any, part: bytes, pause: float) -> None:
    monkeypatch.setattr(lingering, limit, value)
    with listening(refuse, ServeConfig()) as port, connect(port) as client:
        client.sendall(POST)
        assert reply_of(client)[0] == 413
        assert seconds_of_sending(client, part, pause) < 5


def test_the_server_ends_though_a_client_goes_on_sending() -> None:
    began = time.monotonic()
    with listening(refuse, ServeConfig()) as port:
        client = connect(port)
        client.sendall(POST)
        assert reply_of(client)[0] == 413
    assert time.monotonic() - began < 5
    client.close()
