"""How the server says no: one error for every part, one shape of answer. Gives `RefusedError` to all of `serve`."""

from __future__ import annotations

import re
from http import HTTPStatus

from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from duovox.contracts import DuovoxError

CLIENT_LEFT = 499
"""The status that is counted where nobody was there to be answered."""


class RefusedError(HTTPException):
    """A request that gets no result: HTTP status, a code for programs, one line for people, and when to try again (seconds)."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None, headers: dict[str, str] | None = None) -> None:
        again = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, headers={**again, **(headers or {})})
        self.code = code


def internal_error() -> RefusedError:
    """The answer where the fault is ours; what it was stands in the log alone."""
    return RefusedError(500, "internal_error", "something went wrong here; it was logged")


def mended_by_the_caller(error: DuovoxError) -> RefusedError:
    """One of the library's own errors: `LabelError` becomes 422, label_error and its line."""
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
    return RefusedError(422, code, str(error))


def answer(error: AnyHTTPException) -> JSONResponse:
    """{"error": {"code": ..., "message": ...}}, with the error's status and headers."""
    code = error.code if isinstance(error, RefusedError) else HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    content = {"error": {"code": code, "message": one_line(str(error.detail))}}
    return JSONResponse(content, error.status_code, headers=dict(error.headers or {}))


def one_line(text: str, longest: int = 300) -> str:
    """Printable text without line breaks, cut to `longest` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= longest else clean[: longest - 3] + "..."
