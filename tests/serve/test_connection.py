"""serve/connection.py over real sockets: what is no HTTP, too many connections, and clients that dawdle."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sockets import MEGA, announced, connect, ended, guarded, head, listening, refuse, refused, reply_of

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.serve import connection
from duovox.serve.settings import ServeConfig


@pytest.fixture(scope="module")
def port(tiny_bundle: Bundle) -> Iterator[int]:
    with guarded(Duovox(tiny_bundle)) as port:
        yield port


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"nonsense\r\n\r\n", (400, "bad_http")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, "bad_http")),
        (b"GET / HTTP/1.1\r\n\r\n", (400, "bad_http")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400, "bad_http")),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", (400, "bad_http")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: b\r\n\r\n", (400, "bad_http")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", (400, "bad_http")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", (400, "bad_http")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabcd", (400, "bad_http")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", (400, "bad_http")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc", (501, "transfer_encoding")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\nabc", (501, "transfer_encoding")),
        (head("/v1/generate", "Content-Type: application/json", "Transfer-Encoding: chunked") + b"zz\r\n", (400, "bad_http")),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (431, "headers_too_large")),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000, (431, "headers_too_large")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "http_version")),
        (b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", (505, "http_version")),
    ],
)
def test_what_is_no_http_is_told_in_the_form_of_the_api(port: int, sent: bytes, expected: tuple[int, str]) -> None:
    with connect(port) as client:
        client.sendall(sent)
        assert refused(client) == expected and ended(client)


def test_the_same_length_twice_is_one_length(port: int) -> None:
    with connect(port) as client:
        client.sendall(head("/v1/generate", *announced(2), "Content-Length: 2") + b"{}")
        assert reply_of(client)[0] == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_unknown_methods_and_an_upgrade(port: int, version: str) -> None:
    with connect(port) as client:
        client.sendall(f"BREW /healthz HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        status, headers, body = reply_of(client)
        assert (status, body["error"]["code"], headers["allow"]) == (405, "method_not_allowed", "GET, HEAD")
    with connect(port) as client:
        client.sendall(f"GET /healthz HTTP/{version}\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        assert reply_of(client)[::2] == (200, {"status": "ok"})


def test_head_has_no_body_on_the_wire(port: int) -> None:
    with connect(port) as client:
        for _ in range(2):
            client.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            status, headers, body = reply_of(client, "HEAD")
            assert (status, body, headers["content-length"]) == (200, None, "15")


def test_nonsense_while_another_answer_is_under_way(port: int) -> None:
    """The answer comes whole; the nonsense behind it is refused."""
    with connect(port) as client:
        body = b'{"label": "low", "steps": 20}'
        client.sendall(head("/v1/generate", *announced(len(body))) + body + b"nonsense\r\n\r\n")
        assert reply_of(client)[0] == 200
        assert refused(client) == (400, "bad_http")


def test_a_client_that_resets_hurts_nobody(port: int) -> None:
    for sent in (b"", b"GET", head("/v1/generate", *announced(60 * MEGA)) + bytes(100_000)):
        client = connect(port)
        client.sendall(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_connections_beyond_the_limit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 2)
    with listening(refuse, ServeConfig()) as port, contextlib.ExitStack() as stack:
        first, _, third = (stack.enter_context(connect(port)) for _ in range(3))
        third.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000))
        assert refused(third) == (503, "crowded") and ended(third)
        third.close()
        time.sleep(0.2)  # until the server has seen that
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reply_of(first)[0] == 413


# clients that dawdle


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 64 megabytes, or with one byte to /short."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(0 if scope["path"] == "/short" else 64):
        await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
    await send({"type": "http.response.body", "body": b"."})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server that is impatient."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.3)
    with listening(endless, ServeConfig(), timeout_keep_alive=1) as port:
        yield port


def seconds_until_closed(client: socket.socket) -> float:
    began = time.monotonic()
    client.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while client.recv(2**20):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize("before", [b"", b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize("part", [b"", b"GET /short HTTP/1.1\r\nHost: a\r\nX: "])
def test_headers_that_do_not_come_are_given_up(impatient: int, before: bytes, part: bytes) -> None:
    """Of the first request or of a later one."""
    with socket.create_connection(("127.0.0.1", impatient)) as client:
        client.sendall(before)
        if before:
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(part)
        assert 0.1 < seconds_until_closed(client) < 5


def test_headers_that_stop_half_way_are_told(impatient: int) -> None:
    with connect(impatient) as client:
        client.sendall(b"GET /short HTTP/1.1\r\nHost")
        assert refused(client) == (408, "too_slow") and ended(client)


def test_a_byte_now_and_then_helps_nobody(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient)) as client:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /short HTTP/1.1\r\nX: " + b"y" * 10000:
                client.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < 5


def test_an_answer_that_is_not_read_is_given_up(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.5)
        got = 0
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(2**20):
                got += len(part)
        assert got < 60 * 2**20


def test_who_does_not_dawdle_may_stay(impatient: int) -> None:
    with httpx.Client() as client:
        for _ in range(4):
            assert client.get(f"http://127.0.0.1:{impatient}/short").content == b"."
            time.sleep(0.2)
        assert len(client.get(f"http://127.0.0.1:{impatient}/").content) == 64 * 2**20 + 1
