"""What all groups of calls stand on: an open transport, keys for writes, a known leader."""

import asyncio
import ssl as ssl_module
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec
from yarl import URL

from raftkv.client.errors import ClientError
from raftkv.client.model import Fence
from raftkv.client.transport import (
    InterruptedRequestError,
    NotSentError,
    Repeat,
    Request,
    Transport,
    new_key,
)
from raftkv.client.wire import Answer, decode, fence_header, parse_endpoint

_LOOK_FOR_LEADER_SECONDS: Final = 5.0
_LEADER_ANSWER_SECONDS: Final = 2.0


class _MemberBody(msgspec.Struct, frozen=True):
    id: str
    client_url: str


class _ClusterBody(msgspec.Struct, frozen=True):
    leader: str | None
    members: tuple[_MemberBody, ...]


class _StatusBody(msgspec.Struct, frozen=True):
    member_id: str


class Caller:
    """Opens and closes with ``async with``; the groups of calls derive from it."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        token: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        timeout_seconds: float = 5.0,
        read_your_writes: bool = False,
        retry_writes: bool = True,
        prefer_leader: bool = True,
        fail_fast: bool = False,
        cluster_id: str | None = None,
    ) -> None:
        """Talk to any of ``endpoints`` ("http://host:port" or "host:port").

        Args:
            endpoints: nodes, or an address that leads to some node. Any of them will do.
            token: sent as ``Authorization: Bearer``.
            ssl: for https endpoints, see `ssl_context`; None is the system's authorities.
            timeout_seconds: bounds every call with all its retries.
            read_your_writes: reads wait until their node has all that this client has seen, so
                that ``consistency="local"`` never goes back.
            retry_writes: give every write an Idempotency-Key, so that it can be sent again after
                any failure; else it is sent again only where it certainly was not committed.
            prefer_leader: find out who leads, and send writes there.
            fail_fast: give up when no endpoint can be connected to, rather than at the deadline.
            cluster_id: calls fail if the nodes belong to another cluster.

        Raises:
            ValueError: there is no endpoint, or one is not an address.
        """
        urls = tuple(parse_endpoint(endpoint) for endpoint in endpoints)
        if not urls:
            raise ValueError("a client needs at least one endpoint")
        if token is not None and not (token.isascii() and token.isprintable() and token):
            raise ValueError("a token is printable ASCII")
        self._transport = Transport(
            urls,
            timeout_seconds=timeout_seconds,
            token=token,
            ssl=ssl,
            cluster_id=cluster_id,
            fail_fast=fail_fast,
        )
        self._read_your_writes = read_your_writes
        self._prefer_leader = prefer_leader
        self._leader_search: asyncio.Task[None] | None = None
        self._next_search_at = 0.0
        self._retry_writes = retry_writes

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leader_search is not None:
            self._leader_search.cancel()
            with suppress(asyncio.CancelledError):
                await self._leader_search
        await self._transport.close()

    @property
    def endpoints(self) -> tuple[URL, ...]:
        """The configured ones."""
        return self._transport.urls

    @property
    def revision(self) -> int:
        """The highest revision of the store that any answer named; 0 before the first."""
        return self._transport.revision

    async def _read(self, request: Request) -> Answer:
        """Send a read, which waits for what this client has seen, if that was asked for."""
        if self._read_your_writes and self.revision and request.has_deadline:
            least = max(self.revision, int(request.query.get("min_revision", "0")))
            query = request.query | {"min_revision": str(least)}
            request = msgspec.structs.replace(request, query=query)
        return await self._transport.call(request)

    async def _write(
        self, request: Request, *, idempotency_key: str | None = None, fence: Fence | None = None
    ) -> Answer:
        """Send a write under a key of its own, so that it can be repeated without harm."""
        self._look_for_leader()
        headers = dict(request.headers)
        if fence is not None:
            headers["X-RaftKV-Fence"] = fence_header(fence)
        repeat = Repeat.NEVER
        if idempotency_key is not None or self._retry_writes:
            headers["Idempotency-Key"] = idempotency_key or new_key()
            repeat = Repeat.KEYED
        return await self._transport.call(
            msgspec.structs.replace(request, headers=headers, repeat=repeat, to_leader=True)
        )

    # ---- who leads --------------------------------------------------------------------------

    def _look_for_leader(self) -> None:
        """Start to find the leader if it is not known; a write never waits for that."""
        loop = asyncio.get_running_loop()
        is_known = self._transport.pool.leader is not None
        if not self._prefer_leader or is_known or loop.time() < self._next_search_at:
            return
        if self._leader_search is None or self._leader_search.done():
            self._next_search_at = loop.time() + _LOOK_FOR_LEADER_SECONDS
            self._leader_search = asyncio.create_task(self._find_leader())

    async def _find_leader(self) -> None:
        """Learn the leader's address, if it is one that this client can use.

        A member's address may be known inside a Kubernetes cluster only, so it counts when the
        leader itself answers there.
        """
        with suppress(ClientError, NotSentError, InterruptedRequestError, ValueError):
            answer = await self._transport.call(Request("GET", "/v1/cluster"))
            cluster = decode(answer, _ClusterBody)
            url = self._leader_url(cluster)
            if url is None:
                return
            status = Request("GET", "/v1/status")
            answer = await self._transport.once(url, status, _LEADER_ANSWER_SECONDS)
            if decode(answer, _StatusBody).member_id == cluster.leader:
                self._transport.pool.learned_leader(url)

    def _leader_url(self, cluster: _ClusterBody) -> URL | None:
        urls = {member.id: member.client_url for member in cluster.members}
        if cluster.leader is None or cluster.leader not in urls:
            return None
        url = parse_endpoint(urls[cluster.leader])
        # A token that is kept secret by TLS must not leave it.
        return url if url.scheme == self.endpoints[0].scheme else None

    async def _cluster_answer(self) -> Answer:
        """`/v1/cluster` as the leader sees it, else as any node does."""
        request = Request("GET", "/v1/cluster")
        answer = await self._transport.call(request)
        with suppress(ClientError, NotSentError, InterruptedRequestError, ValueError):
            url = self._leader_url(decode(answer, _ClusterBody))
            if url is not None:
                of_leader = await self._transport.once(url, request, _LEADER_ANSWER_SECONDS)
                decode(of_leader, _ClusterBody)
                return of_leader
        return answer
