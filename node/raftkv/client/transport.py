"""One call, several attempts: the only module of the client that opens connections.

A request is sent again only where that cannot do it twice (node design, rule 18):

- when nothing was sent, or when a node answered that it was not committed;
- a read, and what changes nothing more the second time (`Repeat.SAFE`), after any failure;
- a write with an Idempotency-Key (`Repeat.KEYED`) after any failure too: nodes remember the first
  outcome for ten minutes. All attempts of such a call are the same bytes, its `timeout` included,
  because the key stands for the whole request.

aiohttp by itself sends PUT and DELETE a second time when a kept connection breaks;
`_never_resend` switches that off.
"""

import asyncio
import io
import os
import secrets
import ssl as ssl_module
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from random import Random, SystemRandom
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from raftkv.client.endpoints import Endpoint, EndpointPool
from raftkv.client.errors import ClientError, OutcomeUnknownError, UnreachableError
from raftkv.client.wire import Answer, duration, failure

# A node answers at the deadline it was given; its answer needs a moment to arrive.
_ANSWER_SECONDS: Final = 1.0
# An address that swallows packets must not use up a call that others could serve.
_CONNECT_SECONDS_MAX: Final = 2.0
# The API's longest deadline.
_DEADLINE_SECONDS_MAX: Final = 60.0
# What was applied once is answered the same again, so these settle an unknown first attempt.
_APPLIED_STATUSES: Final = frozenset({200, 201, 404, 409, 412})


class Repeat(Enum):
    """When a request may be sent a second time although a node may have seen the first."""

    NEVER = auto()
    SAFE = auto()  # a read, or the second time changes nothing
    KEYED = auto()  # with an Idempotency-Key


class Request(msgspec.Struct, frozen=True):
    """One request of the API."""

    method: str
    path: str
    query: dict[str, str] = {}  # values are percent-encoded
    headers: dict[str, str] = {}
    body: bytes | None = None
    repeat: Repeat = Repeat.SAFE
    has_deadline: bool = False  # the node takes ?timeout=
    wait_seconds: float = 0.0  # the node may take this much longer, as it was asked to wait
    to_leader: bool = False  # spares a hop if it goes there

    @property
    def is_write(self) -> bool:
        """Whether its outcome matters beyond its answer."""
        return self.method not in ("GET", "HEAD")

    def target(self, seconds: float) -> str:
        """The raw request target; ``seconds`` is what the node is given, the wait included."""
        query = dict(self.query)
        if self.has_deadline:
            left = max(0.0, seconds - self.wait_seconds)
            query["timeout"] = duration(min(_DEADLINE_SECONDS_MAX, left))
        joined = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.path}?{joined}" if joined else self.path


class NotSentError(Exception):
    """No connection: the node cannot have seen the request."""


class InterruptedRequestError(Exception):
    """The connection broke or time ran out: the node may have seen the request."""


async def _never_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Tell aiohttp's retry loop of a broken connection with an error that it does not catch."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorCertificateError as error:
        reason = f"its certificate is not trusted: {error.certificate_error}"
        raise NotSentError(f"{request.url.origin()}: {reason}") from error
    except aiohttp.ClientConnectorError as error:
        raise NotSentError(f"{request.url.origin()}: {_why(request.url, error)}") from error
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise InterruptedRequestError(str(error) or type(error).__name__) from error


def _why(url: URL, error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):  # its numbers are not of the system
        return f"no address is known for {url.host}"
    if isinstance(error.os_error, ssl_module.SSLError):
        return f"no TLS connection: {error.os_error.reason or error.os_error}"
    code = error.os_error.errno
    return os.strerror(code).lower() if code else str(error.os_error)


