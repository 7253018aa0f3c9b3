"""An async client for keys and status, over any of several nodes.

Used by the command line. It retries what is safe to retry and nothing else: a read on any
failure; a write only when nothing was sent, or when a node answered that it was not committed
(node design, rule 18). aiohttp by itself sends PUT and DELETE a second time when a kept
connection breaks; `_never_resend` switches that off.
"""

import asyncio
import base64
import io
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self, TypeVar
from urllib.parse import quote_from_bytes

import aiohttp
import msgspec
from yarl import URL

from raftkv.client.errors import (
    ClientError,
    ConditionFailedError,
    OutcomeUnknownError,
    RequestFailedError,
    UnreachableError,
)

Consistency = Literal["linearizable", "local"]
JsonObject = dict[str, object]
Shape = TypeVar("Shape")

# A node answers at the deadline it was given; its answer needs a moment to arrive.
_ANSWER_SECONDS: Final = 1.0
_ROUND_PAUSE_SECONDS: Final = 0.1


class Item(msgspec.Struct, frozen=True):
    """A key as a node served it."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    revision: int  # the store's, when it was served


class Written(msgspec.Struct, frozen=True):
    """A stored key: its new revision, and how often it was written since it was created."""

    revision: int
    version: int


class Deleted(msgspec.Struct, frozen=True):
    """How many keys were removed (0 or 1), and the store's revision."""

    deleted: int
    revision: int


class Page(msgspec.Struct, frozen=True):
    """Keys of a range, and how to go on."""

    items: tuple[Item, ...]
    prefixes: tuple[bytes, ...]  # instead of the keys that hold the delimiter
    revision: int  # of the store, the same for all pages of a cursor
    next_cursor: str | None  # None: there is no more


class _ItemBody(msgspec.Struct, frozen=True):
    key: str
    key_encoding: str
    create_revision: int
    mod_revision: int
    version: int
    value: str = ""
    value_encoding: str = "utf-8"

    def item(self, revision: int) -> Item:
        return Item(
            _bytes(self.key, self.key_encoding),
            _bytes(self.value, self.value_encoding),
            self.create_revision,
            self.mod_revision,
            self.version,
            revision,
        )


class _CounterBody(msgspec.Struct, frozen=True):
    value: str


class _PrefixBody(msgspec.Struct, frozen=True):
    prefix: str
    prefix_encoding: str


class _PageBody(msgspec.Struct, frozen=True):
    revision: int
    items: tuple[_ItemBody, ...]
    prefixes: tuple[_PrefixBody, ...]
    next_cursor: str | None


class _Problem(msgspec.Struct, frozen=True):
    detail: str
    code: str
    retryable: bool
    outcome: str


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def problem(self) -> _Problem | None:
        """What a failing node said; None when it was not a node that answered."""
        try:
            return msgspec.json.decode(self.body, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class _Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: bytes | None = None
    has_deadline: bool = False  # the node takes ?timeout=

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    def target(self, seconds: float) -> str:
        query = dict(self.query)
        if self.has_deadline:
            query["timeout"] = f"{min(60_000, max(1, int(seconds * 1000)))}ms"
        joined = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.path}?{joined}" if joined else self.path


class _NotSentError(Exception):
    """No connection: the node cannot have seen the request."""


class _InterruptedError(Exception):
    """The connection broke or time ran out: the node may have seen the request."""


async def _never_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Tell aiohttp's retry loop of a broken connection with an error that it does not catch."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError as error:
        code = error.os_error.errno
        if isinstance(error, aiohttp.ClientConnectorDNSError):  # its numbers are not of the system
            reason = f"no address is known for {request.url.host}"
        else:
            reason = os.strerror(code).lower() if code else str(error.os_error)
        raise _NotSentError(f"{request.url.origin()}: {reason}") from error
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error


