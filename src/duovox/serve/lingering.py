"""How a connection is closed over a client that is still sending. Takes an open transport from `connection`, which hands on what comes.

A socket that is closed over bytes that nobody read resets the connection, and a client that sends everything before it reads never
sees its answer. So our side alone is closed, and what still comes is thrown away, within limits (as nginx's lingering_close).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from duovox.serve.settings import LINGER_BYTES, LINGER_IDLE_SECONDS, LINGER_SECONDS


class Linger:
    """Throws away what a client sends after its answer, until it closes, pauses too long, or sends too much or for too long."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._deadline, self._seen = loop.time() + LINGER_SECONDS, 0
        transport.write_eof()
        self._due = self._wait()

    def discard(self, count: int) -> None:
        """So many bytes came."""
        self._seen += count
        self._due.cancel()
        if self._seen > LINGER_BYTES:
            return self._transport.abort()
        self._due = self._wait()

    def end(self) -> None:
        """The connection is lost."""
        self._due.cancel()

    def _wait(self) -> asyncio.TimerHandle:
        return self._loop.call_at(min(self._loop.time() + LINGER_IDLE_SECONDS, self._deadline), self._transport.abort)


class Closing(asyncio.Transport):
    """A transport whose `close` is done by `close`, once; all else is its own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport, self._close, self._asked = transport, close, False

    def close(self) -> None:
        if not self.is_closing():
            self._asked = True
            self._close()

    def is_closing(self) -> bool:
        return self._asked or self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._transport.write(data)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
