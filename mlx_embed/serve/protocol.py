"""HTTP on a connection, with bounds on how long a request may take to arrive and how large its header may be."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 2**16
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for a request for ever once its first byte is there."""

    read_seconds = 30.0
    _timer: asyncio.TimerHandle | None = None
    _header = 0  # bytes of a header that is not there whole yet

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of one request or several."""
        before = self._header
        self._header += len(data)
        super().data_received(data)
        # A header that is complete has set it to 0.
        if self._header > HEADER_BYTES and self._header > before and not self._in_body:
            self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_body = False
        self._start()

    def on_headers_complete(self) -> None:
        """The header is there."""
        self._header = 0
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there whole."""
        self._header = 0
        self._stop()
        super().on_message_complete()

    _in_body = False

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.read_seconds, self._refuse, TOO_SLOW)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


def timed_protocol(read_seconds: float) -> type[TimedProtocol]:
    """The protocol of a server that waits so long for a request."""
    return type("TimedProtocol", (TimedProtocol,), {"read_seconds": read_seconds})
