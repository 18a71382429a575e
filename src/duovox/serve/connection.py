"""One HTTP connection: uvicorn's own, with clocks for clients that dawdle, answers in the API's form where HTTP itself is broken, and
a close that lets a client finish sending before it reads.

Takes bytes from the socket; `run` gives the class to uvicorn. Bodies have their time limit in `security`.
"""

from __future__ import annotations

import asyncio
import sys

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from duovox.serve.lingering import Closing, Linger
from duovox.serve.refusals import RefusedError, answer
from duovox.serve.security import security_headers
from duovox.serve.settings import CONNECTIONS, HALF_CLOSED_SECONDS, HEADER_SECONDS, UNREAD_SECONDS
from duovox.serve.strictness import headers_too_large


class Connection(H11Protocol):
    """One connection, which closes if headers do not come, or answers are not read, in time."""

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None
    _linger: Linger | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        super().connection_made(Closing(transport, self._close))
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        if self._linger is not None:
            return self._linger.discard(len(data))
        self.app = crowded if len(self.connections) > CONNECTIONS else self.config.loaded_app
        super().data_received(data)
        self._watch_headers()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends no more. Where its request is whole it may still want the answer; after a moment it counts as gone."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_SECONDS, self.transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._headers_due = _cancel(self._headers_due)
        self._reading_due = _cancel(self._reading_due)
        if self._linger is not None:
            self._linger.end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reading_due = _cancel(self._reading_due)

    def shutdown(self) -> None:
        if self._linger is not None:
            return self.transport.abort()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; uvicorn calls this while it handles the error of its parser."""
        error = sys.exception()
        assert isinstance(error, h11.RemoteProtocolError)
        self._refuse(no_http(error))
        self.transport.close()

    def _refuse(self, error: RefusedError) -> None:
        """Answer in the place of the application, unless its answer is under way."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reply = answer(error)
            headers = [*self.server_state.default_headers, *reply.raw_headers, *security_headers("/"), (b"connection", b"close")]
            whole = (h11.Response(status_code=reply.status_code, headers=headers), h11.Data(data=bytes(reply.body)), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in whole))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _close(self) -> None:
        """Close at once, or when a client that is still sending has had its say."""
        sending = self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or self.conn.trailing_data[0]
        if not sending:
            return self._socket.close()
        self._headers_due = _cancel(self._headers_due)
        self._linger = Linger(self._socket, self.loop)
        self.flow.resume_reading()

    def _watch_headers(self) -> None:
        """Run a clock while the client owes us the rest of its headers: from the first byte of a request, or from the beginning."""
        if self.conn.their_state is not h11.IDLE or self._linger is not None:
            self._headers_due = _cancel(self._headers_due)
        elif self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(RefusedError(408, "too_slow", f"the headers were not complete after {HEADER_SECONDS:g} s"))
        self._socket.close()


def no_http(error: h11.RemoteProtocolError) -> RefusedError:
    """What h11 could not read: 400, 431 for headers that are too large, 501 for a transfer coding it does not know."""
    if error.error_status_hint == 431:
        return headers_too_large()
    if error.error_status_hint == 501:
        return RefusedError(501, "transfer_encoding", "the only Transfer-Encoding known here is chunked")
    words = str(error).partition(": bytearray(")[0].partition(": b'")[0]  # without what was sent
    return RefusedError(400, "bad_http", f"this is no HTTP/1.1: {words}")


async def crowded(scope: Scope, receive: Receive, send: Send) -> None:
    """The application in whose place connections beyond the limit find this."""
    error = RefusedError(503, "crowded", f"{CONNECTIONS} connections are open already; try again in a moment", 2)
    reply = answer(error)
    reply.raw_headers += [*security_headers(scope["path"]), (b"connection", b"close")]
    await reply(scope, receive, send)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; gives the None to put in its place."""
    if timer is not None:
        timer.cancel()
    return None
