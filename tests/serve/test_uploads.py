"""serve/uploads.py: what is no sound, too much sound or a trap is turned away before it costs anything."""

from __future__ import annotations

import asyncio
import io
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone
from serving import ask, refusal, serving
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.serve import security
from duovox.serve.refusals import RefusedError
from duovox.serve.settings import MAX_JSON_BYTES, ServeConfig
from duovox.serve.uploads import read_upload

LIMITS = ServeConfig(upload_mb=0.2, upload_seconds=5)


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle) -> Iterator[TestClient]:
    with serving(Duovox(tiny_bundle), LIMITS) as client:
        yield client


def wav(wave: np.ndarray, rate: int = 16000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", wav(tone("low", 1)))
    return file.getvalue()


def claiming(seconds: int) -> bytes:
    """A FLAC file of a quarter of a second whose header claims another length: 36 bits of samples, from byte 21 on."""
    content = bytearray(wav(tone("low", 1), kind="FLAC"))
    samples = 16000 * seconds
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(content)


def of(samples: list[float]) -> bytes:
    return wav(np.array(samples, np.float32), subtype="FLOAT")


SOUND = wav(tone("low", 1))
HTML = b"<!doctype html><html><script>alert(1)</script></html>" * 20


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        (HTML, 415, "not_audio", "is not sound that can be read"),
        (zipped(), 415, "not_audio", "is not sound that can be read"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", 415, "not_audio", "is not sound that can be read"),
        (SOUND[:30], 415, "not_audio", "is not sound that can be read"),
        (b"\x00" * 5000, 415, "not_audio", "is not sound that can be read"),
        (b"", 422, "empty", "empty"),
        (SOUND[:44], 422, "bad_audio", "no samples"),
        (of([0.1, float("nan")] * 100), 422, "bad_audio", "not finite"),
        (of([0.1, float("inf")] * 100), 422, "bad_audio", "not finite"),
        (of([0.0] * 4000), 422, "silent", "is silent"),
        (of([1e-6] * 4000), 422, "silent", "is silent"),
        (of([0.1, 3e4] * 4000), 422, "bad_audio", "is on another scale"),
        (wav(np.zeros(16000 * 6, np.float32), kind="FLAC"), 413, "too_long", "lasts longer than the 5 s"),
        (wav(np.zeros((655350 * 4, 8), np.int16), 655350, "FLAC"), 413, "too_long", "has too many samples (8 channels at 655350 Hz"),
        (wav(tone("low", 1, 150_000)), 413, "too_large", "larger than"),
    ],
)
def test_it_is_refused_and_said_why(client: TestClient, content: bytes, status: int, code: str, words: str) -> None:
    answer = refusal(client.post("/v1/classify", files={"file": ("a.wav", content)}))
    assert answer[:2] == (status, code) and words in answer[2]


