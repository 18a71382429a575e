"""The routes of the HTTP API. Requests become jobs for the `worker`; a job lives as long as its client waits.

Takes checked requests from FastAPI; gives answers made by `replies`. Nothing of a request is kept after its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, UploadFile
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from duovox.config import SampleConfig
from duovox.contracts import GuideError
from duovox.serve.metrics import Metrics
from duovox.serve.refusals import CLIENT_LEFT, RefusedError
from duovox.serve.replies import classify_reply, generate_reply, model_reply, sound_file
from duovox.serve.sampling import changed
from duovox.serve.schemas import ClassifyReply, Format, GenerateReply, GenerateRequest, GuideRequest, ModelReply, Problem, Status
from duovox.serve.settings import ServeConfig
from duovox.serve.strictness import StrictRoute, check_form
from duovox.serve.tasks import Listen, Speak, Spoken
from duovox.serve.uploads import read_upload
from duovox.serve.worker import Worker
from duovox.text import printable

if TYPE_CHECKING:
    from duovox.steering import ScheduledGuide
    from duovox.voice import Duovox

Coded = TypeVar("Coded")

CODERS = 2
"""Sounds decoded or encoded at the same time: each may need a hundred megabytes for a moment."""

SOUNDS: dict[str, Format] = {"audio/wav": "wav", "audio/flac": "flac", "audio/ogg": "ogg"}
SOUND_HEADERS = ("X-Duovox-Label", "X-Duovox-Seed", "X-Duovox-Digest")

PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 401, 408, 413, 415, 422, 429, 500, 503, 504)}
SOUND_FILE = {"schema": {"type": "string", "format": "binary"}}


class Api:
    """What the routes share: the worker, the settings, the metrics, and threads for coding sound."""

    def __init__(self, worker: Worker, config: ServeConfig, metrics: Metrics) -> None:
        self.worker, self.config, self.counted = worker, config, metrics
        self.coders = ThreadPoolExecutor(CODERS, thread_name_prefix="coder")

    def router(self) -> APIRouter:
        """All routes but those of the page."""
        token = [Depends(HTTPBearer(auto_error=False, description="Checked before the request is read."))] if self.config.token else []
        router = APIRouter(responses={503: {"model": Problem}}, route_class=StrictRoute)
        router.add_api_route("/healthz", self.healthz, response_model=Status)
        router.add_api_route("/readyz", self.readyz, response_model=Status)
        router.add_api_route("/metrics", self.metrics, dependencies=token, response_class=Response)
        shared: dict[str, Any] = {"dependencies": token, "tags": ["v1"]}
        router.add_api_route("/v1/model", self.model, response_model=ModelReply, responses=PROBLEMS, **shared)
        spoken = PROBLEMS | {200: {"content": dict.fromkeys(SOUNDS, SOUND_FILE)}}
        router.add_api_route("/v1/generate", self.generate, methods=["POST"], response_model=GenerateReply, responses=spoken, **shared)
        router.add_api_route("/v1/classify", self.classify, methods=["POST"], response_model=ClassifyReply, responses=PROBLEMS, **shared)
        return router

    async def healthz(self) -> Status:
        """The process lives."""
        return Status(status="ok")

    async def readyz(self) -> Status:
        """The model is loaded, and the server is not shutting down."""
        _ = self.worker.voice  # refuses where there is none
        return Status(status="ready")

    async def metrics(self) -> Response:
        """Prometheus text."""
        return Response(self.counted.text(), media_type=CONTENT_TYPE_LATEST)

    async def model(self) -> ModelReply:
        """The model, its labels, its own settings and the limits of this server."""
        return model_reply(self.worker.voice, self.config)

    async def generate(self, wanted: GenerateRequest, request: Request) -> Response:
        """Speak. With `Accept: audio/wav`, `audio/flac` or `audio/ogg`, and n = 1, the answer is the sound file itself."""
        from duovox.voice import refuse_faulty

        voice, kind = self.worker.voice, accepted_sound(request.headers.get("accept", ""))
        if kind and wanted.n > 1:
            raise RefusedError(422, "one_clip", "a sound file holds one clip; leave n at 1, or accept application/json")
        wanted = wanted.model_copy(update={"label": voice.check_request(wanted.label, wanted.seed, wanted.n)})
        settings = changed(voice.config.recipe.sample, wanted.model_dump(), wanted.interval)
        voice.check_preset(settings)
        guides = chosen_guides(voice, wanted.guides, settings)
        task = Speak(settings, voice.choose_vocoder(wanted.vocoder), wanted.label is not None, wanted.frames, guides)
        items = [(wanted.label, seed) for seed in range(wanted.seed, wanted.seed + wanted.n)]
        spoken: list[Spoken] = await self._results(request, self.worker.submit(task, items))
        if not wanted.keep_faulty:
            refuse_faulty([one.clip for one in spoken])
        self.counted.clips.inc(len(spoken))
        if kind:
            return await self._code(lambda: sound_answer(spoken[0], kind, voice.config.digest))
        return await self._code(lambda: json_answer(generate_reply(spoken, wanted, task, voice, self.config.name)))

    async def classify(self, file: UploadFile, request: Request) -> Response:
        """Recognise the word in a sound file. Of a longer sound the loudest second counts."""
        check_form(await request.form())
        mel = self.worker.voice.config.recipe.mel
        excerpt = await self._code(lambda: read_upload(file.file, mel.sample_rate, mel.clip_samples, self.config))
        (heard,) = await self._results(request, self.worker.submit(Listen(), [excerpt.wave]))
        return await self._code(lambda: json_answer(classify_reply(heard, excerpt.treatment)))

    async def _results(self, request: Request, job: Future[list[Any]]) -> list[Any]:
        """The results of a job, which is cancelled if the client leaves first or loses the right to wait."""
        results = asyncio.wrap_future(job)
        left = asyncio.create_task(client_left(request))
        try:
            either: set[asyncio.Future[Any]] = {results, left}
            await asyncio.wait(either, timeout=self.config.timeout, return_when=asyncio.FIRST_COMPLETED)
            if results.done():
                return results.result()
            if left.done():
                raise RefusedError(CLIENT_LEFT, "client_left", "the client left")
            raise RefusedError(504, "timeout", f"not done after {self.config.timeout:g} s; ask for fewer clips or steps, or try later")
        finally:
            left.cancel()
            results.cancel()

    async def _code(self, work: Callable[[], Coded]) -> Coded:
        """Do what takes a while in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self.coders, work)


