"""The server process: a socket, uvicorn, signals and the log. Takes settings and what loads the voice from the command line."""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from duovox.contracts import ConfigError
from duovox.serve.app import create_app
from duovox.serve.connection import Connection
from duovox.serve.settings import IDLE_SECONDS, MAX_HEADER_BYTES, ServeConfig

if TYPE_CHECKING:
    from duovox.voice import Duovox

log = logging.getLogger(__name__)

BACKLOG = 256
"""Connections that may wait to be accepted."""


def serve(load: Callable[[], Duovox], config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests there are. Raises `ConfigError` if the address cannot be had, and
    whatever `load` raises."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would describe what is wrong with the users' forms
    listener = listen(config.host, config.port)
    app = create_app(load, config)
    server = uvicorn.Server(_settings(app, config))

    def end(*_: object) -> None:
        server.should_exit = True

    app.state.worker.on_failure = end
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it is done; then nothing is left to do
        signal.signal(number, end)
    _announce(listener, config)
    server.run(sockets=[listener])
    if app.state.worker.failure is not None:
        raise app.state.worker.failure


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigError` where the address is taken, foreign or forbidden."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # the rest repeats the address
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another --host or --port") from None


def _settings(app: Any, config: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(config.timeout),
    )


def _announce(listener: socket.socket, config: ServeConfig) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    log.info("listening on http://%s:%d/", host, listener.getsockname()[1])
    if config.open_to_all:
        log.warning("anybody who can reach %s may use this server; --token-file asks for a token", config.host)