def test_a_wav_cut_short_is_heard_as_far_as_it_goes(client: TestClient) -> None:
    """The header tells of more than there is; what counts is what there is."""
    reply = client.post("/v1/classify", files={"file": ("a.wav", SOUND[: len(SOUND) // 2])})
    assert reply.status_code == 200 and reply.json()["seconds"] == pytest.approx(0.12, abs=0.01)


def test_what_claims_three_hours_is_as_long_as_it_is(client: TestClient) -> None:
    lie = bytearray(SOUND)
    lie[40:44] = struct.pack("<I", 3 * 3600 * 32000)
    for content in (bytes(lie), claiming(3 * 3600), claiming(0)):
        reply = client.post("/v1/classify", files={"file": ("a.wav", content)}).json()
        assert reply["seconds"] == pytest.approx(0.24, abs=0.001) and reply["notes"] == []


def test_channels_that_cancel_are_heard_by_the_loudest(client: TestClient) -> None:
    wave = tone("low", 1)
    mono, stereo = (client.post("/v1/classify", files={"file": wav(w)}).json() for w in (wave, np.stack([0.9 * wave, -wave], 1)))
    assert stereo["probabilities"] == pytest.approx(mono["probabilities"], abs=1e-6)
    assert stereo["notes"] == ["its 2 channels cancel, channel 2 counts alone"] and mono["notes"] == []


def test_the_server_hears_what_the_library_hears(client: TestClient, tiny_bundle: Bundle, tmp_path: Path) -> None:
    late = np.concatenate([1e-3 * tone("high", 2, 8000), tone("low", 1), 1e-3 * tone("high", 2, 8000)])
    (tmp_path / "late.wav").write_bytes(wav(late))
    heard = Duovox(tiny_bundle).listen(tmp_path / "late.wav")
    reply = client.post("/v1/classify", files={"file": wav(late)}).json()
    assert reply["probabilities"] == pytest.approx(heard.probabilities, abs=1e-6)
    assert reply["notes"] == list(heard.notes) and "the loudest 0.24 s from 0.5 s on counts" in reply["notes"][0]


def test_a_stream_that_claims_to_be_short_is_read_no_further() -> None:
    """A FLAC file of 10 minutes whose header says one second: a few kilobytes that would be 38 megabytes."""
    long = bytearray(wav(1e-3 * np.ones(16000 * 600, np.float32), kind="FLAC"))
    long[21] &= 0xF0
    long[22:26] = struct.pack(">I", 16000)
    assert len(long) < LIMITS.upload_bytes
    tracemalloc.start()
    try:
        excerpt = read_upload(io.BytesIO(bytes(long)), 16000, 3840, LIMITS)
    except RefusedError as error:
        assert error.status_code in (413, 422)
    else:
        assert excerpt.treatment.length <= 5 * 16000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_what_holds_too_much_is_decoded_no_further() -> None:
    """Eight channels at 655 kHz: four seconds would take 84 megabytes; no more than five seconds of 768,000 samples are."""
    bomb = io.BytesIO(wav(np.zeros((655350 * 4, 8), np.int16), 655350, "FLAC"))
    tracemalloc.start()
    with pytest.raises(RefusedError):
        read_upload(bomb, 16000, 3840, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/dev/null", "a\x00b.wav", "x" * 3000, "%2e%2e%2f", "a.wav; rm -rf", "", "\u202egnp.wav"]
)
def test_the_name_of_a_file_means_nothing(client: TestClient, name: str) -> None:
    disposition = f'form-data; name="file"; filename="{name}"'.encode()
    body = b"--x\r\ncontent-disposition: " + disposition + b"\r\n\r\n" + SOUND + b"\r\n--x--\r\n"
    response = client.post("/v1/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        ({"files": {"sound": ("a.wav", SOUND)}}, 422, "no_file"),
        ({"files": {"other": b"1"}, "data": {"file": "words"}}, 422, "no_file"),
        ({}, 422, "no_file"),
        ({"data": {"file": "words"}}, 415, "content_type"),
        ({"content": SOUND, "headers": {"Content-Type": "audio/wav"}}, 415, "content_type"),
        ({"json": {"file": "words"}}, 415, "content_type"),
    ],
)
def test_the_sound_must_be_a_file_in_its_field(client: TestClient, send: dict[str, object], status: int, code: str) -> None:
    assert refusal(client.post("/v1/classify", **send))[:2] == (status, code)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\n\r\nno header\r\n--x--", b"nonsense", b"--x\r\n" + b"a" * 9000])
def test_a_broken_form_is_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert refusal(response)[0] in (400, 422)
    assert refusal(client.post("/v1/classify", content=b"x", headers={"Content-Type": "multipart/form-data"}))[0] in (400, 422)


FORM = "multipart/form-data; boundary=x"
PATHS = [("/v1/classify", FORM, LIMITS.upload_bytes + MAX_JSON_BYTES), ("/v1/generate", "application/json", MAX_JSON_BYTES)]


@pytest.mark.parametrize(("path", "kind", "limit"), PATHS)
def test_a_large_body_is_refused_by_its_announcement(client: TestClient, path: str, kind: str, limit: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("it was read")
        yield b""

    for announced in (str(limit + 1), str(10**9), "9" * 5000):
        answer = ask(client.app, path, body(), content_type=kind, content_length=announced)
        assert refusal(answer)[:2] == (413, "too_large") and answer.headers and answer.headers["connection"] == "close"


@pytest.mark.parametrize(("path", "kind", "limit"), PATHS)
def test_a_large_body_without_announcement_is_cut_off(client: TestClient, path: str, kind: str, limit: int) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while True:
            sent += 10_000
            yield b"\x00" * 10_000

    answer = ask(client.app, path, body(), content_type=kind, transfer_encoding="chunked")
    assert refusal(answer)[:2] == (413, "too_large") and answer.headers and answer.headers["connection"] == "close"
    assert limit - 10_000 < sent <= limit + 10_000


@pytest.mark.parametrize(("path", "kind", "limit"), PATHS)
def test_a_body_that_does_not_come_is_given_up(
    client: TestClient, path: str, kind: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "BODY_SECONDS", 0.2)

    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    answer = ask(client.app, path, body(), content_type=kind, content_length="1000")
    assert refusal(answer)[:2] == (408, "too_slow") and answer.headers and answer.headers["connection"] == "close"


def test_nothing_of_an_upload_stays(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file on the disk nor a handle."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for content in (SOUND, HTML, SOUND * 20):
        client.post("/v1/classify", files={"file": ("a.wav", content)})
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
