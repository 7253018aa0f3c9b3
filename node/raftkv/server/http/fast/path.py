"""What the connections of one listener share on the short way."""

import asyncio
import logging
import re
from time import perf_counter
from typing import Final, NoReturn, Protocol

from raftkv.node.events import Answer
from raftkv.server.http.calls.keys import begin_read, begin_write
from raftkv.server.http.endpoint import Request
from raftkv.server.http.fast.connection import FastConnection
from raftkv.server.http.fast.exchange import (
    GET_LABEL,
    PUT_LABEL,
    AnyRead,
    AnyWrite,
    Exchange,
    PlainPut,
    PlainRead,
)
from raftkv.server.http.fast.head import Block, Recogniser
from raftkv.server.http.fast.wire import Wire
from raftkv.server.http.handlers import Handlers
from raftkv.server.http.problems import INTERNAL, Problem, Refused
from raftkv.server.http.settings import HttpSettings
from raftkv.server.http.targets import KEY_BYTES_MAX
from raftkv.server.metrics import Metrics

_LOG: Final = logging.getLogger(__name__)

_KEYS: Final = b"/v1/kv/"
# How exact deadlines are, as a part of the shortest one, and at most.
_SWEEP_PART: Final = 0.1
_SWEEP_SECONDS_MAX: Final = 1.0
_CLOSE_LOOK_SECONDS: Final = 0.02


class Host(Protocol):
    """The server of the listener, as the short way needs it."""

    @property
    def settings(self) -> HttpSettings:
        """Its limits."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether no further connection is to be served."""
        ...

    def refuse(self, transport: asyncio.Transport) -> None:
        """Tell a client so, and close."""
        ...

    def must_close(self, now: float) -> bool:
        """Whether every response closes its connection; ``now`` is of `perf_counter`."""
        ...

    def body_timeout(self) -> Problem:
        """What a client is told whose body does not come."""
        ...

    def take_over(
        self, transport: asyncio.Transport, data: bytes, head_seconds: float | None
    ) -> None:
        """Let aiohttp serve the connection; ``head_seconds`` are left for a head under way."""
        ...


