"""What the tests of the page share: opening it, watching it, using it.

Whatever a test does, the page may neither complain in the console nor break its Content-Security-Policy, nor ask another origin for
anything.
"""

from __future__ import annotations

import base64
import io
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import duovox

PATIENCE = 60.0
"""Seconds to wait for anything; a busy machine is slow, and only a failure takes this long."""

STATIC = Path(duovox.__file__).parent / "serve" / "static"
BUNDLE = Path(duovox.__file__).parent / "bundles" / "sc06"

WORDS = ("zero", "one", "two", "three", "four", "five")
AN_ANSWER_OF_THE_API = "Failed to load resource: the server responded with a status of"
"""What the console says of every 4xx; the tests that provoke one look at the page for it."""


def chromium_path() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def expect(what: Any) -> Any:
    """Playwright's assertions about a place of a page, which wait."""
    from playwright.sync_api import expect as expectation

    expectation.set_options(timeout=1000 * PATIENCE)
    return expectation(what)


needs_a_browser = [
    pytest.mark.skipif(find_spec("fastapi") is None, reason="the server's parts are absent: pip install 'duovox[serve]'"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is absent: pip install playwright"),
    pytest.mark.skipif(chromium_path() is None, reason="chromium is absent: apt-get install chromium"),
    pytest.mark.skipif(not BUNDLE.is_dir(), reason="no bundle sc06 in the package"),
]


def open_page(browser: Any, server: str, path: str = "/", script: str = "", **context: Any) -> tuple[Any, list[str]]:
    """A page in a context of its own, and the list of its complaints, which grows."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if leaves(request.url, server) else None)
    if script:
        page.add_init_script(script)
    page.goto(server + path)
    return page, complaints


def leaves(url: str, server: str) -> bool:
    return not url.startswith((server, "blob:", "data:"))


def close(page: Any, complaints: list[str]) -> None:
    page.context.close()
    assert [text for text in complaints if not text.startswith(AN_ANSWER_OF_THE_API)] == []


def hasten(page: Any, steps: int = 6, gamma: float = 3) -> None:
    """Settings for tests to which any word will do."""
    page.locator("#settings .sampler").select_option("dpmpp_2m")
    page.locator("#settings .gamma").fill(str(gamma))
    page.locator("#settings .steps").fill(str(steps))


def word(page: Any, name: str) -> Any:
    return page.locator("#words").get_by_role("button", name=name, exact=True)


def press(page: Any, name: str) -> dict[str, Any]:
    """Press a word, wait until its card shows it; gives the API's reply."""
    with page.expect_response("**/v1/generate") as waited:
        word(page, name).click()
    expect(page.locator("#spoken .title")).to_have_text(name)
    expect(page.locator("#spoken .clip")).not_to_have_attribute("aria-busy", "true")
    reply: dict[str, Any] = waited.value.json()
    return reply


def watch_texts(page: Any, selector: str) -> None:
    """Let `seen` in the page be the texts that an element has from now on, however short."""
    code = (
        "element => { window.seen = []; new MutationObserver(() => seen.push(element.textContent)).observe(element, {childList: true}); }"
    )
    page.locator(selector).evaluate(code)


def wait_for_texts(page: Any, *texts: str) -> None:
    """Wait until those are the texts seen."""
    deadline = time.monotonic() + PATIENCE
    while (seen := page.evaluate("seen")) != list(texts):
        assert time.monotonic() < deadline, seen
        page.wait_for_timeout(50)


def sound_of(reply: dict[str, Any]) -> np.ndarray:
    return soundfile.read(io.BytesIO(base64.b64decode(reply["clips"][0]["audio"])))[0]


def picture(page: Any, card: str) -> np.ndarray:
    """The pixels (80, 64, 4) of a card's canvas."""
    code = """canvas => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        return Array.from(copy.getImageData(0, 0, canvas.width, canvas.height).data);
    }"""
    return np.array(page.locator(f"{card} canvas").evaluate(code), np.uint8).reshape(80, 64, 4)


def colours_in(pixels: np.ndarray) -> int:
    return len(np.unique(pixels.reshape(-1, 4), axis=0))


def probabilities(page: Any, card: str) -> dict[str, float]:
    code = "items => items.map(item => [item.querySelector('.word').textContent, Number(item.querySelector('data').value)])"
    return dict(page.locator(f"{card} .bars li").evaluate_all(code))
