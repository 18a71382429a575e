"""A page without a server: takes an export, gives the files of a static site. The page is that of `serve`, whose module `api` is replaced
by one that asks a model in the browser instead of a server."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from duovox.exporting.folder import Exported, check_place
from duovox.files import write_folder
from duovox.serve.pages import FOLDER, MEDIA_TYPES
from duovox.serve.replies import model_reply
from duovox.serve.settings import ServeConfig
from duovox.voice import Duovox

WEB = Path(__file__).parent / "web"
SERVICE_WORKER = "service-worker.js"
FOR_SERVERS = ("docs.html", "docs.js", "openapi.js", "index.html")
"""What of the server's page the site has no use for, or has in a form of its own."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; style-src 'self'; img-src 'self' data: blob:; media-src blob: data: "
    "'self'; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
CHANGES = {
    '<meta charset="utf-8">': f'<meta charset="utf-8">\n  <meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    'href="/static/': 'href="static/',
    'src="/static/': 'src="static/',
    'class="brand" href="/"': 'class="brand" href="./"',
    '      <a href="/docs">API</a>\n': "",
    "Asking the server for its words…": "Loading the model…",
    "This page needs JavaScript. The API does not: see <code>/openapi.json</code>.": "This page needs JavaScript.",
    '        <button type="button" class="quiet" data-format="flac">FLAC</button>\n': "",
    '        <button type="button" class="quiet" data-format="ogg">OGG</button>\n': "",
    "<p>Generated speech": "<p>The model runs in this browser: nothing you say leaves it.</p>\n    <p>Generated speech",
}
"""What differs in the page where no server is behind it."""


def site_files(exported: Exported, voice: Duovox, name: str, runtime: dict[str, bytes]) -> dict[str, bytes]:
    """The files of the site by their paths; `name` is what the bundle is called."""
    files = {"index.html": _index()}
    pages = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES and path.name not in FOR_SERVERS}
    own = {path.name: path.read_bytes() for path in WEB.iterdir() if path.name != SERVICE_WORKER}
    files |= {f"static/{name}": content for name, content in {**pages, **own, **runtime}.items()}
    files |= {f"model/{name}": content for name, content in exported.files.items()}
    files["model/model.json"] = _model(voice, name)
    files[SERVICE_WORKER] = _service_worker(files)
    return files


def write_site(files: dict[str, bytes], folder: str | Path, force: bool = False) -> None:
    """Write the site, whole or not at all. Raises `OutputError` where something else is there, or a site and not `force`."""
    place = Path(os.path.realpath(folder))
    check_place(place, SERVICE_WORKER, force)
    write_folder(place, files, "the site")


def _index() -> bytes:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    for text, other in CHANGES.items():
        if text not in page:
            raise AssertionError(f"the page has changed: it has no {text!r}")
        page = page.replace(text, other)
    return page.encode()


def _model(voice: Duovox, name: str) -> bytes:
    """What the server would say of its model, but for what an exported step cannot change."""
    reply = model_reply(voice, ServeConfig(bundle=name, upload_seconds=60)).model_dump(mode="json")
    reply["settings"] = [setting for setting in reply["settings"] if setting["name"] != "guide_at"]
    return json.dumps(reply).encode()


def _service_worker(files: dict[str, bytes]) -> bytes:
    names = ["./", *sorted(files)]
    digest = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:16]
    script = (WEB / SERVICE_WORKER).read_text(encoding="utf-8")
    return script.replace("DIGEST", digest).replace("FILES = []", f"FILES = {json.dumps(names)}").encode()
