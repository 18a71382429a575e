"""What the tests of connections share: an application behind our connections, and clients that are bare sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import httpx
import uvicorn
from serving import wait_until

from duovox import Duovox
from duovox.serve import run
from duovox.serve.app import create_app
from duovox.serve.settings import ServeConfig

MEGA = 2**20
TOKEN = "let-me-in-if-you-please"


@contextlib.contextmanager
def listening(app: Any, config: ServeConfig, lifespan: str = "off", **changed: Any) -> Iterator[int]:
    """The port of an application behind our connections."""
    settings = run._settings(app, config)
    settings.lifespan = lifespan  # type: ignore[assignment]
    for name, value in changed.items():
        setattr(settings, name, value)
    server = uvicorn.Server(settings)
    with run.listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def guarded(voice: Duovox) -> Iterator[int]:
    """The port of a server that wants a token and takes uploads of a megabyte."""
    config = ServeConfig(bundle="tiny", token=TOKEN, upload_mb=1)
    with listening(create_app(voice, config), config, "on") as port:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


@dataclass
class Unbuffered:
    """A socket of which `HTTPResponse` reads no more than its own answer."""

    client: socket.socket

    def makefile(self, mode: Any) -> Any:
        return self.client.makefile(mode, buffering=0)


def reply_of(client: socket.socket, method: str = "GET") -> tuple[int, dict[str, str], Any]:
    """(status, headers, JSON or None) of the answer that comes."""
    response = HTTPResponse(Unbuffered(client), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(body) if body else None


def refused(client: socket.socket) -> tuple[int, str]:
    """(status, code) of an answer in the API's own form, with the headers of every answer."""
    status, headers, body = reply_of(client)
    assert headers["content-type"] == "application/json" and headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"] and headers["connection"] == "close"
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"} and body["error"]["message"].isprintable()
    return status, body["error"]["code"]


def ended(client: socket.socket) -> bool:
    """Whether the server closed its side in good order."""
    return client.recv(1) == b""


def head(path: str, *lines: str, token: str = TOKEN) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {token}", *lines, "", ""]).encode()


def announced(size: int, kind: str = "application/json") -> list[str]:
    return [f"Content-Type: {kind}", f"Content-Length: {size}"]


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading."""
    await send({"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close"), (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
