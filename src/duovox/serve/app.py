"""The application: worker, routes, page, and what stands around them, from a voice or whatever loads one.

Gives an ASGI application to `run`, and to anybody's own server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from duovox import __version__
from duovox.contracts import DuovoxError
from duovox.serve.api import SOUND_HEADERS, Api
from duovox.serve.metrics import Metrics
from duovox.serve.pages import Pages
from duovox.serve.refusals import RefusedError, answer, mended_by_the_caller
from duovox.serve.security import Gate, Shell
from duovox.serve.settings import ServeConfig
from duovox.serve.worker import Worker

if TYPE_CHECKING:
    from duovox.voice import Duovox

DRAIN_SECONDS = 10.0
"""How long jobs may still run once the last client has been answered or has given up."""


def create_app(voice: Duovox | Callable[[], Duovox], config: ServeConfig) -> FastAPI:
    """The application; `app.state.worker` is its `Worker`. A function is called in the worker's thread, to load the voice."""
    metrics = Metrics()
    load = voice if callable(voice) else lambda: voice
    worker = Worker(load, metrics, max_batch=config.max_batch, wait=config.wait_seconds, queue=config.queue)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop, DRAIN_SECONDS)

    about = "One speech classifier, two jobs: it recognises words and speaks them."
    app = FastAPI(
        title="duovox", description=about, version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.worker = worker
    app.include_router(Api(worker, config, metrics).router())
    app.include_router(Pages().router())
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(DuovoxError, _refuse)
    _surround(app, config, metrics)
    return app


def _surround(app: FastAPI, config: ServeConfig, metrics: Metrics) -> None:
    """The layers around the routes, from the inside out."""
    app.add_middleware(Gate, config=config)
    if config.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", *SOUND_HEADERS],
        )
    app.add_middleware(Shell, metrics=metrics)


async def _refuse(_: Request, error: Exception) -> Response:
    """Every error in the same shape."""
    if isinstance(error, RequestValidationError):
        return answer(_invalid(error))
    if isinstance(error, DuovoxError):
        return answer(mended_by_the_caller(error))
    assert isinstance(error, HTTPException)
    return answer(_with_head(error))


def _with_head(error: HTTPException) -> HTTPException:
    """Where GET is allowed HEAD is too (see `security.Gate`), though the routes do not know it."""
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        return HTTPException(error.status_code, error.detail, {**headers, "Allow": "GET, HEAD"})
    return error


def _invalid(error: RequestValidationError) -> RefusedError:
    """The first thing that is wrong with a request, without repeating what was sent."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    if first["type"] == "json_invalid":
        return RefusedError(400, "bad_json", f"the body is not JSON: {first['ctx']['error']}")
    if place == ["file"]:
        return RefusedError(422, "no_file", "send the sound as one file in the field 'file' of multipart/form-data")
    if not place:
        return RefusedError(422, "bad_request", "send a JSON object, with Content-Type: application/json")
    return RefusedError(422, "bad_request", f"{'.'.join(place)}: {first['msg']}")
