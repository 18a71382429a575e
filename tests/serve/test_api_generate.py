"""serve/api.py, POST /v1/generate: a clip is the library's and the command line's."""

from __future__ import annotations

import base64
import dataclasses
import math
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import TONES
from serving import generate, mel_of, refusal, serving, wave_of
from starlette.testclient import TestClient

import duovox
import duovox.clip
from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import SampleConfig
from duovox.serve.api import accepted_sound
from duovox.serve.pictures import picture
from duovox.serve.schemas import GenerateRequest
from duovox.serve.settings import ServeConfig
from duovox.serve.tasks import MAX_FRAMES, Film, evaluations
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.audio import write_audio
from duovox.voice import Clip


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


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
    assert settings.items() <= reply["settings"].items()
    assert (reply["settings"]["interval"], reply["settings"]["guidance_low"], reply["settings"]["guidance_high"]) == ([0.1, 7], 0.1, 7)
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
    sampled = {"steps": 4, "sampler": "dpmpp_2m", "gamma": 0.7, "guidance_low": 0.2, "schedule": "late", "guide_at": "estimate"}
    reply = generate(client, label="high", n=2, seed=9, format="flac", **sampled)
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
    assert command_line(wanted, {}, DEFAULT_BUNDLE) == "duovox generate any --seed 3"
    assert python_code(wanted, {}, DEFAULT_BUNDLE).endswith("clips = Duovox.from_pretrained().generate(None, n=1, seed=3)\n")
    assert command_line(GenerateRequest(label="; rm -rf"), {}, "a b") == "duovox generate '; rm -rf' --seed 0 --bundle 'a b'"


def test_settings_of_every_type_are_written_as_they_are_read() -> None:
    from duovox.serve.replies import command_line, python_code

    changes = {"some_choice": "late", "switch": True, "other": False, "interval": (0.5, math.inf)}
    assert command_line(GenerateRequest(), changes, DEFAULT_BUNDLE).endswith("--some-choice late --switch --no-other --interval 0.5 inf")
    assert "some_choice='late', switch=True, other=False, interval=(0.5, float('inf')))" in python_code(
        GenerateRequest(), changes, DEFAULT_BUNDLE
    )


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
    config = dataclasses.replace(tiny_bundle.config, labels=("да; a=b", "b", "c"))
    with serving(Duovox(dataclasses.replace(tiny_bundle, config=config))) as client:
        response = client.post("/v1/generate", json={"label": config.labels[0]}, headers={"Accept": "audio/wav"})
        assert response.status_code == 200 and "set-cookie" not in response.headers
        assert response.headers["x-duovox-label"] == "%D0%B4%D0%B0%3B%20a%3Db"


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


def test_a_guidance_that_runs_off_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duovox.clip, "LOUDEST", -50.0)
    status, code, message = refusal(client.post("/v1/generate", json={"label": "low", "gamma": 2}))
    assert (status, code) == (422, "generation_error")
    assert "1 of 1 clips ran off to no speech (seed 0" in message and "lower gamma" in message


def test_a_clip_that_ran_off_fails_its_own_request_alone(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others in the same batch get their clips, and nothing is computed twice."""
    voice = Duovox(tiny_bundle)
    whole = voice.generate_batch

    def generate_batch(*wanted: Any) -> list[Clip]:
        return [dataclasses.replace(clip, fault="it is noise" if clip.label == "low" else "") for clip in whole(*wanted)]

    monkeypatch.setattr(voice, "generate_batch", generate_batch)
    with serving(voice, ServeConfig(wait_seconds=1.0, max_batch=3)) as client:
        with ThreadPoolExecutor() as pool:
            asked = {label: pool.submit(client.post, "/v1/generate", json={"label": label, "seed": 4}) for label in TONES}
        status, code, message = refusal(asked.pop("low").result())
        assert (status, code) == (422, "generation_error") and "1 of 1 clips ran off to no speech (seed 4: it is noise)" in message
        assert [answer.result().status_code for answer in asked.values()] == [200, 200]
        text = client.get("/metrics").text
        assert "duovox_batch_clips_count 1.0" in text and "duovox_clips_total 2.0" in text


@pytest.mark.parametrize("accept", ["application/json", "audio/wav"])
def test_one_faulty_clip_of_several_is_named(client: TestClient, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    monkeypatch.setattr(duovox.clip, "QUIETEST", 2.0)
    answer = refusal(client.post("/v1/generate", json={"label": "low", "seed": 8}, headers={"Accept": accept}))
    assert answer[:2] == (422, "generation_error") and "seed 8: it is silent" in answer[2]


def test_faulty_clips_are_given_where_they_are_wanted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert generate(client, label="low", keep_faulty=True)["clips"][0]["fault"] == ""
    monkeypatch.setattr(duovox.clip, "QUIETEST", 2.0)
    reply = generate(client, label="low", n=2, keep_faulty=True)
    assert [clip["fault"] for clip in reply["clips"]] == ["it is silent"] * 2
    assert " --keep-faulty" in reply["command"] and "keep_faulty=True" in reply["python"]
