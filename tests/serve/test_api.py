"""serve/api.py with a tiny bundle: what the server says of itself, the queue, the clock, and clients that leave."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TONES
from serving import generate, refusal, serving, sound, wait_until
from starlette.testclient import TestClient

import duovox
from duovox import Duovox
from duovox.bundle import Bundle
from duovox.config import SampleConfig
from duovox.serve.app import create_app
from duovox.serve.sampling import plain
from duovox.serve.settings import ServeConfig
from duovox.serve.tasks import Speak
from duovox.serve.worker import Worker


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


# what the server says of itself


def test_it_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json", "/", "/docs", "/static/style.css"])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"] and "content-length" in head.headers


def test_head_of_nothing_and_of_what_is_posted(client: TestClient) -> None:
    assert client.head("/nothing").status_code == 404
    assert client.head("/v1/generate").status_code == 405


def test_the_model(client: TestClient, voice: Duovox) -> None:
    model = client.get("/v1/model").json()
    assert model["name"] == "tiny" and model["labels"] == list(TONES) and model["digest"] == voice.config.digest
    assert all(model["parameters"][part] > 0 for part in ("classifier", "subnet", "vocoder"))
    assert (model["rate"], model["seconds"]) == (16000, 0.24)
    assert model["mel"] == {"rows": 16, "columns": 16, "low_hz": 0, "high_hz": 8000}
    sampled = {**plain(SampleConfig(steps=3, gamma=0.3)), "guidance_high": "inf"}
    assert model["defaults"] == {**sampled, "interval": [0, None], "vocoder": "neural"}
    assert {setting["name"]: setting["default"] for setting in model["settings"]} == sampled
    assert set(model["fewest_steps"]) == set(model["samplers"])
    assert model["vocoders"] == ["neural", "griffin_lim"] and model["samplers"] == ["heun", "dpmpp_2m", "euler_maruyama"]
    uploads = {"upload_bytes": 5 * 2**20, "upload_seconds": 30}
    assert model["limits"] == {"n": 16, "steps": 100, "gamma": 20, "guides": 16, "guide_gamma": 100, **uploads}
    assert model["guides"] == []
    assert model["version"] == duovox.__version__


def test_languages_of_the_words_and_words_in_other_spellings(tiny_bundle: Bundle) -> None:
    config = dataclasses.replace(tiny_bundle.config, labels=("seven", "acht", "f\u00fcnf"), languages={"seven": "en", "acht": "de"})
    with serving(Duovox(dataclasses.replace(tiny_bundle, config=config))) as client:
        assert client.get("/v1/model").json()["languages"] == {"seven": "en", "acht": "de"}
        for asked, label in (("7", "seven"), ("ACHT", "acht"), ("fu\u0308nf", "f\u00fcnf"), ("5", "f\u00fcnf")):
            reply = generate(client, label=asked)
            assert reply["clips"][0]["label"] == label and label in reply["python"]
        status, code, message = refusal(client.post("/v1/generate", json={"label": "sevn"}))
        assert (status, code) == (422, "label_error") and "the nearest: seven (en); this model speaks: seven (en), acht (de)" in message


def test_a_bundle_in_a_folder_is_known_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert ServeConfig(bundle=str(tmp_path / "mine")).name == "mine"
    assert [ServeConfig(bundle=name).name for name in ("sc06", "owner/name")] == ["sc06", "owner/name"]


def test_the_metrics_tell_what_happened_and_name_no_path(client: TestClient) -> None:
    generate(client, n=3)
    client.get("/v1/nothing/secret")
    client.request("BREW", "/healthz")
    text = client.get("/metrics").text
    assert 'duovox_requests_total{method="POST",route="/v1/generate",status="200"}' in text
    assert 'duovox_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert 'method="other"' in text and "BREW" not in text and "secret" not in text
    for name in ("duovox_request_seconds_bucket", "duovox_queue_clips", "duovox_batch_clips_bucket", "duovox_refused_total"):
        assert name in text
    clips = next(line for line in text.splitlines() if line.startswith("duovox_clips_total"))
    assert float(clips.split()[1]) >= 3


def test_a_model_without_its_own_vocoder(tiny_bundle: Bundle) -> None:
    with serving(Duovox(dataclasses.replace(tiny_bundle, vocoder=None))) as client:
        model = client.get("/v1/model").json()
        assert model["vocoders"] == ["griffin_lim"] and model["defaults"]["vocoder"] == "griffin_lim"
        assert generate(client)["settings"]["vocoder"] == "griffin_lim"
        assert refusal(client.post("/v1/generate", json={"vocoder": "neural"}))[:2] == (422, "bundle_error")


# the queue, the clock, and clients that leave


def held(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the voice denoise until it is stopped; gives the number of batches that came to their end."""
    ended: list[int] = []

    def generate_batch(items: Any, settings: Any, vocoder: Any, watch: Any, guides: Any) -> Any:
        try:
            while True:
                watch(1.0, None)
                time.sleep(0.002)
        finally:
            ended.append(len(items))

    monkeypatch.setattr(voice, "generate_batch", generate_batch)
    return ended


