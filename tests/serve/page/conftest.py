"""One `duovox serve` with the bundle of six words and one chromium for all tests of the page, and a page that is watched."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duovox.repurposing import make_own_guide
from page.browsing import PATIENCE, chromium_path, close, open_page


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ready `duovox serve`."""
    with running_server(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture(scope="package")
def guided_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one with two guides: a classifier that knows the words of the package's bundle, and its pitch."""
    folder = tmp_path_factory.mktemp("guided")
    make_own_guide("sc06").write(folder / "my words")
    with running_server(folder / "log", "--guide", str(folder / "my words"), "pitch") as address:
        yield address


@contextlib.contextmanager
def running_server(log: Path, *options: str) -> Iterator[str]:
    """The address of a ready `duovox serve` with these options."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as file:
        command = [sys.executable, "-m", "duovox", "serve", "--bundle", "sc06", "--port", str(port), "--device", "cpu", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(int(20 * PATIENCE)):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.fixture(scope="package")
def spoken_three(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file in which the model says three."""
    body = b'{"label": "three", "seed": 3, "steps": 8}'
    headers = {"Content-Type": "application/json", "Accept": "audio/wav"}
    path = tmp_path_factory.mktemp("sounds") / "spoken.wav"
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/generate", body, headers)) as response:
        path.write_bytes(response.read())
    return path


@pytest.fixture(scope="package")
def browser(spoken_three: Path) -> Iterator[Any]:
    """One chromium for the module, whose microphone hears `spoken_three` again and again."""
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", *microphone, f"--use-file-for-fake-audio-capture={spoken_three}"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """The page, ready, on a desktop in light colours."""
    page, complaints = open_page(browser, server, viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.wait_for_selector("body.ready")
    yield page
    close(page, complaints)
