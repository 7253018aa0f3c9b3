"""The edge to aiohttp: its requests become `Request` values, `Response` values become its answers.

Called by the node's shell, once for each listener:

    server = create_server(Listener.CLIENT | Listener.ADMIN, driver, settings, metrics, host=host)
    runner = web.ServerRunner(server); await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024).start()

aiohttp's router and middlewares are not used: they decode the path, and two keys would become
one. Nothing is decided here but how a body is read. Access logging is off; metrics count.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong

from raftkv.server.driver_api import DriverApi
from raftkv.server.http.authorisation import CHALLENGE, Authenticate
from raftkv.server.http.connection import Connection, LimitedServer
from raftkv.server.http.endpoint import Request
from raftkv.server.http.fast.connection import FastConnection
from raftkv.server.http.fast.path import FastPath
from raftkv.server.http.handlers import Handlers
from raftkv.server.http.live import UNREAD_BYTES_MAX, LiveConnection
from raftkv.server.http.problems import (
    BAD_BODY,
    BODY_TIMEOUT,
    EXPECTATION_FAILED,
    INTERNAL,
    MALFORMED,
    TOO_LARGE,
    UNAUTHENTICATED,
    Problem,
    Refused,
)
from raftkv.server.http.render import StreamBroken
from raftkv.server.http.requests import is_local_host
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

_LOG: Final = logging.getLogger(__name__)

# How old the knowledge may be that the node is (not) draining, when a response is sent.
_DRAIN_CHECK_SECONDS: Final = 0.1


class HttpServer(LimitedServer):
    """One listener's server; give it to ``aiohttp.web.ServerRunner``."""

    def __init__(
        self, handlers: Handlers, settings: HttpSettings, metrics: Metrics, *, is_fast: bool
    ) -> None:
        super().__init__(self._serve, self._error_response, settings)
        self._handlers = handlers
        self._metrics = metrics
        self._is_draining = False
        self._drain_checked_at = float("-inf")
        # Where connections begin; None: at aiohttp.
        self._fast = FastPath(self, handlers, metrics) if is_fast else None

    @override
    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # all that asyncio asks for
        return super().__call__() if self._fast is None else FastConnection(self._fast)

    @property
    @override
    def connection_count(self) -> int:
        """See `LimitedServer`."""
        return super().connection_count + (len(self._fast.connections) if self._fast else 0)

    @property
    @override
    def in_flight(self) -> int:
        """See `LimitedServer`."""
        fast = self._fast.connections if self._fast else ()
        return super().in_flight + sum(not connection.is_idle for connection in fast)

    @override
    def close_idle_connections(self) -> None:
        """See `LimitedServer`."""
        super().close_idle_connections()
        for connection in list(self._fast.connections if self._fast else ()):
            if connection.is_idle:
                connection.close()

    @override
    def pre_shutdown(self) -> None:
        """See `aiohttp.web.Server`."""
        super().pre_shutdown()
        for connection in list(self._fast.connections if self._fast else ()):
            connection.end()

    @override
    async def shutdown(self, timeout: float | None = None) -> None:
        """See `aiohttp.web.Server`."""
        await asyncio.gather(
            super().shutdown(timeout), *([self._fast.shutdown(timeout)] if self._fast else [])
        )

    def take_over(
        self, transport: asyncio.Transport, data: bytes, head_seconds: float | None
    ) -> None:
        """See `raftkv.server.http.fast.path.Host`."""
        connection = Connection(self, head_seconds)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if data:
            connection.data_received(data)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        started_at = perf_counter()
        read_body = partial(_read_body, request, self.settings.body_seconds_max)
        asked = Request(request.method, request.raw_path, request.headers, read_body)
        if request.version in (HttpVersion11, HttpVersion10):
            response = await self._handlers.answer(asked)
        else:
            problem = Problem(MALFORMED, "this server speaks HTTP/1.1 and HTTP/1.0")
            response = self._handlers.renderer.problem(problem)
        now = perf_counter()
        self._metrics.observe_request(asked.route, asked.method, response.status, now - started_at)
        if response.stream is not None:
            return await self._send_stream(request, response.headers, response.stream)
        if response.live is not None:
            return await self._send_live(request, response.headers, response.live)
        sent = web.Response(status=response.status, headers=response.headers, body=response.body)
        # A body left unread is in the way of a next request.
        if self.must_close(now) or not request.content.is_eof():
            sent.force_close()
        return sent

    async def _send_stream(
        self, request: web.BaseRequest, headers: dict[str, str], stream: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        sent = web.StreamResponse(headers=headers)
        if self.must_close(perf_counter()) or not request.content.is_eof():
            sent.force_close()
        await sent.prepare(request)
        try:
            async for part in stream:
                await sent.write(part)
        except StreamBroken:
            # Without the last chunk the client knows that this is not all.
            if request.transport is not None:
                request.transport.abort()
        return sent

    async def _send_live(
        self,
        request: web.BaseRequest,
        headers: dict[str, str],
        live: Callable[[LiveConnection], Awaitable[None]],
    ) -> web.StreamResponse:
        sent = web.StreamResponse(headers=headers)
        if self.must_close(perf_counter()) or not request.content.is_eof():
            sent.force_close()
        await sent.prepare(request)
        with suppress(ConnectionError):  # the client went away
            await live(_LiveConnection(request, sent))
        return sent

    def body_timeout(self) -> Problem:
        """See `raftkv.server.http.fast.path.Host`."""
        return _body_timeout(self.settings.body_seconds_max)

    def end_watches(self) -> None:
        """End watches and long polls, also those to come: part of the end of a drain."""
        self._handlers.end_watches()

    def must_close(self, now: float) -> bool:
        """Whether the node drains: every response then closes (operator design, rule 15)."""
        if now - self._drain_checked_at > _DRAIN_CHECK_SECONDS:
            self._drain_checked_at = now
            self._is_draining = self._handlers.is_draining()
        return self._is_draining

    def _error_response(self, status: int, error: BaseException | None) -> web.StreamResponse:
        if status == 500:
            _LOG.error("a request failed in a way that is a bug of this server", exc_info=error)
            problem = Problem(INTERNAL, "the server failed; its log says why")
        elif self._handlers.needs_token and isinstance(error, LineTooLong):
            # A line that no header needs: it may well be the token.
            detail = "a token is needed, and a line of the head is too long to be one"
            problem = Problem(UNAUTHENTICATED, detail, CHALLENGE)
        else:
            problem = Problem(MALFORMED, "this is not an HTTP/1.1 request")
        response = self._handlers.renderer.problem(problem)
        self._metrics.observe_request("(none)", "other", response.status, 0.0)
        return web.Response(status=response.status, headers=response.headers, body=response.body)


class _LiveConnection:
    """A `LiveConnection`: past aiohttp's writer where the same bytes go to many."""

    __slots__ = ("_is_chunked", "_sent", "_transport")

    def __init__(self, request: web.BaseRequest, sent: web.StreamResponse) -> None:
        self._sent = sent
        self._transport = request.transport
        self._is_chunked = sent.headers.get("Transfer-Encoding") == "chunked"

    async def write(self, raw: bytes) -> None:
        """See `LiveConnection`."""
        await self._sent.write(raw)

    def push(self, raw: bytes, chunk: bytes) -> bool:
        """See `LiveConnection`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return True  # the handler is being cancelled
        if transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            return False
        transport.write(chunk if self._is_chunked else raw)
        return True

    def abort(self) -> None:
        """See `LiveConnection`."""
        if self._transport is not None:
            self._transport.abort()


def create_server(
    listener: Listener,
    driver: DriverApi,
    settings: HttpSettings,
    metrics: Metrics,
    *,
    host: str,
    authenticate: Authenticate | None = None,
    is_fast: bool = True,
) -> HttpServer:
    """The server of one socket that is bound to ``host``; call with the event loop running.

    ``listener`` says which rows of the route table it serves: the client's socket is
    ``CLIENT | ADMIN`` when there is no admin address. A drain asks ``in_flight`` of every server
    until all say 0, and then calls ``close_idle_connections``. Without ``authenticate``, whoever
    can connect may do everything. ``is_fast`` False is for comparing: aiohttp serves everything.
    """
    handlers = Handlers(
        listener,
        driver,
        settings,
        metrics,
        must_be_local=is_local_host(host),
        authenticate=authenticate,
    )
    is_fast = is_fast and handlers.serves_keys
    return HttpServer(handlers, settings, metrics, is_fast=is_fast)


async def _read_body(request: web.BaseRequest, seconds_max: float, bytes_max: int) -> bytes:
    """The whole body; refused with 413 before more than ``bytes_max`` is kept."""
    declared = request.content_length
    if declared is not None and declared > bytes_max:
        raise _too_large(bytes_max)
    await _answer_expectation(request)
    content = request.content
    try:
        if content.is_eof():  # it came together with the head: the usual case
            body = content.read_nowait()
            if len(body) > bytes_max:
                raise _too_large(bytes_max)
            return body
        parts = bytearray()
        async with asyncio.timeout(seconds_max):
            while part := await content.readany():
                if len(parts) + len(part) > bytes_max:
                    raise _too_large(bytes_max)
                parts += part
        return bytes(parts)
    except TimeoutError:
        problem = _body_timeout(seconds_max)
        raise Refused(problem.kind, problem.detail) from None
    except web.RequestPayloadError:
        raise Refused(BAD_BODY, "the body is not framed as its head says") from None


async def _answer_expectation(request: web.BaseRequest) -> None:
    expectation = request.headers.get("Expect")
    if expectation is None or request.version == HttpVersion10:
        return
    if expectation.lower() != "100-continue":
        raise Refused(EXPECTATION_FAILED, "the only expectation served is 100-continue")
    if not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # an interim answer is not the beginning of the answer


def _body_timeout(seconds_max: float) -> Problem:
    return Problem(BODY_TIMEOUT, f"the body was not complete after {seconds_max:g} s")


def _too_large(bytes_max: int) -> Refused:
    return Refused(TOO_LARGE, f"the body is larger than the limit of {bytes_max} bytes")
