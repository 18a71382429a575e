"""serve/run.py and the command `duovox serve`: a real process, real signals, real sockets, and clients that dawdle."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import wait_until

from duovox.cli import main
from duovox.commands import options
from duovox.contracts import ConfigError
from duovox.serve import run
from duovox.serve.settings import ServeConfig


class Process:
    """`duovox serve` with a bundle; `address` is where it listens."""

    def __init__(self, *words: object, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "duovox", "serve", "--device", "cpu", *map(str, words)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        wait_until(lambda: self.process.poll() is not None or "listening on" in self.text(), 60)
        found = re.search(r"listening on (http://[^/]+:(\d+))/", self.text())
        self.address, self.port = (found[1], int(found[2])) if found else ("", 0)

    def text(self) -> str:
        return self.log.read_text()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.text()
        return httpx.get(f"{self.address}/readyz").status_code == 200

    def until_ready(self) -> Process:
        wait_until(self.ready, 120)
        return self


@contextlib.contextmanager
def running(*words: object, log: Path) -> Iterator[Process]:
    server = Process(*words, log=log)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(30)


def test_sigterm_finishes_what_runs_and_takes_nothing_new(bundle_folder: Path, tmp_path: Path) -> None:
    with running("--bundle", bundle_folder, "--port", 0, log=tmp_path / "log") as server, ThreadPoolExecutor() as pool:
        assert httpx.get(f"{server.address}/healthz", timeout=30).status_code == 200
        server.until_ready()
        wanted = {"n": 16, "steps": 100, "sampler": "heun"}
        reply = pool.submit(httpx.post, f"{server.address}/v1/generate", json=wanted, timeout=120)
        wait_until(lambda: "duovox_batch_clips_count 1.0" in httpx.get(f"{server.address}/metrics").text, 30)
        server.process.send_signal(signal.SIGTERM)
        assert reply.result().status_code == 200 and len(reply.result().json()["clips"]) == 16
        assert server.process.wait(30) == 0, server.text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.address}/healthz")
        assert "Traceback" not in server.text()


def test_after_kill_9_it_starts_again_at_once(bundle_folder: Path, tmp_path: Path) -> None:
    """On the same port, which an open connection holds on to; and says who can reach it."""
    with running("--bundle", bundle_folder, "--port", 0, log=tmp_path / "one") as server:
        server.until_ready()
        with httpx.Client() as client:
            assert client.get(f"{server.address}/healthz").status_code == 200
            server.process.kill()
            server.process.wait(30)
            with running("--bundle", bundle_folder, "--host", "0.0.0.0", "--port", server.port, log=tmp_path / "two") as again:
                again.until_ready()
                assert httpx.post(f"{server.address}/v1/generate", json={"steps": 1}).status_code == 200
                assert "WARNING anybody who can reach 0.0.0.0 may use this server; --token-file" in again.text()
                again.process.send_signal(signal.SIGINT)
                assert again.process.wait(30) == 0, again.text()
    assert "WARNING" not in server.text()


def test_a_bundle_that_is_none_ends_the_process(tmp_path: Path) -> None:
    with running("--bundle", tmp_path / "nowhere", "--port", 0, log=tmp_path / "log") as server:
        assert server.process.wait(60) == 1
        last = server.text().splitlines()[-1]
        assert last.startswith("duovox: no bundle at") and "Traceback" not in server.text()


def test_a_guide_that_wants_a_sound_cannot_be_served(tmp_path: Path) -> None:
    with running("--guide", "speaker", "--port", 0, log=tmp_path / "log") as server:
        assert server.process.wait(60) == 1
        assert (
            server.text()
            .splitlines()[-1]
            .startswith("duovox: the guide speaker wants a sound, which no request can bring: duovox guide speaker --ref")
        )


# before there is a process


def one_line(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["serve", *map(str, words)]) == 1
    text = capsys.readouterr().err
    assert text.startswith("duovox: ") and text.count("\n") == 1
    return text


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = one_line(capsys, "--port", port)
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another" in text


def test_addresses_that_cannot_be_had() -> None:
    for host in ("203.0.113.1", "no such host", "::ffff:zz"):
        with pytest.raises(ConfigError, match="cannot listen on"):
            run.listen(host, 0)
    run.listen("localhost", 0).close()


def test_impossible_settings_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--queue must be at least 1, not 0" in one_line(capsys, "--queue", 0)
    assert "cannot read the token" in one_line(capsys, "--token-file", tmp_path / "nowhere")


def test_a_missing_part_is_named_with_the_way_to_get_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None if name in ("uvicorn", "python_multipart") else object())
    assert one_line(capsys) == "duovox: uvicorn, python_multipart not installed: pip install 'duovox[serve]'\n"


def test_the_command_line_imports_nothing_of_the_server_at_its_top() -> None:
    code = "import sys, duovox.cli; sys.exit(any(name in sys.modules for name in ('fastapi', 'uvicorn', 'duovox.serve')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_is_said_where_it_listens(caplog: pytest.LogCaptureFixture) -> None:
    with run.listen("::1", 0) as listener, caplog.at_level(logging.INFO):
        run._announce(listener, ServeConfig(host="::1"))
    assert re.fullmatch(r"listening on http://\[::1\]:\d+/", caplog.messages[0]) and len(caplog.messages) == 1
