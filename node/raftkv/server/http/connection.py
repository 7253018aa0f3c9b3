"""HTTP connections: aiohttp's server and protocol with the deadlines and limits they lack.

aiohttp parses (llhttp) and runs one request of a connection at a time, pausing the socket when
32 requests wait behind it. Added here: a deadline for a request's head, a limit to the time an
answer may lie unread, a cap on connections, problem+json where aiohttp would answer with plain
text, and what a drain needs: how many requests are in flight, and closing idle connections.

Source: reference/faults.md, section 6, rows 1 to 6 and 33.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from raftkv.server.http.settings import HttpSettings

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# Bytes that one connection may have sent beyond what is being handled: read, not yet parsed.
READ_BUFFER_BYTES: Final = 64 << 10

_TOO_MANY_BODY: Final = (
    b'{"type":"urn:raftkv:problem:overloaded","title":"Too much in flight","status":429,'
    b'"detail":"too many connections","code":"overloaded","retryable":true,'
    b'"outcome":"not_committed"}'
)
_TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TOO_MANY_BODY), _TOO_MANY_BODY)
)


class LimitedServer(web.Server):
    """Makes a `Connection` for every accepted socket and keeps the list of them."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        error_response: Callable[[int, BaseException | None], web.StreamResponse],
        settings: HttpSettings,
    ) -> None:
        """Serve with ``handler``; ``error_response`` answers what is not HTTP, and bugs."""
        # A client that goes away cancels its request: nothing else would ever end a long wait.
        super().__init__(handler, handler_cancellation=True)
        self.settings = settings
        self.error_response = error_response

    @override
    def __call__(self) -> RequestHandler:
        return Connection(self)

    @property
    def connection_count(self) -> int:
        """How many sockets are open."""
        return len(self._connections)

    @property
    def is_full(self) -> bool:
        """Whether no further connection is to be served."""
        return self.connection_count >= self.settings.connections_max

    @property
    def in_flight(self) -> int:
        """Connections with a request, or with an answer that has not left this process."""
        return sum(not connection.is_idle for connection in self._each())

    def close_idle_connections(self) -> None:
        """Close the connections that wait for a next request: the end of a drain."""
        for connection in self._each():
            if connection.is_idle:
                connection.force_close()

    def refuse(self, transport: asyncio.Transport) -> None:
        """Tell a client that there are too many connections, and close."""
        transport.write(_TOO_MANY_CONNECTIONS)
        transport.close()

    def _each(self) -> list["Connection"]:
        return [each for each in self._connections if isinstance(each, Connection)]


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_first_head_seconds", "_head_deadline", "_limits", "_server")

    def __init__(self, server: LimitedServer, head_seconds_max: float | None = None) -> None:
        """``head_seconds_max``: what is left for the first head, if it has begun elsewhere."""
        limits = server.settings
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.keepalive_seconds,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to switch it off
            auto_decompress=False,
            lingering_time=limits.linger_seconds,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._server = server
        self._limits = limits
        # Runs while a request's head is expected: from the start, and from a head's first byte.
        self._head_deadline: asyncio.TimerHandle | None = None
        self._first_head_seconds = head_seconds_max or limits.head_seconds_max

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request and owes no answer."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self.transport is None:
            return False
        return not self.transport.get_write_buffer_size()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        transport = cast("asyncio.Transport", transport)
        if self._server.is_full:
            self._force_close = True
            self._server.refuse(transport)
            return
        limit_unread(transport, self._limits.unread_seconds_max)
        super().connection_made(transport)
        self._expect_head(self._first_head_seconds)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        # Without a waiter a request is at work, or the first one is yet to be waited for.
        is_at_work = self._request_count > 0 and (waiter is None or waiter.done())
        if self._messages or is_at_work:
            # A head is complete: what follows has deadlines of its own.
            if self._head_deadline is not None:
                self._head_deadline.cancel()
                self._head_deadline = None
        elif self._head_deadline is None:
            self._expect_head(self._limits.head_seconds_max)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
        super().connection_lost(exc)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun and cannot be replaced") from exc
        response = self._server.error_response(status, exc)
        response.force_close()
        return response

    def _expect_head(self, seconds: float) -> None:
        self._head_deadline = self._loop.call_later(seconds, self.force_close)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel find out that the peer of an idle connection is gone."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def limit_unread(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Let the kernel cut a connection whose peer takes nothing for so long.

    It covers what asyncio's buffer and the kernel hold, also while the connection is closing.
    Where the option is missing (macOS), flow control still bounds the memory.
    """
    sock: Any = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
