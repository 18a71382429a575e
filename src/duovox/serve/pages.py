"""The page and its files: read once from the package, served from memory, so that no path of a request ever meets the disk."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from duovox.serve.refusals import RefusedError

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class Pages:
    """Routes of the page (`/`), of the page about the API (`/docs`) and of what they are made of (`/static/<name>`)."""

    def __init__(self) -> None:
        self.files = {file.name: file.read_bytes() for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES}

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/", self.index)
        router.add_api_route("/docs", self.docs)
        router.add_api_route("/static/{name}", self.file)
        return router

    async def index(self) -> Response:
        return await self.file("index.html")

    async def docs(self) -> Response:
        return await self.file("docs.html")

    async def file(self, name: str) -> Response:
        if name not in self.files:
            raise RefusedError(404, "not_found", "there is no such file")
        return Response(self.files[name], media_type=MEDIA_TYPES[Path(name).suffix])
