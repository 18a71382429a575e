"""What of a request FastAPI would let pass in silence: codings nobody undoes, other content types, JSON that is none, forms with too much.

Takes headers from `security`, bodies from the routes of `api`; raises `RefusedError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, UploadFile
from starlette.types import Scope

from duovox.serve.refusals import RefusedError
from duovox.serve.settings import MAX_HEADER_BYTES

BODIES = {"/v1/generate": "application/json", "/v1/classify": "multipart/form-data"}
"""What the body of a POST must be, by path."""


def check_head(scope: Scope, headers: dict[bytes, bytes], has_body: bool) -> None:
    """Raise `RefusedError` for another version of HTTP (505), headers that are too large (431; the parser refuses only those that come
    in pieces), and for a body in a coding or of a type that is not taken (415)."""
    if scope.get("http_version", "1.1") not in ("1.0", "1.1"):
        raise RefusedError(505, "http_version", "this server speaks HTTP/1.1", headers={"Connection": "close"})
    if len(scope.get("raw_path", b"")) + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise headers_too_large()
    if not has_body:
        return
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise RefusedError(
            415, "content_encoding", "send the body as it is, without Content-Encoding", headers={"Accept-Encoding": "identity"}
        )
    wanted, given = BODIES.get(scope["path"]), headers.get(b"content-type", b"").decode("latin-1")
    if wanted is not None and not _same_type(wanted, given.partition(";")[0].strip().lower()):
        raise RefusedError(415, "content_type", f"send the body as {wanted}, and say so in Content-Type")


def headers_too_large() -> RefusedError:
    size = f"{MAX_HEADER_BYTES // 2**10} kB"
    return RefusedError(431, "headers_too_large", f"the headers are larger than the {size} allowed", headers={"Connection": "close"})


def _same_type(wanted: str, given: str) -> bool:
    return given == wanted or (wanted == "application/json" and given.startswith("application/") and given.endswith("+json"))


class StrictRoute(APIRoute):
    """A route whose JSON bodies are JSON as RFC 8259 has it, each name once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


class StrictRequest(Request):
    """A request whose `json()` raises `RefusedError` (400) where Python's own parser is lenient or breaks."""

    async def json(self) -> Any:
        try:
            return json.loads((await self.body()).decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise bad_json(error.msg) from None
        except UnicodeDecodeError:
            raise bad_json("it is not UTF-8") from None
        except RecursionError:
            raise bad_json("it is nested too deep") from None
        except ValueError:
            raise bad_json("a number in it is too long") from None


def bad_json(reason: str) -> RefusedError:
    return RefusedError(400, "bad_json", f"the body is not JSON: {reason}")


def _no_constant(name: str) -> Any:
    raise bad_json(f"{name} is no number there")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_json(f"the name {twice!r} stands in it more than once")
    return found


def check_form(form: FormData) -> None:
    """Raise `RefusedError` (422) for a form with anything but one file in the field `file`."""
    entries = form.multi_items()
    files = sum(isinstance(value, UploadFile) for _, value in entries)
    if files > 1:
        raise RefusedError(422, "several_files", f"send one file in a request, not {files}")
    if len(entries) > 1:
        other = next((name for name, _ in entries if name != "file"), "file")
        raise RefusedError(422, "bad_request", f"send nothing but the file in the form, not also {other!r}")