def chosen_guides(voice: Duovox, wanted: Sequence[GuideRequest], settings: SampleConfig) -> tuple[ScheduledGuide, ...]:
    """The guides that a request names, of those that were given at the start: a name of a request is never a path. Raises `DuovoxError`."""
    from duovox.steering import OWN, check_guides

    for one in wanted:
        if one.name not in (OWN, *voice.guides):
            raise GuideError(f"this server has no guide {printable(repr(one.name))}; it has {', '.join((*voice.guides, OWN))}")
    guides = tuple(voice.guide(one.name, one.target, gamma=one.gamma, way=one.way, candidates=one.candidates) for one in wanted)
    check_guides(guides, settings)
    return guides


async def client_left(request: Request) -> None:
    """Returns when the client of a request that has been read hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def accepted_sound(accept: str) -> Format | None:
    """The sound format asked for by an Accept header; None where JSON will do."""
    for part in accept.lower().split(","):
        media_type = part.partition(";")[0].strip()
        if media_type in ("application/json", "*/*"):
            return None
        if media_type in SOUNDS:
            return SOUNDS[media_type]
    return None


def json_answer(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(), media_type="application/json")


def sound_answer(spoken: Spoken, kind: Format, digest: str) -> Response:
    """The sound file, with what it is in headers; a header holds no more than ASCII, so the label is percent-encoded."""
    clip = spoken.clip
    values = (None if clip.label is None else quote(clip.label), str(clip.seed), digest)
    headers = {name: value for name, value in zip(SOUND_HEADERS, values, strict=True) if value is not None}
    return Response(sound_file(clip, kind), media_type=f"audio/{kind}", headers=headers)
