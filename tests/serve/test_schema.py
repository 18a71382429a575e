"""/openapi.json: whatever is sent that fits it, or does not, the server neither breaks nor answers what it does not declare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from serving import serving
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle) -> Iterator[TestClient]:
    with serving(Duovox(tiny_bundle)) as client:
        yield client


@pytest.fixture(scope="module")
def api(client: TestClient) -> schemathesis.BaseSchema:
    async def begun(scope: Any, receive: Any, send: Any) -> None:
        """The application of the client, which has begun already: schemathesis would start it once more."""
        if scope["type"] != "lifespan":
            return await client.app(scope, receive, send)
        for _ in ("startup", "shutdown"):
            await send({"type": (await receive())["type"] + ".complete"})

    return schemathesis.openapi.from_asgi("/openapi.json", begun)


OPERATIONS = ["GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/model", "POST /v1/generate", "POST /v1/classify"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_route_keeps_its_word(api: schemathesis.BaseSchema, name: str) -> None:
    """Where there is something to send, what does not fit is sent as well."""
    method, path = name.split()
    keeps_its_word(api[path][method], GenerationMode.POSITIVE)
    if method == "POST":
        keeps_its_word(api[path][method], GenerationMode.NEGATIVE)


def keeps_its_word(operation: Any, mode: GenerationMode) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    def holds(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("steps"), int):
            case.body["steps"] = min(case.body["steps"], 2)  # what takes long teaches no more
        case.call_and_validate(checks=checks)

    holds()


def test_every_route_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods] == OPERATIONS
    for path in ("/v1/model", "/v1/generate", "/v1/classify"):
        (operation,) = paths[path].values()
        assert {"200", "401", "422", "429", "500", "503", "504"} <= set(operation["responses"])
        for status, answer in operation["responses"].items():
            if status != "200":
                assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert set(paths["/v1/generate"]["post"]["responses"]["200"]["content"]) == {"application/json", "audio/wav", "audio/flac", "audio/ogg"}
