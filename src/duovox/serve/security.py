"""What stands around every request: headers, a token, limits on size and time, one shape of error, a log without the users' words.

Two layers of ASGI. `Shell` is the outermost: whatever comes out passes it. `Gate` lets requests in, before anything is read.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duovox.serve.metrics import Metrics
from duovox.serve.refusals import CLIENT_LEFT, RefusedError, answer, internal_error
from duovox.serve.settings import BODY_SECONDS, MAX_JSON_BYTES, ServeConfig
from duovox.serve.strictness import check_head
from duovox.serve.uploads import too_large

log = logging.getLogger(__name__)

UPLOADS = "/v1/classify"

CONTENT_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob: data: 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
FEATURES_OFF = "camera display-capture geolocation payment usb serial hid midi accelerometer gyroscope magnetometer"
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": ", ".join(["microphone=(self)", *(f"{feature}=()" for feature in FEATURES_OFF.split())]),
}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Shell:
    """Gives every answer the security headers, makes a plain 500 of whatever is raised, counts and logs."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), CLIENT_LEFT

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *security_headers(scope["path"])]}
            await send(message)

        try:
            await self.app(scope, receive, send_guarded)
        except Exception:
            log.exception("%s failed", _route(scope))
            if status != CLIENT_LEFT:  # too late for another answer; the connection is closed
                raise
            await answer(internal_error())(scope, receive, send_guarded)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(_route(scope), method, str(status)).inc()
        self.metrics.latency.labels(_route(scope)).observe(seconds)
        log.info("%s %s %d %.0f ms", method, _route(scope), status, 1000 * seconds)


class Gate:
    """Asks for the token where there is one, and limits what a request may send and how long it may take to.

    HEAD is GET to all within; whoever sends the answer leaves its body out.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app, self.config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        body = Body(receive, self._limit(scope["path"]), _has_body(headers))

        async def send_and_part(message: Message) -> None:
            """A client that is answered before it has sent everything may not go on sending."""
            if message["type"] == "http.response.start" and not body.finished:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            self._check_token(scope["path"], headers)
            check_head(scope, headers, _has_body(headers))
            body.check_announced(headers)
        except RefusedError as error:
            return await answer(error)(scope, receive, send_and_part)
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self.app(inner, body, send_and_part)
        finally:
            scope["route"] = inner.get("route")  # for the log

    def _limit(self, path: str) -> int:
        """Bytes that a body may have; a multipart frame comes on top of its file."""
        return MAX_JSON_BYTES + (self.config.upload_bytes if path == UPLOADS else 0)

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        closed = path.startswith("/v1/") or path == "/metrics"
        if self.config.token is None or not closed:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        same = hmac.compare_digest(given.strip(), self.config.token.encode())
        if not (same and scheme.lower() == b"bearer"):
            raise RefusedError(401, "unauthorized", "a token is needed here", headers={"WWW-Authenticate": "Bearer"})


class Body:
    """A request's `receive` that stops at so many bytes, and when the body takes too long; after the body it only passes on."""

    def __init__(self, receive: Receive, limit: int, expected: bool) -> None:
        self.receive, self.limit, self.finished = receive, limit, not expected
        self.deadline = time.monotonic() + BODY_SECONDS
        self.seen = 0

    def check_announced(self, headers: dict[bytes, bytes]) -> None:
        """Refuse by Content-Length, before anything is read."""
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > 18 or int(announced) > self.limit:
            raise too_large(self.limit)

    async def __call__(self) -> Message:
        if self.finished:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), self.deadline - time.monotonic())
        except TimeoutError:
            raise RefusedError(408, "too_slow", f"the request was not complete after {BODY_SECONDS:g} s") from None
        self.seen += len(message.get("body", b""))
        if self.seen > self.limit:
            raise too_large(self.limit)
        self.finished = not message.get("more_body", False)
        return message


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def security_headers(path: str) -> list[tuple[bytes, bytes]]:
    """What every answer to a request of that path carries."""
    cache = {"cache-control": "no-store" if path.startswith("/v1/") else "no-cache"}
    return [(name.encode(), value.encode()) for name, value in {**HEADERS, **cache}.items()]


def _route(scope: Scope) -> str:
    """The template of the route, never the path itself."""
    return getattr(scope.get("route"), "path", "unmatched")