class FastPath:
    """See the module docstring."""

    def __init__(self, host: Host, handlers: Handlers, metrics: Metrics) -> None:
        self.settings = host.settings
        self.driver = handlers.endpoint.driver
        self.connections: set[FastConnection] = set()
        #: Connections of which something is expected within a time.
        self.timed: set[FastConnection] = set()
        self.now = 0.0  # of the last answer, by `perf_counter`
        self._host = host
        self._handlers = handlers
        self.at = handlers.endpoint
        self._observe = metrics.observe_request
        self._wire = Wire(handlers.renderer)
        recogniser = Recogniser(must_be_local=handlers.must_be_local)
        self.known_blocks = recogniser.known
        self.judge = recogniser.judge
        self._loop = asyncio.get_running_loop()
        limits = self.settings
        shortest = min(limits.head_seconds_max, limits.body_seconds_max, limits.linger_seconds)
        self._sweep_seconds = min(_SWEEP_SECONDS_MAX, shortest * _SWEEP_PART)
        self._sweeping: asyncio.TimerHandle | None = None

    # ---- connections ------------------------------------------------------------------------

    def add(self, connection: FastConnection, transport: asyncio.Transport) -> bool:
        """Whether a new connection is to be served; else it was told so."""
        if self._host.is_full:
            self._host.refuse(transport)
            return False
        self.connections.add(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._sweep_seconds, self._sweep)
        return True

    def remove(self, connection: FastConnection) -> None:
        """It is closed, or served elsewhere."""
        self.connections.discard(connection)
        self.timed.discard(connection)
        if not self.connections and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def hand_over(self, transport: asyncio.Transport, data: bytes, deadline: float | None) -> None:
        """The connection is aiohttp's from ``data`` on; ``deadline`` is of the head under way."""
        # Above 0, or it would mean none.
        left = None if deadline is None else max(0.001, deadline - self._loop.time())
        self._host.take_over(transport, data, left)

    async def shutdown(self, seconds_max: float | None) -> None:
        """Close all connections, those with a request after its answer, or at the limit."""
        for connection in list(self.connections):
            connection.end()
        deadline = self._loop.time() + (seconds_max or 0.0)
        while self.connections and self._loop.time() < deadline:
            if all(connection.is_idle for connection in self.connections):
                break
            await asyncio.sleep(_CLOSE_LOOK_SECONDS)
        for connection in list(self.connections):
            connection.close()
            self.remove(connection)

    # ---- deadlines --------------------------------------------------------------------------

    def deadline(self, connection: FastConnection, seconds: float) -> float:
        """Loop time at which, or soon after, ``connection`` is told to `expire`."""
        self.timed.add(connection)
        return self._loop.time() + seconds

    def _sweep(self) -> None:
        """One timer for all: deadlines are missed by a tenth at most, and usually kept."""
        self._sweeping = self._loop.call_later(self._sweep_seconds, self._sweep)
        now = self._loop.time()
        for connection in list(self.timed):
            connection.expire(now)
        idle_since = perf_counter() - self.settings.keepalive_seconds
        for connection in list(self.connections):
            connection.expire_idle(idle_since)

    # ---- requests ---------------------------------------------------------------------------

    def exchange(
        self, owner: FastConnection, line: re.Match[bytes], block: Block
    ) -> Exchange | None:
        """The request of this head, allowed and ready to be asked once its body is there.

        None: it is not served here, or would be refused.
        """
        method, target = line.groups()
        if (
            not self._handlers.needs_token
            and target.startswith(_KEYS)
            and b"?" not in target
            and b"%" not in target
        ):
            key = target[len(_KEYS) :]
            if len(key) > KEY_BYTES_MAX:
                return None
            if method == b"GET" and block.is_plain_read:
                if block.body_bytes:
                    return None
                return PlainRead(owner, GET_LABEL, key, 0, perf_counter())
            if method == b"PUT" and block.is_plain_write:
                if block.body_bytes > self.settings.value_bytes_max:
                    return None
                return PlainPut(owner, PUT_LABEL, key, block.body_bytes, perf_counter())
        return self._any_exchange(owner, method.decode("ascii"), target.decode("ascii"), block)

    def _any_exchange(
        self, owner: FastConnection, method: str, target: str, block: Block
    ) -> Exchange | None:
        started_at = perf_counter()
        request = Request(method, target, block.headers, _no_body)
        try:
            match, query = self._handlers.admit(request)
            if match.route.handler == "read_key":
                asked = begin_read(request, match, query)
                if block.body_bytes or asked.wait_seconds is not None:
                    return None
                if not _is_authorised(request):
                    return None
                return AnyRead(owner, (request.route, method), asked, started_at)
            if match.route.handler != "write_key":
                return None
            write = begin_write(request, match, query)
        except Refused:
            return None
        limit = self.settings.value_bytes_max if write.asked.has_body else 0
        if block.body_bytes > limit or write.asked.lease or write.asked.may_redirect:
            return None
        if not _is_authorised(request):
            return None
        return AnyWrite(owner, (request.route, method), write, block.body_bytes, started_at)

    def render(self, exchange: Exchange, answer: Answer | None) -> tuple[bytes, bool]:
        """The answer's bytes, and whether the connection ends with it. Counts it."""
        self.now = now = perf_counter()
        closes = self._host.must_close(now)
        try:
            status, raw = exchange.render(self.at, self._wire, answer, closes=closes)
        except Exception as error:  # noqa: BLE001 - as aiohttp does for its handlers
            self.log_bug(error)
            response = self.at.renderer.problem(
                Problem(INTERNAL, "the server failed; its log says why")
            )
            closes = True
            status, raw = response.status, self._wire.response(response, closes=True)
        self._observe(*exchange.label, status, now - exchange.started_at)
        return raw, closes

    def body_timeout(self, exchange: Exchange) -> bytes:
        """The answer to a request whose body does not come."""
        problem = self._host.body_timeout()
        response = self.at.renderer.problem(problem, self.at.revision)
        seconds = perf_counter() - exchange.started_at
        self._observe(*exchange.label, response.status, seconds)
        return self._wire.response(response, closes=True)

    def log_bug(self, error: Exception) -> None:
        """Leave a trace of what should not happen."""
        _LOG.error("a request failed in a way that is a bug of this server", exc_info=error)


async def _no_body(_bytes_max: int) -> NoReturn:
    raise AssertionError("the body comes otherwise here")


def _is_authorised(request: Request) -> bool:
    """Fails closed: `Handlers.answer` makes a failure of the server of it."""
    return request.identity is None or request.is_authorised
