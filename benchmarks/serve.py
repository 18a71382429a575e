"""`duovox serve` under load and under attack: two Markdown tables.

python benchmarks/serve.py --seconds 120 --clients 32      # needs '.[serve]' and httpx; about eight minutes

The load: so many clients ask for one clip of a random word, again and again; told to come back later (429), they do. Once with
batches, once one clip at a time. The faults: what clients do that nobody should, and what became of the server.
"""

import contextlib
import io
import itertools
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import tyro

EARLY = 200
"""The request after which memory is looked at for the first time: by then everything has been allocated once."""


@dataclass
class Server:
    """A running `duovox serve`; what it logs goes to a file."""

    process: subprocess.Popen[bytes]
    address: str
    port: int
    seconds_to_ready: float

    def memory(self) -> float:
        """Resident megabytes."""
        return self.metric("process_resident_memory_bytes") / 2**20

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.address}/metrics", timeout=30).text
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]

    def labels(self) -> list[str]:
        return list(httpx.get(f"{self.address}/v1/model").json()["labels"])

    def alive(self) -> str:
        """How long a small request takes now, in words."""
        began = time.monotonic()
        status = httpx.get(f"{self.address}/healthz", timeout=30).status_code
        return f"alive ({status} in {1000 * (time.monotonic() - began):.0f} ms)"


