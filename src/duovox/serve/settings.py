"""What the server may be told, and the limits it keeps; every part of `serve` takes them from here. No torch."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

from duovox.contracts import ConfigError
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.audio import MAX_SECONDS
from duovox.text import read_text

MAX_CLIPS = 16
"""The most clips that one request may ask for."""

MOST = {"steps": 100, "gamma": 20.0}
"""The most that one request may ask for of a setting of sampling; of others, what `SampleConfig` takes."""

MOST_GUIDED = 100.0
"""The most that a request may ask of the strength of a guide."""

FEWEST_STEPS = {"heun": 7, "dpmpp_2m": 6, "euler_maruyama": 10}
"""Steps from which on no clip of a sampler ran off to noise (docs/serve.md has the figures); the page's slider starts there."""

MAX_JSON_BYTES = 16 * 2**10
"""The largest JSON body; also what the frame of a multipart body may add to its file."""

MAX_HEADER_BYTES = 16 * 2**10
"""The most that the head of a request may take."""

HEADER_SECONDS, BODY_SECONDS, IDLE_SECONDS, UNREAD_SECONDS = 10.0, 30.0, 5, 60.0
"""How long a client may take to send its headers and its body, may stay idle, and may leave an answer unread."""

LINGER_SECONDS, LINGER_IDLE_SECONDS, LINGER_BYTES = 30.0, 5.0, 256 * 2**20
"""How long, with which pauses and how much a client that has been answered may go on sending before the connection is cut."""

HALF_CLOSED_SECONDS = 0.5
"""How long a client that sends no more, but has sent a whole request, may wait for its answer before it counts as gone."""

CONNECTIONS = 256
"""Connections served at once; those beyond it are answered 503."""

MIN_TOKEN = 16


@dataclass(frozen=True)
class ServeConfig:
    """Settings of `duovox serve`. `queue` counts clips that wait. Raises `ConfigError` for impossible values."""

    bundle: str = DEFAULT_BUNDLE
    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 16
    wait_seconds: float = 0.005
    queue: int = 64
    timeout: float = 60.0
    token: str | None = None
    cors: tuple[str, ...] = ()
    upload_mb: float = 5.0
    upload_seconds: float = 30.0

    def __post_init__(self) -> None:
        _require(0 <= self.port < 2**16, f"--port must lie between 0 and 65535, not {self.port}")
        _require(1 <= self.max_batch <= 1024, f"--max-batch must lie between 1 and 1024, not {self.max_batch}")
        _require(0 <= self.wait_seconds <= 1, f"--wait-ms must lie between 0 and 1000, not {1000 * self.wait_seconds:g}")
        _require(self.queue >= 1, f"--queue must be at least 1, not {self.queue}")
        _require(0 < self.timeout < math.inf, f"--timeout must be a positive number of seconds, not {self.timeout:g}")
        _require(0 < self.upload_mb <= 1024, f"--max-upload-mb must lie between 0 and 1024, not {self.upload_mb:g}")
        _require(
            0 < self.upload_seconds <= MAX_SECONDS,
            f"--max-upload-seconds must lie between 0 and {MAX_SECONDS:g}, not {self.upload_seconds:g}",
        )
        for origin in self.cors:
            _require(_is_origin(origin), f"--cors {origin!r} is no origin; write it as https://example.org")

    @property
    def name(self) -> str:
        """What the bundle is called to the world: never a path of this machine."""
        return Path(self.bundle).resolve().name if Path(self.bundle).is_dir() else self.bundle

    @property
    def upload_bytes(self) -> int:
        """The largest file that may be sent."""
        return int(self.upload_mb * 2**20)

    @property
    def open_to_all(self) -> bool:
        """Whether other machines can reach it without a token."""
        return self.token is None and not _is_loopback(self.host)


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it. Raises `ConfigError` for one that is short or cannot be sent."""
    try:
        token = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token in {path}: {error}") from None
    usable = len(token) >= MIN_TOKEN and token.isascii() and token.isprintable() and " " not in token
    _require(usable, f"{path} must hold a token of at least {MIN_TOKEN} printable characters without spaces")
    return token


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    return scheme in ("http", "https") and bool(host) and not any(c in host for c in "/*? #\"'")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
