"""serve/security.py, pages.py and settings.py: headers everywhere, a token, other origins, and nothing told that nobody should know."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import refusal, serving
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.contracts import ConfigError
from duovox.serve.pages import FOLDER, MEDIA_TYPES
from duovox.serve.refusals import one_line
from duovox.serve.settings import ServeConfig, read_token

TOKEN = "a token of nobody's".replace(" ", "-")
OPEN = ["/", "/healthz", "/readyz", "/openapi.json"]
CLOSED = [("GET", "/v1/model"), ("POST", "/v1/generate"), ("POST", "/v1/classify"), ("GET", "/metrics"), ("GET", "/v1/nothing")]


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle) -> Iterator[TestClient]:
    with serving(Duovox(tiny_bundle)) as client:
        yield client


@pytest.fixture(scope="module")
def locked(tiny_bundle: Bundle) -> Iterator[TestClient]:
    with serving(Duovox(tiny_bundle), ServeConfig(token=TOKEN)) as client:
        yield client


# headers


def every_kind_of_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for path in ("/", "/docs", "/static/index.html", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/model", "/nothing"):
        yield client.get(path)
    yield client.post("/v1/generate", json={"steps": 1})
    yield client.post("/v1/generate", json={"n": 0})
    yield client.post("/v1/generate", json={"n": 2}, headers={"Accept": "audio/wav"})
    yield client.post("/v1/classify", files={"file": b"x" * 10**7})
    yield client.delete("/v1/model")
    with monkeypatch.context() as patch:
        patch.setattr(Duovox, "check_request", lambda *_: 1 / 0)
        yield client.post("/v1/generate", json={})


def test_every_answer_has_the_headers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = set()
    for response in every_kind_of_answer(client, monkeypatch):
        statuses.add(response.status_code)
        headers = response.headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
        assert policy["img-src"] == "'self' data: blob:" and policy["media-src"] == "blob: data: 'self'"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["permissions-policy"].startswith("microphone=(self), camera=()")
        assert headers["cache-control"] == ("no-store" if "/v1/" in str(response.url) else "no-cache")
        assert "server" not in headers and "access-control-allow-origin" not in headers
        if response.status_code >= 400:
            refusal(response)
    assert statuses >= {200, 404, 405, 413, 422, 500}


# the token


def test_without_the_token_nothing_is_done(locked: TestClient) -> None:
    for method, path in CLOSED:
        for given in (None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            response = locked.request(method, path, headers=headers)  # type: ignore[arg-type]
            assert refusal(response)[:2] == (401, "unauthorized") and response.headers["www-authenticate"] == "Bearer"


def test_with_the_token_everything_is(locked: TestClient) -> None:
    for given in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        for method, path in CLOSED:
            assert locked.request(method, path, headers={"Authorization": given}).status_code != 401
        assert locked.get("/v1/model", headers={"Authorization": given}).status_code == 200


def test_what_stays_open(locked: TestClient, client: TestClient) -> None:
    for path in OPEN:
        assert locked.get(path).status_code == 200, path
    assert "HTTPBearer" in locked.get("/openapi.json").text and "HTTPBearer" not in client.get("/openapi.json").text


SPELLINGS = ["//v1/model", "/v1//model", "/V1/model", "/v1/model/", "/./v1/model", "/static/../v1/model", "/v1%2fmodel"]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_gets_round_the_token(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code in (401, 404)


def test_a_body_is_not_read_without_the_token(locked: TestClient) -> None:
    assert locked.post("/v1/classify", content=b"x" * 10**8).status_code == 401


# other origins


def test_other_origins_are_not_let_in(client: TestClient) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/generate", headers=headers).status_code == 405
    assert "access-control-allow-origin" not in client.get("/v1/model", headers=headers).headers


def test_a_named_origin_is_let_in_and_no_other(tiny_bundle: Bundle) -> None:
    with serving(Duovox(tiny_bundle), ServeConfig(cors=("https://example.org",), token=TOKEN)) as client:
        for origin, allowed in (("https://example.org", "https://example.org"), ("https://example.com", None), ("null", None)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            before = client.options("/v1/generate", headers=asked)
            assert before.headers.get("access-control-allow-origin") == allowed and (before.status_code == 200) == bool(allowed)
            response = client.get("/v1/model", headers={"Origin": origin})
            assert response.status_code == 401 and response.headers.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in response.headers


# what is told


def test_a_fault_of_ours_is_a_plain_500(client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret of /etc/duovox")

    for method in ("check_request", "generate_batch"):  # in the handler, and in the worker
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(Duovox, method, fail)
            response = client.post("/v1/generate", json={"label": "low"})
        assert refusal(response)[:2] == (500, "internal_error")
        assert not any(word in response.text for word in ("secret", "Traceback", "RuntimeError", "duovox/", ".py"))
        assert "secret" in caplog.text
        caplog.clear()
    assert client.post("/v1/generate", json={"label": "low"}).status_code == 200


def test_the_log_holds_nothing_of_the_users(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="duovox"):
        client.post("/v1/generate?word=mine", json={"label": "mine"})
        client.post("/v1/classify", files={"file": ("mine.wav", b"mine")})
        client.get("/mine/mine", headers={"Authorization": "Bearer mine", "User-Agent": "mine"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("duovox")]
    assert [line.rsplit(" ", 2)[0] for line in lines] == ["POST /v1/generate 422", "POST /v1/classify 415", "GET unmatched 404"]
    assert "mine" not in "".join(lines)


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "", ".", "a%00", "__init__.py"])
def test_no_path_leads_out_of_the_static_files(client: TestClient, name: str) -> None:
    assert refusal(client.get(f"/static/{name}"))[0] == 404


def test_the_page_and_its_files_are_served_with_their_types(client: TestClient) -> None:
    for file in FOLDER.iterdir():
        response = client.get(f"/static/{file.name}")
        assert response.content == file.read_bytes() and response.headers["content-type"] == MEDIA_TYPES[file.suffix]
    assert client.get("/").content == (FOLDER / "index.html").read_bytes()
    assert client.head("/").status_code == 200 and client.head("/").content == b""


def test_a_slash_too_many_is_not_redirected(client: TestClient) -> None:
    assert client.get("/v1/model/", headers={"Host": "evil.example"}, follow_redirects=False).status_code == 404


# settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 65536}, "--port must lie between 0 and 65535, not 65536"),
        ({"port": -1}, "--port"),
        ({"max_batch": 0}, "--max-batch"),
        ({"wait_seconds": -0.001}, "--wait-ms must lie between 0 and 1000, not -1"),
        ({"wait_seconds": float("nan")}, "--wait-ms"),
        ({"queue": 0}, "--queue"),
        ({"timeout": 0}, "--timeout"),
        ({"timeout": float("inf")}, "--timeout"),
        ({"upload_mb": 0}, "--max-upload-mb"),
        ({"upload_mb": float("nan")}, "--max-upload-mb"),
        ({"upload_seconds": 61}, "--max-upload-seconds must lie between 0 and 60, not 61"),
        ({"cors": ("example.org",)}, "--cors 'example.org' is no origin"),
        ({"cors": ("https://example.org/",)}, "no origin"),
        ({"cors": ("*",)}, "no origin"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServeConfig(**settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert read_token(file) == TOKEN
    for text in ("", "short", "with a space in the middle", "x" * 20 + "\x07", "ü" * 20):
        file.write_text(text)
        with pytest.raises(ConfigError, match="token"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot read the token"):
        read_token(tmp_path / "nowhere")


def test_who_can_reach_a_server() -> None:
    assert not any(ServeConfig(host=host).open_to_all for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    assert all(ServeConfig(host=host).open_to_all for host in ("0.0.0.0", "::", "192.168.0.3", "example.org"))
    assert not ServeConfig(host="0.0.0.0", token=TOKEN).open_to_all


def test_a_message_is_one_line() -> None:
    assert one_line("a\nb\x1b[31m\u202e") == "a b [31m "
    assert one_line("x" * 301) == "x" * 297 + "..." and one_line("x" * 300) == "x" * 300
