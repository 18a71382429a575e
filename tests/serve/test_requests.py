"""serve/schemas.py and serve/strictness.py: requests that cannot be met, and bodies that are not what they should be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from serving import refusal, serving, sound
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


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
        ({"gamma": 10**400}, "bad_request"),
        ({"sampler": "ddim"}, "bad_request"),
        ({"interval": [2, 1]}, "config_error"),
        ({"interval": [1]}, "bad_request"),
        ({"interval": [None, 1]}, "bad_request"),
        ({"interval": [0, "inf"]}, "bad_request"),
        ({"interval": [0, 1], "guidance_low": 0.5}, "config_error"),
        ({"guidance_low": 2, "guidance_high": 2}, "config_error"),
        ({"guidance_low": "inf"}, "bad_request"),
        ({"schedule": "never"}, "bad_request"),
        ({"guide_at": None, "schedule": 1}, "bad_request"),
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


JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "Expecting property name"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"label": "\u00e4"}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 10000, "nested too deep"),
        (b'{"a":' * 3000, "nested too deep"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"gamma": NaN}', "NaN is no number there"),
        (b'{"interval": [0, Infinity]}', "Infinity is no number there"),
        (b'{"gamma": -Infinity}', "-Infinity is no number there"),
        (b'{"seed": 1, "seed": 2}', "the name 'seed' stands in it more than once"),
        (b'{"a": {"b": 1, "b": 1}}', "the name 'b' stands in it more than once"),
        (b'{"seed": 1} x', "Extra data"),
    ],
)
def test_what_is_not_json_is_refused(client: TestClient, body: bytes, words: str) -> None:
    status, code, message = refusal(client.post("/v1/generate", content=body, headers={"Content-Type": JSON}))
    assert (status, code) == (400, "bad_json") and words in message


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"])
def test_json_by_its_other_names(client: TestClient, kind: str) -> None:
    assert client.post("/v1/generate", content=b'{"seed": 1}', headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"])
def test_another_type_is_415(client: TestClient, kind: str) -> None:
    status, code, message = refusal(client.post("/v1/generate", content=b'{"seed": 1}', headers={"Content-Type": kind}))
    assert (status, code, message) == (415, "content_type", "send the body as application/json, and say so in Content-Type")


def test_no_body_at_all_is_422(client: TestClient) -> None:
    assert refusal(client.post("/v1/generate"))[:2] == (422, "bad_request")
    assert refusal(client.post("/v1/generate", headers={"Content-Type": JSON}))[:2] == (422, "bad_request")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "gzip, identity", "x"])
@pytest.mark.parametrize("path", ["/v1/generate", "/v1/classify", "/nothing"])
def test_a_body_in_a_coding_is_415(client: TestClient, path: str, coding: str) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": coding}
    response = client.post(path, content=gzip.compress(b"{}"), headers=headers)
    assert refusal(response)[:2] == (415, "content_encoding") and response.headers["accept-encoding"] == "identity"


def test_no_coding_is_none(client: TestClient) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "identity"}
    assert client.post("/v1/generate", content=b"{}", headers=headers).status_code == 200
    assert client.get("/healthz", headers={"Content-Encoding": "gzip"}).status_code == 200  # there is nothing in it


# forms


def form(*parts: tuple[bytes, bytes]) -> dict[str, Any]:
    """A form of parts (disposition, content)."""
    body = b"".join(b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part for part in parts) + b"--x--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


FILE = (b'name="file"; filename="a.wav"', sound())


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ([FILE, FILE], "several_files", "send one file in a request, not 2"),
        ([FILE, FILE, FILE], "several_files", "not 3"),
        ([FILE, (b'name="other"; filename="b.wav"', sound())], "several_files", "not 2"),
        ([FILE, (b'name="label"', b"three")], "bad_request", "not also 'label'"),
        ([FILE, (b'name="file"', b"words")], "no_file", "one file in the field 'file'"),
        ([(b'name="file"', b"words"), FILE], "bad_request", "not also 'file'"),
        ([(b'name="file"', b"words")], "no_file", "one file in the field 'file'"),
        ([(b'name="sound"; filename="a.wav"', sound())], "no_file", "one file in the field 'file'"),
        ([], "no_file", "one file in the field 'file'"),
        ([(b'name="file"; filename="a.wav"', b"")], "empty", "the file is empty"),
    ],
)
def test_a_form_holds_one_file_and_nothing_else(client: TestClient, parts: list[Any], code: str, words: str) -> None:
    status, found, message = refusal(client.post("/v1/classify", **form(*parts)))
    assert (status, found) == (422, code) and words in message


@pytest.mark.parametrize("name", [b"\xff\xfe.wav", b"a\x01\x1b[31m.wav", "dr\u00e4\u00df\u0301.wav".encode(), b"a" * 3000])
def test_any_name_of_a_file_will_do(client: TestClient, name: bytes) -> None:
    assert client.post("/v1/classify", **form((b'name="file"; filename="%b"' % name, sound()))).status_code == 200


def test_a_field_that_is_no_text_is_refused_in_one_line(client: TestClient) -> None:
    assert refusal(client.post("/v1/classify", **form(FILE, (b'name="\xff\x1b\x07"', b""))))[:2] == (422, "bad_request")