class Transport:
    """Sends requests to any of several endpoints. Open it before use, close it after."""

    def __init__(
        self,
        urls: tuple[URL, ...],
        *,
        timeout_seconds: float,
        token: str | None,
        ssl: ssl_module.SSLContext | None,
        cluster_id: str | None,
        fail_fast: bool,
        random: Random | None = None,
    ) -> None:
        self.urls = urls
        self.pool = EndpointPool(urls, random or SystemRandom())
        self.timeout_seconds = timeout_seconds
        # The highest revision that any answer named: what a read has to wait for to see it all.
        self.revision = 0
        self._ssl = ssl
        self._fail_fast = fail_fast
        self._headers: dict[str, str] = {}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if cluster_id is not None:
            self._headers["X-RaftKV-Cluster"] = cluster_id
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make calls possible; connects to nobody yet."""
        connector = aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            middlewares=(_never_resend,),
            skip_auto_headers=("Content-Type", "Accept-Encoding"),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, request: Request, timeout_seconds: float | None = None) -> Answer:
        """An answer that no retry could better, within the deadline.

        Raises:
            UnreachableError: nobody answered; a write was certainly not committed.
            OutcomeUnknownError: a write was sent and nobody said what became of it.
        """
        total = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        return await _Call(self, request, total + request.wait_seconds, self._fail_fast).run()

    async def once(
        self, url: URL, request: Request, seconds: float, patience_seconds: float | None = None
    ) -> Answer:
        """Send ``request`` to ``url`` once; ``seconds`` is what the node is given.

        ``patience_seconds`` is what the caller has left, if that may be less.
        Raises `NotSentError` or `InterruptedRequestError`.
        """
        patience = seconds if patience_seconds is None else min(seconds, patience_seconds)
        total = patience + _ANSWER_SECONDS
        async with self._sent(url, request, seconds, aiohttp.ClientTimeout(total=total)) as got:
            body = await got.read()
        answer = Answer(got.status, got.headers.copy(), body)
        self.revision = max(self.revision, answer.revision())
        return answer

    @asynccontextmanager
    async def stream(
        self, url: URL, request: Request, *, silence_seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send ``request`` once and give the answer whose body is still to be read.

        Raises what `once` raises, also from inside the block when the connection breaks or
        nothing comes for ``silence_seconds``.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence_seconds)
        async with self._sent(url, request, self.timeout_seconds, timeout) as response:
            yield response

    @asynccontextmanager
    async def _sent(
        self, url: URL, request: Request, seconds: float, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("the client is not open: use it as an async context manager")
        most = min(seconds, _CONNECT_SECONDS_MAX) if len(self.pool) > 1 else seconds
        timeout = aiohttp.ClientTimeout(timeout.total, None, timeout.sock_read, most)
        try:
            async with self._session.request(
                request.method,
                # Built as it is to be sent: yarl must neither decode nor fold anything of a key.
                URL(f"{url.origin()}{request.target(seconds)}", encoded=True),
                headers=request.headers,
                data=_sendable(request.body),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSentError(f"{url.origin()}: connecting timed out") from error
        except TimeoutError as error:
            raise InterruptedRequestError("the answer did not come in time") from error
        except aiohttp.ClientError as error:
            raise InterruptedRequestError(str(error) or type(error).__name__) from error


class _Call:
    """One call with all its attempts."""

    def __init__(
        self, transport: Transport, request: Request, total_seconds: float, fail_fast: bool
    ) -> None:
        self._transport = transport
        self._pool = transport.pool
        self._request = request
        self._fail_fast = fail_fast
        self._total_seconds = total_seconds
        self._deadline = asyncio.get_running_loop().time() + total_seconds
        # Why an earlier attempt may have taken effect; then only a settled outcome is an answer.
        self._unknown: OutcomeUnknownError | None = None
        self._unconnected = 0  # attempts in a row that could not connect

    async def run(self) -> Answer:
        loop = asyncio.get_running_loop()
        to_leader = self._request.to_leader
        failed: ClientError | None = None
        while True:
            endpoint, wait_seconds = self._pool.pick(loop.time(), for_write=to_leader)
            is_in_time = loop.time() + wait_seconds < self._deadline
            if failed is not None and not is_in_time:
                raise self._unknown or failed
            if wait_seconds and is_in_time:
                await asyncio.sleep(wait_seconds)
            outcome = await self._attempt(endpoint)
            if isinstance(outcome, Answer):
                return outcome
            failed = outcome
            # Where nothing listens at all, waiting would only hide it.
            if self._fail_fast and self._unconnected >= len(self._pool) and not self._unknown:
                raise failed

    async def _attempt(self, endpoint: Endpoint) -> Answer | ClientError:
        """An answer to give, or why to try again; raises if there must be no other try."""
        request, loop = self._request, asyncio.get_running_loop()
        left = max(0.001, self._deadline - loop.time())
        try:
            seconds = self._attempt_seconds()
            answer = await self._transport.once(endpoint.url, request, seconds, left)
        except NotSentError as error:
            self._unconnected += 1
            self._pool.failed(endpoint, loop.time())
            return UnreachableError(f"cannot connect to {error}")
        except InterruptedRequestError as error:
            self._unconnected = 0
            self._pool.failed(endpoint, loop.time())
            if request.is_write:
                return self._may_have_happened(OutcomeUnknownError(str(error)))
            return UnreachableError(f"{endpoint.url.origin()} did not answer: {error}")
        self._unconnected = 0
        if not self._can_retry(answer):
            self._pool.succeeded(endpoint)
            if self._unknown is not None and answer.status not in _APPLIED_STATUSES:
                raise self._unknown
            return answer
        self._pool.failed(endpoint, loop.time(), answer.retry_after_seconds())
        refusal = failure(answer, is_write=request.is_write)
        if isinstance(refusal, OutcomeUnknownError):
            return self._may_have_happened(refusal)
        return refusal

    def _attempt_seconds(self) -> float:
        """What one attempt is given, so that there is time for another elsewhere."""
        wait_seconds = self._request.wait_seconds
        if self._request.repeat is Repeat.KEYED:  # the same each time, as it is part of the bytes
            return max(self._total_seconds / 2, min(self._total_seconds, 1.0))
        left = max(0.001, self._deadline - asyncio.get_running_loop().time())
        if self._request.repeat is Repeat.NEVER or len(self._pool) == 1:
            return left
        return min(left, wait_seconds + max((left - wait_seconds) / 2, 0.25))

    def _may_have_happened(self, error: OutcomeUnknownError) -> OutcomeUnknownError:
        if self._request.repeat is Repeat.NEVER:
            raise error
        self._unknown = error
        return error

    def _can_retry(self, answer: Answer) -> bool:
        if answer.status < 429:
            return False
        problem = answer.problem()
        can_repeat = self._request.repeat is not Repeat.NEVER
        if problem is None:  # a proxy's error page says nothing about a write
            return can_repeat
        if problem.outcome == "unknown" and self._request.is_write:
            return can_repeat
        return problem.retryable


def new_key() -> str:
    """An Idempotency-Key that nobody else has."""
    return secrets.token_urlsafe(16)


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """``body`` as aiohttp wants it: above 1 MiB as a file, which it writes in pieces."""
    return io.BytesIO(body) if body is not None and len(body) > 1 << 20 else body
