"""A page without a server: takes an export, gives the files of a static site. The page is that of `serve`, whose module `api` is replaced
by one that asks a model in the browser instead of a server."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from duovox.config import Repertoire
from duovox.exporting.folder import Exported, check_place, student_alone
from duovox.files import write_folder
from duovox.lite.manifest import Manifest
from duovox.serve.pages import FOLDER, MEDIA_TYPES
from duovox.serve.replies import model_reply
from duovox.serve.settings import ServeConfig
from duovox.voice import Duovox

WEB = Path(__file__).parent / "web"
SERVICE_WORKER = "service-worker.js"
LIMIT = 25 * 2**20
"""Bytes that a page is to take at most: all of them are fetched at a first visit."""

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
    files["model/model.json"] = _model(voice, name, exported.manifest)
    files[SERVICE_WORKER] = _service_worker(files)
    return files


def fitting_site(exported: Exported, voice: Duovox, name: str, runtime: dict[str, bytes]) -> tuple[dict[str, bytes], str]:
    """The files of the site, and a line about its size where there is something to say: a voice that is too large for a page and whose
    student knows the preset turbo leaves its step out."""
    files = site_files(exported, voice, name, runtime)
    size = f"{_size(files) / 2**20:.1f} MiB"
    if _size(files) <= LIMIT:
        return files, ""
    if "turbo" not in voice.presets():
        return files, f"the page takes {size}, more than {LIMIT >> 20}; a lower --precision makes it smaller"
    lean = site_files(student_alone(exported), voice, name, runtime)
    return lean, f"left out: the step of the other samplers, with which the page would take {size}; it speaks by the student alone"


def _size(files: dict[str, bytes]) -> int:
    return sum(len(content) for content in files.values())


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


def _model(voice: Duovox, name: str, manifest: Manifest) -> bytes:
    """What the server would say of its model, but for what an exported step cannot change; and, where its student knows the preset turbo,
    with which settings the page begins (`start`), and with which the other side of a comparison (`other`)."""
    reply = model_reply(voice, ServeConfig(bundle=name, upload_seconds=60)).model_dump(mode="json")
    reply["settings"] = [setting for setting in reply["settings"] if setting["name"] != "guide_at"]
    if "turbo" in reply["presets"] and manifest.repertoire is not None:
        reply |= {"start": reply["presets"]["turbo"], "other": reply["presets"]["own"]}
        if manifest.step is None:
            _narrow(reply, manifest.repertoire)
    return json.dumps(reply).encode()


def _narrow(reply: dict[str, Any], repertoire: Repertoire) -> None:
    """Leave a page without a step the settings alone that its student takes."""
    start, (low, high) = reply["start"], (repertoire.gammas[0], repertoire.gammas[-1])
    taken = {
        "preset": {"choices": ["turbo"]},
        "sampler": {"choices": ["student"], "default": "student"},
        "steps": {"minimum": repertoire.evaluations[0], "maximum": repertoire.evaluations[-1], "default": start["steps"]},
        "gamma": {"minimum": low, "maximum": high, "default": start["gamma"]},
    }
    if low == high:
        del taken["gamma"]
    reply["settings"] = [setting | taken[setting["name"]] for setting in reply["settings"] if setting["name"] in taken]
    reply["presets"], reply["samplers"], reply["parameters"]["subnet"] = {"turbo": start}, ["student"], 0
    reply["other"] = start | {"steps": max(repertoire.evaluations, key=lambda n: (n != start["steps"], n))}


def _service_worker(files: dict[str, bytes]) -> bytes:
    names = ["./", *sorted(files)]
    digest = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:16]
    script = (WEB / SERVICE_WORKER).read_text(encoding="utf-8")
    return script.replace("DIGEST", digest).replace("FILES = []", f"FILES = {json.dumps(names)}").encode()
