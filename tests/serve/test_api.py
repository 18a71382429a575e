"""serve/api.py and what makes its answers: every route with a tiny bundle; a clip is the library's and the command line's."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import math
import shlex
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import TONES, tone
from serving import refusal, serving, wait_until
from starlette.testclient import TestClient

import duovox
from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import SampleConfig
from duovox.serve.api import accepted_sound
from duovox.serve.app import create_app
from duovox.serve.pictures import picture
from duovox.serve.schemas import GenerateRequest
from duovox.serve.settings import ServeConfig
from duovox.serve.tasks import MAX_FRAMES, Film, Speak, evaluations
from duovox.serve.worker import Worker
from duovox.sound.audio import write_audio


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


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


# what the server says of itself


def test_it_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_model(client: TestClient, voice: Duovox) -> None:
    model = client.get("/v1/model").json()
    assert model["name"] == "tiny" and model["labels"] == list(TONES) and model["digest"] == voice.config.digest
    assert all(model["parameters"][part] > 0 for part in ("classifier", "subnet", "vocoder"))
    assert (model["rate"], model["seconds"]) == (16000, 0.24)
    assert model["mel"] == {"rows": 16, "columns": 16, "low_hz": 0, "high_hz": 8000}
    assert model["defaults"] == {"sampler": "heun", "steps": 3, "gamma": 0.3, "interval": [0, None], "vocoder": "neural"}
    assert model["vocoders"] == ["neural", "griffin_lim"] and model["samplers"] == ["heun", "dpmpp_2m", "euler_maruyama"]
    assert model["limits"] == {"n": 16, "steps": 100, "gamma": 20, "upload_bytes": 5 * 2**20, "upload_seconds": 30}
    assert model["version"] == duovox.__version__


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


# speaking


def test_clips_are_those_of_the_library(client: TestClient, voice: Duovox) -> None:
    settings: dict[str, Any] = {"gamma": 0.5, "steps": 2, "sampler": "dpmpp_2m", "vocoder": "griffin_lim"}
    reply = generate(client, label="mid", n=3, seed=5, interval=[0.1, 7], mel=True, **settings)
    expected = voice.generate("mid", 3, seed=5, interval=(0.1, 7), **settings)
    assert [clip["seed"] for clip in reply["clips"]] == [5, 6, 7]
    for clip, wanted in zip(reply["clips"], expected, strict=True):
        assert np.abs(wave_of(clip) - np.clip(wanted.wave, -1, 1)).max() < 1e-3  # 16 bits, and the rounding of another batch
        assert np.abs(mel_of(clip["mel"]) - wanted.log_mel).max() < np.ptp(wanted.log_mel) / 255
        assert clip["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-4)
        assert (clip["label"], clip["media_type"], clip["frames"]) == ("mid", "audio/wav", None)
    assert reply["settings"] == {**settings, "interval": [0.1, 7]}
    assert reply["digest"] == voice.config.digest


def test_what_is_left_out_is_the_bundles_own(client: TestClient, voice: Duovox) -> None:
    reply = generate(client)
    assert reply["settings"] == client.get("/v1/model").json()["defaults"]
    (clip,) = reply["clips"]
    assert (clip["label"], clip["seed"], clip["mel"], clip["frames"]) == (None, 0, None, None)
    assert np.abs(wave_of(clip) - voice.generate()[0].wave).max() < 1e-3


def test_the_command_and_the_python_it_names_give_the_same_clip(
    client: TestClient, voice: Duovox, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"label": "high", "n": 2, "seed": 9, "gamma": 0.7, "steps": 4, "interval": [0.2, None], "format": "flac"}
    reply = generate(client, **wanted)
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(reply["command"].replace("--bundle tiny", f"--bundle {bundle_folder}"))
    assert program == "duovox" and main(words) == 0
    monkeypatch.setattr(Duovox, "from_pretrained", lambda source: voice if source == "tiny" else pytest.fail(source))
    names: dict[str, Any] = {}
    exec(reply["python"], names)
    assert len(names["clips"]) == 2
    for clip, made in zip(reply["clips"], names["clips"], strict=True):
        written, _ = soundfile.read(tmp_path / f"high_{clip['seed']}.flac", dtype="float32")
        assert np.abs(wave_of(clip) - written).max() < 1e-3
        assert np.abs(wave_of(clip) - made.wave).max() < 1e-3


def test_without_a_label_the_command_says_any() -> None:
    from duovox.serve.replies import command_line, python_code

    wanted = GenerateRequest(label=None, seed=3)
    assert command_line(wanted, "sc06") == "duovox generate any --seed 3"
    assert python_code(wanted, "sc06").endswith("clips = Duovox.from_pretrained().generate(None, n=1, seed=3)\n")
    assert command_line(GenerateRequest(label="; rm -rf"), "a b") == "duovox generate '; rm -rf' --seed 0 --bundle 'a b'"


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_a_sound_file_in_the_place_of_json(client: TestClient, voice: Duovox, kind: str, tmp_path: Path) -> None:
    response = client.post("/v1/generate", json={"label": "low", "seed": 4}, headers={"Accept": f"audio/{kind}"})
    assert response.status_code == 200 and response.headers["content-type"] == f"audio/{kind}"
    assert response.headers["x-duovox-label"] == "low" and response.headers["x-duovox-seed"] == "4"
    assert response.headers["x-duovox-digest"] == voice.config.digest
    written = write_audio(tmp_path / f"low.{kind}", voice.generate("low", seed=4)[0].wave, 16000)
    assert response.content == written.read_bytes()
    (clip,) = generate(client, label="low", seed=4, format=kind)["clips"]
    assert base64.b64decode(clip["audio"]) == response.content and clip["media_type"] == f"audio/{kind}"


def test_a_label_no_header_can_hold(tiny_bundle: Bundle) -> None:
    config = dataclasses.replace(tiny_bundle.config, labels=("да\r\nSet-Cookie: a", "b", "c"))
    with serving(Duovox(dataclasses.replace(tiny_bundle, config=config))) as client:
        response = client.post("/v1/generate", json={"label": config.labels[0]}, headers={"Accept": "audio/wav"})
        assert response.status_code == 200 and "set-cookie" not in response.headers
        assert response.headers["x-duovox-label"] == "%D0%B4%D0%B0%0D%0ASet-Cookie%3A%20a"


def test_one_file_holds_one_clip(client: TestClient) -> None:
    response = client.post("/v1/generate", json={"n": 2}, headers={"Accept": "audio/wav"})
    assert refusal(response)[:2] == (422, "one_clip")


def test_what_is_accepted() -> None:
    wanted = {"": None, "*/*": None, "audio/flac": "flac", "text/html, Audio/OGG;q=0.9": "ogg", "application/json, audio/wav": None}
    assert {accept: accepted_sound(accept) for accept in wanted} == wanted
    assert accepted_sound("audio/mpeg") is None


@pytest.mark.parametrize(
    ("sampler", "steps", "count"), [("heun", 3, 5), ("dpmpp_2m", 4, 4), ("euler_maruyama", 30, MAX_FRAMES), ("heun", 1, 1)]
)
def test_frames_lead_from_noise_to_the_clip(client: TestClient, sampler: str, steps: int, count: int) -> None:
    (clip,) = generate(client, label="mid", sampler=sampler, steps=steps, mel=True, frames=True)["clips"]
    frames = clip["frames"]
    assert len(frames) == count and frames[-1]["mel"] == clip["mel"]
    assert all(frame["mel"]["low"] == clip["mel"]["low"] and frame["mel"]["high"] == clip["mel"]["high"] for frame in frames)
    assert all(one["sigma"] >= other["sigma"] > 0 for one, other in pairwise(frames))
    if count > 1:
        assert np.abs(mel_of(frames[0]["mel"]) - mel_of(clip["mel"])).max() > 0.1


def test_each_clip_of_a_batch_has_its_own_frames(client: TestClient) -> None:
    together = generate(client, label="mid", n=2, seed=3, frames=True)["clips"]
    (alone,) = generate(client, label="mid", seed=4, frames=True)["clips"]
    assert len(alone["frames"]) == len(together[1]["frames"])
    for one, other in zip(alone["frames"], together[1]["frames"], strict=True):
        assert np.abs(mel_of(one["mel"]) - mel_of(other["mel"])).max() < 0.1
    assert together[0]["frames"][0] != together[1]["frames"][0]


@pytest.mark.parametrize(("sampler", "steps"), [("heun", 1), ("heun", 14), ("heun", 100), ("dpmpp_2m", 24), ("euler_maruyama", 25)])
def test_the_chosen_frames_are_spread_evenly(sampler: Any, steps: int) -> None:
    settings = SampleConfig(sampler=sampler, steps=steps)
    total, chosen = evaluations(settings), sorted(Film(settings).chosen)
    assert len(chosen) == min(total, MAX_FRAMES) and chosen[0] == 0 and chosen[-1] == total - 1
    assert max(np.diff(chosen), default=1) - min(np.diff(chosen), default=1) <= 1


def test_a_picture_gives_its_values_back() -> None:
    log_mel = np.random.default_rng(0).normal(-5, 2, (4, 6)).astype(np.float32)
    shown = picture(log_mel).model_dump()
    assert np.abs(mel_of(shown) - log_mel).max() <= (log_mel.max() - log_mel.min()) / 255 / 2 + 1e-6
    assert (shown["rows"], shown["columns"]) == (4, 6)
    cut = picture(log_mel * 3, like=log_mel).model_dump()
    assert mel_of(cut).min() == pytest.approx(log_mel.min()) and (cut["low"], cut["high"]) == (shown["low"], shown["high"])
    assert (mel_of(picture(np.full((2, 3), -7, np.float32)).model_dump()) == -7).all()


def test_clients_of_different_words_share_a_batch(voice: Duovox) -> None:
    with serving(voice, ServeConfig(wait_seconds=1.0, max_batch=3)) as client:
        with ThreadPoolExecutor() as pool:
            replies = list(pool.map(lambda label: generate(client, label=label, seed=1), TONES))
        assert "duovox_batch_clips_count 1.0" in client.get("/metrics").text
        for label, reply in zip(TONES, replies, strict=True):
            assert np.abs(wave_of(reply["clips"][0]) - voice.generate(label, seed=1)[0].wave).max() < 1e-3


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"label": "seven"}, "label_error"),
        ({"label": ""}, "label_error"),
        ({"label": "a\nb"}, "label_error"),
        ({"label": 3}, "bad_request"),
        ({"label": "x" * 101}, "bad_request"),
        ({"label": "\ud800"}, "bad_request"),
        ({"n": 0}, "bad_request"),
        ({"n": 17}, "bad_request"),
        ({"n": "3"}, "bad_request"),
        ({"n": True}, "bad_request"),
        ({"seed": -1}, "bad_request"),
        ({"seed": 2**63}, "bad_request"),
        ({"seed": 1.5}, "bad_request"),
        ({"steps": 0}, "bad_request"),
        ({"steps": 101}, "bad_request"),
        ({"gamma": -0.1}, "bad_request"),
        ({"gamma": 20.1}, "bad_request"),
        ({"gamma": "3"}, "bad_request"),
        ({"gamma": math.nan}, "bad_request"),
        ({"gamma": 10**400}, "bad_request"),
        ({"sampler": "ddim"}, "bad_request"),
        ({"interval": [2, 1]}, "config_error"),
        ({"interval": [1]}, "bad_request"),
        ({"interval": [None, 1]}, "bad_request"),
        ({"interval": [0, math.inf]}, "bad_request"),
        ({"vocoder": "wavenet"}, "bad_request"),
        ({"format": "mp3"}, "bad_request"),
        ({"mel": "yes"}, "bad_request"),
        ({"lable": "low"}, "bad_request"),
        ({"a\r\nb" * 500: 1}, "bad_request"),
        ([1, 2], "bad_request"),
        ("low", "bad_request"),
    ],
)
def test_impossible_requests_are_refused(client: TestClient, wanted: Any, code: str) -> None:
    response = client.post("/v1/generate", content=json.dumps(wanted), headers={"Content-Type": "application/json"})
    assert refusal(response)[:2] == (422, code)


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b"[" * 10000, "application/json", 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"label": "low"}', "text/plain", 422),
        (b"label=low", "application/x-www-form-urlencoded", 422),
    ],
)
def test_what_is_not_json_is_refused(client: TestClient, body: bytes, media_type: str, status: int) -> None:
    assert refusal(client.post("/v1/generate", content=body, headers={"Content-Type": media_type}))[0] == status


def test_a_guidance_that_runs_off_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duovox.voice, "LOUDEST", -50.0)
    status, code, message = refusal(client.post("/v1/generate", json={"label": "low", "gamma": 2}))
    assert (status, code) == (422, "generation_error")
    assert "ran off to no speech" in message and "lower gamma" in message


# listening


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_sound_is_heard(client: TestClient, voice: Duovox, kind: str, tmp_path: Path) -> None:
    content = sound("mid", kind)
    (tmp_path / "sound").write_bytes(content)
    reply = client.post("/v1/classify", files={"file": ("mid.wav", content)}).json()
    heard = voice.listen(tmp_path / "sound")
    assert reply["probabilities"] == pytest.approx(heard.probabilities, abs=1e-6)
    assert reply["label"] == max(heard.probabilities, key=heard.probabilities.__getitem__)
    assert reply["seconds"] == pytest.approx(0.24)
    assert np.abs(mel_of(reply["mel"]) - heard.log_mel).max() < np.ptp(heard.log_mel) / 255


def test_of_a_long_sound_the_loudest_part_is_shown(client: TestClient) -> None:
    wave = np.concatenate([np.zeros(20000, np.float32), tone("high", 1), np.zeros(20000, np.float32)])
    file = io.BytesIO()
    soundfile.write(file, wave, 16000, format="WAV", subtype="FLOAT")
    reply = client.post("/v1/classify", files={"file": ("x", file.getvalue())}).json()
    assert reply["seconds"] == len(wave) / 16000
    assert mel_of(reply["mel"]).mean(0).min() > -9  # all columns are of the tone, none of the silence


# the queue, the clock, and clients that leave


def held(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the voice denoise until it is stopped; gives the number of batches that came to their end."""
    ended: list[int] = []

    def generate_batch(items: Any, settings: Any, vocoder: Any, watch: Any) -> Any:
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