def test_a_full_queue_is_429_with_the_time_to_come_back(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Duovox(tiny_bundle)
    held(voice, monkeypatch)
    with serving(voice, ServeConfig(queue=2, max_batch=1)) as client:
        worker: Worker = client.app.state.worker  # type: ignore[attr-defined]
        job = worker.submit(Speak(SampleConfig(), "neural", labelled=False, frames=False), [(None, 0)] * 3)
        wait_until(lambda: worker.waiting == 2)
        for response in (client.post("/v1/generate", json={}), client.post("/v1/classify", files={"file": sound()})):
            assert refusal(response)[:2] == (429, "busy") and response.headers["retry-after"] == "2"
        assert client.get("/v1/model").status_code == client.get("/healthz").status_code == 200
        job.cancel()


def test_too_long_is_504_and_stops_the_work(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Duovox(tiny_bundle)
    ended = held(voice, monkeypatch)
    with serving(voice, ServeConfig(timeout=0.2)) as client:
        assert refusal(client.post("/v1/generate", json={"n": 3}))[:2] == (504, "timeout")
        wait_until(lambda: ended == [3])
        assert client.post("/v1/classify", files={"file": sound()}).status_code == 200


def test_work_stops_when_the_client_leaves(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Duovox(tiny_bundle)
    ended = held(voice, monkeypatch)
    app = create_app(voice, ServeConfig())
    body = b'{"label": "low", "n": 2}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/generate", "query_string": b"", "headers": headers, "root_path": ""}

    async def request() -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in messages:
                return message
            while not app.state.worker._metrics.batch._sum.get():  # until it is being worked on
                await asyncio.sleep(0.002)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        await app(scope, receive, send)

    app.state.worker.start()
    wait_until(lambda: app.state.worker._voice is not None)
    asyncio.run(request())
    wait_until(lambda: ended == [2])
    assert 'route="/v1/generate",status="499"' in app.state.worker._metrics.text().decode()
    app.state.worker.stop(5)


def test_before_the_voice_is_there_everything_but_life_is_503() -> None:
    loaded = threading.Event()
    app = create_app(lambda: loaded.wait() and pytest.fail("not reached"), ServeConfig())  # type: ignore[arg-type, return-value]
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/readyz"), client.get("/v1/model"), client.post("/v1/generate", json={})):
            assert refusal(response)[:2] == (503, "loading") and int(response.headers["retry-after"]) > 0
        assert client.post("/v1/classify", files={"file": sound()}).status_code == 503
        app.state.worker._load = None
        app.state.worker._closing = True
        assert refusal(client.get("/readyz"))[:2] == (503, "shutting_down")
        loaded.set()