@contextlib.contextmanager
def serving(bundle: str, *words: str, port: int = 0) -> Iterator[Server]:
    with tempfile.NamedTemporaryFile() as log:
        began = time.monotonic()
        command = [sys.executable, "-m", "duovox", "serve", "--bundle", bundle, "--port", str(port), *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            until(lambda: process.poll() is not None or b"listening on" in Path(log.name).read_bytes())
            found = re.search(r"listening on (http://[^/]+:(\d+))/", Path(log.name).read_text())
            if found is None:
                raise SystemExit(Path(log.name).read_text())
            until(lambda: process.poll() is not None or httpx.get(f"{found[1]}/readyz", timeout=60).status_code == 200)
            yield Server(process, found[1], int(found[2]), time.monotonic() - began)
        finally:
            process.kill()
            process.wait()


def until(condition: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not so after {seconds} s: {condition}")
        time.sleep(0.05)


# the load


@dataclass
class Load:
    """What the clients of one run saw."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0
    early: float | None = None
    last: float = 0
    batch: float = 0

    def row(self, name: str) -> str:
        """A row of the table."""
        errors = sum(count for status, count in self.statuses.items() if status not in (200, 429))
        quantiles = statistics.quantiles(self.latencies, n=20) if len(self.latencies) > 1 else [float("nan")] * 19
        early = "-" if self.early is None else f"{self.early:.0f}"
        return (
            f"| {name} | {self.statuses[200]} | {self.statuses[429]} | {errors} | {quantiles[9]:.2f} | {quantiles[18]:.2f} "
            f"| {self.statuses[200] / self.seconds:.2f} | {self.batch:.1f} | {early} | {self.last:.0f} |"
        )


def measure(server: Server, clients: int, seconds: float, seed: int) -> Load:
    """`clients` at once for so many seconds; requests under way at the end are waited for."""
    load, lock, labels = Load(), threading.Lock(), server.labels()
    seeds = itertools.count(seed)
    began = time.monotonic()

    def one_client(number: int) -> None:
        choice = random.Random(f"{seed} {number}")
        with httpx.Client(timeout=120) as client:
            while time.monotonic() < began + seconds:
                note(*ask(client, {"label": choice.choice(labels), "seed": next(seeds)}))

    def ask(client: httpx.Client, wanted: dict[str, Any]) -> tuple[int, float]:
        sent = time.monotonic()
        try:
            response = client.post(f"{server.address}/v1/generate", json=wanted)
        except httpx.HTTPError:
            return 0, 0
        if response.status_code == 429:
            left = began + seconds - time.monotonic()
            time.sleep(min(float(response.headers["retry-after"]), max(left, 0)))
        return response.status_code, time.monotonic() - sent

    def note(status: int, latency: float) -> None:
        with lock:
            load.statuses[status] += 1
            if status == 200:
                load.latencies.append(latency)
            look = load.statuses[200] == EARLY
        if look:
            load.early = server.memory()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one_client, range(clients)))
    load.seconds, load.last = time.monotonic() - began, server.memory()
    load.batch = server.metric("duovox_batch_clips_sum") / max(server.metric("duovox_batch_clips_count"), 1)
    return load


# the faults


def leave(server: Server) -> str:
    """40 clients that ask for 16 clips and hang up."""
    body = b'{"n": 16}'
    head = b"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + body)
            time.sleep(0.05)
    began = time.monotonic()
    response = httpx.post(f"{server.address}/v1/generate", json={"steps": 1, "keep_faulty": True}, timeout=120)
    waiting = server.metric("duovox_queue_clips")
    seconds = time.monotonic() - began
    return f"the next client had its clip ({response.status_code}) after {seconds:.1f} s; {waiting:.0f} clips left in the queue"


def dawdle(server: Server, head: bytes, limit: float = 60) -> str:
    """40 clients that send a byte a second; how long they are suffered, and how others fare meanwhile."""
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    for client in clients:
        client.sendall(head)
    began, meanwhile, left = time.monotonic(), server.alive(), clients
    while left and time.monotonic() < began + limit:
        time.sleep(1)
        left = [client for client in left if _still_open(client)]
    return f"all cut off after {time.monotonic() - began:.0f} s; meanwhile {meanwhile}" if not left else f"{len(left)} are still there"


def _still_open(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        client.setblocking(False)
        client.recv(1000)  # an answer or the end: either way it is over
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.setblocking(True)


FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
UPLOAD = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"


def hundred_megabytes(server: Server) -> str:
    """Announced by Content-Length, and in chunks."""
    before, said = server.memory(), []
    chunks = itertools.chain([FORM], itertools.repeat(bytes(2**20), 100))
    for headers, content in (({"Content-Length": str(100 * 2**20)}, bytes(100 * 2**20)), ({}, chunks)):
        headers["Content-Type"] = "multipart/form-data; boundary=x"
        try:
            said.append(str(httpx.post(f"{server.address}/v1/classify", content=content, headers=headers, timeout=60).status_code))
        except httpx.HTTPError as error:
            said.append(type(error).__name__)
    return f"{' and '.join(said)}; {server.memory() - before:+.1f} MB"


def strange_files(server: Server) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.wav", b"words")
    cut = b"RIFF\x24\x00\x00\x00WAVEfmt "
    said = []
    for name, content in {"zip": archive.getvalue(), "HTML": b"<html></html>" * 99, "a cut header": cut, "nothing": b""}.items():
        response = httpx.post(f"{server.address}/v1/classify", files={"file": ("a.wav", content)}, timeout=60)
        said.append(f"{name} {response.status_code}")
    return ", ".join(said)


def end_while_working(server: Server) -> str:
    """SIGTERM with eight requests under way."""
    with ThreadPoolExecutor(8) as pool:
        wanted = [{"seed": seed} for seed in range(8)]
        replies = [pool.submit(httpx.post, f"{server.address}/v1/generate", json=one, timeout=120) for one in wanted]
        done = server.metric("duovox_batch_clips_count")
        until(lambda: server.metric("duovox_batch_clips_count") > done or any(reply.done() for reply in replies))
        server.process.send_signal(signal.SIGTERM)
        answered = Counter(reply.result().status_code for reply in replies)
    return f"answers {dict(answered)}, exit code {server.process.wait(120)}"


def faults(bundle: str) -> Iterator[tuple[str, str]]:
    """What was done, and what became of it."""
    with serving(bundle) as server:
        yield "40 clients leave in the middle", f"{leave(server)}; {server.alive()}"
        yield "40 clients send a header byte a second", dawdle(server, b"GET / HTTP/1.1\r\nX: ")
        yield "40 clients send an upload a byte a second", dawdle(server, UPLOAD + FORM)
        yield "100 MB uploads, announced and not", f"{hundred_megabytes(server)}; {server.alive()}"
        yield "files named .wav that are none", f"{strange_files(server)}; {server.alive()}"
        server.process.kill()
        server.process.wait()
        with serving(bundle, port=server.port) as again:
            yield "kill -9, and again on the same port", f"ready after {again.seconds_to_ready:.1f} s; {again.alive()}"
            yield "SIGTERM with 8 requests under way", end_while_working(again)


def main(bundle: str = "sc06", clients: int = 32, seconds: float = 120, seed: int = 0) -> None:
    """Print both tables."""
    print("| | clips | 429 | other errors | p50 s | p95 s | clips/s | batch | MB at request 200 | MB at the last |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, batch in (("batches of up to 16", 16), ("one at a time", 1)):
        with serving(bundle, "--max-batch", str(batch)) as server:
            print(measure(server, clients, seconds, seed).row(f"{clients} clients, {name}"), flush=True)
    print("\n| what was done | what came of it |\n|---|---|")
    for name, outcome in faults(bundle):
        print(f"| {name} | {outcome} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