class KvClient:
    """Use as ``async with KvClient(["http://127.0.0.1:7400"]) as client``.

    ``timeout_seconds`` bounds every call with all its retries.
    """

    def __init__(self, endpoints: Sequence[str], *, timeout_seconds: float = 5.0) -> None:
        """Talk to any of ``endpoints`` ("http://host:port" or "host:port").

        Raises:
            ValueError: there is none, or one is not an address.
        """
        self.endpoints = tuple(parse_endpoint(endpoint) for endpoint in endpoints)
        if not self.endpoints:
            raise ValueError("a client needs at least one endpoint")
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._preferred = 0  # index of the endpoint that answered last

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_never_resend,),
            skip_auto_headers=("Content-Type",),
        )
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ---- keys -------------------------------------------------------------------------------

    async def get(
        self,
        key: bytes,
        *,
        consistency: Consistency = "linearizable",
        min_revision: int = 0,
        revision: int = 0,
    ) -> Item | None:
        """The item under ``key`` as of ``revision`` (0: now), or None."""
        query: dict[str, str] = {"consistency": consistency}
        if min_revision:
            query["min_revision"] = str(min_revision)
        if revision:
            query["revision"] = str(revision)
        answer = await self._call(_Request("GET", key_path(key), query, has_deadline=True))
        problem = answer.problem() if answer.status == 404 else None
        if problem is not None and problem.code == "key_not_found":
            return None
        headers = answer.headers
        if answer.status != 200 or "X-RaftKV-Mod-Revision" not in headers:
            raise _failure(answer, is_write=False)
        return Item(
            key,
            answer.body,
            int(headers["X-RaftKV-Create-Revision"]),
            int(headers["X-RaftKV-Mod-Revision"]),
            int(headers["X-RaftKV-Version"]),
            int(headers["X-RaftKV-Revision"]),
        )

    async def list(
        self,
        prefix: bytes = b"",
        *,
        limit: int = 1000,
        cursor: str | None = None,
        revision: int = 0,
        delimiter: bytes = b"",
        is_descending: bool = False,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
    ) -> Page:
        """A page of the keys that begin with ``prefix``, at one revision (0: now).

        For the next page pass its ``next_cursor`` with the same other arguments.
        """
        query = {"limit": str(limit), "consistency": consistency}
        for name, data in (("prefix", prefix), ("delimiter", delimiter)):
            if data:
                query[name] = quote_from_bytes(data, safe="")
        if revision:
            query["revision"] = str(revision)
        if cursor is not None:
            query["cursor"] = cursor
        if is_descending:
            query["order"] = "desc"
        if keys_only:
            query["keys_only"] = "true"
        answer = await self._call(_Request("GET", "/v1/kv", query, has_deadline=True))
        body = _decode(answer, _PageBody, (200,))
        items = tuple(each.item(body.revision) for each in body.items)
        prefixes = tuple(_bytes(each.prefix, each.prefix_encoding) for each in body.prefixes)
        return Page(items, prefixes, body.revision, body.next_cursor)

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        if_match: int | None = None,
        create_only: bool = False,
    ) -> Written:
        """Store ``value``; only at mod revision ``if_match``, or only if the key is absent."""
        headers = _conditions(if_match, create_only=create_only)
        answer = await self._write("PUT", key, headers, value)
        return _decode(answer, Written, (200, 201), is_write=True)

    async def append(self, key: bytes, suffix: bytes, *, if_match: int | None = None) -> Written:
        """Append ``suffix`` to the value, creating the key if it is absent."""
        answer = await self._write("POST", key, _conditions(if_match), suffix, {"op": "append"})
        return _decode(answer, Written, (200, 201), is_write=True)

    async def increment(self, key: bytes, by: int = 1) -> int:
        """Add ``by`` to the decimal number under ``key`` (0 if it is absent); the sum."""
        answer = await self._write("POST", key, {}, None, {"op": "increment", "by": str(by)})
        return int(_decode(answer, _CounterBody, (200, 201), is_write=True).value)

    async def delete_prefix(self, prefix: bytes) -> Deleted:
        """Remove the keys that begin with ``prefix`` (not empty), all or none."""
        query = {"prefix": quote_from_bytes(prefix, safe="")}
        answer = await self._call(_Request("DELETE", "/v1/kv", query, has_deadline=True))
        return _decode(answer, Deleted, (200,), is_write=True)

    async def delete(self, key: bytes, *, if_match: int | None = None) -> Deleted:
        """Remove ``key``; removing an absent one is no error."""
        answer = await self._write("DELETE", key, _conditions(if_match), None)
        return _decode(answer, Deleted, (200,), is_write=True)

    async def _write(
        self,
        method: str,
        key: bytes,
        headers: dict[str, str],
        body: bytes | None,
        query: dict[str, str] | None = None,
    ) -> _Answer:
        request = _Request(method, key_path(key), query or {}, headers, body, has_deadline=True)
        return await self._call(request)

    # ---- nodes ------------------------------------------------------------------------------

    async def status(self, endpoint: URL) -> JsonObject:
        """What the node at ``endpoint`` (one of ``endpoints``) says of itself."""
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            answer = await self._attempt(endpoint, _Request("GET", "/v1/status"), deadline)
        except _NotSentError as error:
            raise UnreachableError(f"cannot connect to {error}") from None
        except _InterruptedError as error:
            raise UnreachableError(f"{endpoint.origin()} did not answer: {error}") from None
        return _decode(answer, JsonObject, (200,))

    async def cluster(self) -> JsonObject:
        """The configuration and its members, as one of the nodes sees them."""
        return _decode(await self._call(_Request("GET", "/v1/cluster")), JsonObject, (200,))

    # ---- one call, several attempts ---------------------------------------------------------

    async def _call(self, request: _Request) -> _Answer:
        """An answer that no retry could better, within the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        while True:
            was_connected = False
            failure: ClientError = UnreachableError("no endpoint was tried")
            for _ in self.endpoints:
                endpoint = self.endpoints[self._preferred]
                try:
                    answer = await self._attempt(endpoint, request, deadline)
                except _NotSentError as error:
                    failure = UnreachableError(f"cannot connect to {error}")
                except _InterruptedError as error:
                    if request.is_write:
                        raise OutcomeUnknownError(_unknown(str(error))) from None
                    was_connected = True
                    failure = UnreachableError(f"{endpoint.origin()} did not answer: {error}")
                else:
                    was_connected = True
                    if not _can_retry(request, answer):
                        return answer
                    failure = _failure(answer, is_write=request.is_write)
                if loop.time() >= deadline:
                    raise failure
                self._preferred = (self._preferred + 1) % len(self.endpoints)
            # Where nothing listens at all, waiting would only hide it.
            if not was_connected or loop.time() + _ROUND_PAUSE_SECONDS >= deadline:
                raise failure
            await asyncio.sleep(_ROUND_PAUSE_SECONDS)

    async def _attempt(self, endpoint: URL, request: _Request, deadline: float) -> _Answer:
        """Send ``request`` once; a node that gets it is told how long it may take."""
        if self._session is None:
            raise RuntimeError("the client is not open: use it as an async context manager")
        seconds = max(0.001, deadline - asyncio.get_running_loop().time())
        # Built as it is to be sent: yarl must neither decode nor fold anything of a key.
        url = URL(f"{endpoint.origin()}{request.target(seconds)}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=seconds + _ANSWER_SECONDS, sock_connect=seconds)
        try:
            async with self._session.request(
                request.method,
                url,
                headers=request.headers,
                data=_sendable(request.body),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return _Answer(response.status, response.headers.copy(), await response.read())
        except aiohttp.ConnectionTimeoutError as error:
            raise _NotSentError(f"{endpoint.origin()}: connecting timed out") from error
        except TimeoutError as error:
            raise _InterruptedError("the answer did not come in time") from error
        except aiohttp.ClientError as error:
            raise _InterruptedError(str(error)) from error


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """``body`` as aiohttp wants it: above 1 MiB as a file, which it writes in pieces."""
    return io.BytesIO(body) if body is not None and len(body) > 1 << 20 else body


def parse_endpoint(text: str) -> URL:
    """A node's base URL from "http://host:port" or "host:port"; ValueError if it is neither."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
        raise ValueError(f"{text!r} is not an endpoint such as http://127.0.0.1:7400")
    return url


