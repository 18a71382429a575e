"""What the tests of the server share: a client of a ready application, and JSON errors taken apart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from conftest import tone
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.serve.app import create_app
from duovox.serve.settings import ServeConfig


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.002)


@contextlib.contextmanager
def serving(voice: Duovox | Callable[[], Duovox], config: ServeConfig | None = None) -> Iterator[TestClient]:
    """A client of an application whose voice is loaded."""
    app = create_app(voice, config or ServeConfig(bundle="tiny"))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def refusal(response: Any) -> tuple[int, str, str]:
    """(status, code, message) of an error, whose shape is checked."""
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}, body
    message = body["error"]["message"]
    assert message and message.isprintable() and len(message) <= 300, message
    return response.status_code, body["error"]["code"], message


@dataclass
class Answer:
    """What an application sent back to `ask`."""

    status_code: int = 0
    headers: dict[str, str] | None = None
    content: bytes = b""

    def json(self) -> Any:
        return json.loads(self.content)


def ask(app: Any, path: str, body: AsyncIterator[bytes], **headers: str) -> Answer:
    """POST as a server does it: parts of the body are asked for one by one; after the last the client hangs up."""
    answer = Answer()
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": pairs, "root_path": ""}

    async def receive() -> Any:
        async for part in body:
            return {"type": "http.request", "body": part, "more_body": True}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.content += message["body"]

    asyncio.run(app(scope, receive, send))
    return answer


def generate(client: TestClient, **wanted: Any) -> dict[str, Any]:
    response = client.post("/v1/generate", json=wanted)
    assert response.status_code == 200, response.text
    return dict(response.json())


def wave_of(clip: dict[str, Any]) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"])), dtype="float32")
    assert rate == clip["rate"] and len(samples) / rate == clip["seconds"]
    return np.asarray(samples)


def mel_of(picture: dict[str, Any]) -> np.ndarray:
    levels = np.frombuffer(base64.b64decode(picture["data"]), np.uint8).reshape(picture["rows"], picture["columns"])
    return picture["low"] + (picture["high"] - picture["low"]) * levels / 255


def sound(label: str = "low", kind: str = "WAV", rate: int = 16000, samples: int = 3840) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(label, 1, samples), rate, format=kind)
    return file.getvalue()