def key_path(key: bytes) -> str:
    """The path of a key: readable where it survives URL libraries and proxies, else base64url."""
    segments = key.split(b"/")
    if b"" in segments or b"." in segments or b".." in segments:
        return "/v1/k/" + base64.urlsafe_b64encode(key).rstrip(b"=").decode("ascii")
    return "/v1/kv/" + quote_from_bytes(key, safe="/")


def _bytes(text: str, encoding: str) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def _conditions(if_match: int | None, *, create_only: bool = False) -> dict[str, str]:
    headers = {}
    if if_match is not None:
        headers["If-Match"] = f'"{if_match}"'
    if create_only:
        headers["If-None-Match"] = "*"
    return headers


def _can_retry(request: _Request, answer: _Answer) -> bool:
    if answer.status < 429:
        return False
    problem = answer.problem()
    if problem is None:  # a proxy's error page says nothing about a write
        return not request.is_write
    return problem.retryable and (not request.is_write or problem.outcome == "not_committed")


def _failure(answer: _Answer, *, is_write: bool) -> ClientError:
    problem = answer.problem()
    if problem is None:
        detail = f"an answer with status {answer.status} came from no RaftKV node"
        if is_write:
            return OutcomeUnknownError(_unknown(detail))
        return RequestFailedError(detail, status=answer.status, code="foreign_answer")
    if problem.outcome == "unknown" and is_write:
        return OutcomeUnknownError(_unknown(problem.detail))
    if answer.status == 412:
        tag = answer.headers.get("ETag")
        mod_revision = None if tag is None else int(tag.strip('"').removesuffix("-j"))
        return ConditionFailedError(problem.detail, mod_revision=mod_revision)
    return RequestFailedError(problem.detail, status=answer.status, code=problem.code)


def _unknown(reason: str) -> str:
    return f"the write may or may not have taken effect: {reason}"


def _decode(
    answer: _Answer, shape: type[Shape], good: tuple[int, ...], *, is_write: bool = False
) -> Shape:
    if answer.status in good:
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # some other server's idea of success
    raise _failure(answer, is_write=is_write)
