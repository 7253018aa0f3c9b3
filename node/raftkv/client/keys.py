"""Calls on single keys."""

from typing import Literal

import msgspec

from raftkv.client.calls import Caller
from raftkv.client.model import Change, Consistency, Deleted, Fence, Item, Written
from raftkv.client.transport import Request
from raftkv.client.wire import (
    Answer,
    CounterBody,
    DeletedBody,
    WrittenBody,
    decode,
    duration,
    failure,
    item_of,
    key_path,
    prev_item,
)

IfMatch = int | Literal["*"]


def read_query(
    consistency: Consistency,
    max_stale_seconds: float | None,
    min_revision: int,
    revision: int,
) -> dict[str, str]:
    """The parameters that every read takes."""
    query: dict[str, str] = {"consistency": consistency}
    if max_stale_seconds is not None:
        query["max_stale"] = duration(max_stale_seconds)
    if min_revision:
        query["min_revision"] = str(min_revision)
    if revision:
        query["revision"] = str(revision)
    return query


class WriteOptions(msgspec.Struct, frozen=True):
    """When a write happens, and what it answers."""

    if_match: IfMatch | None = None
    create_only: bool = False
    prev: bool = False
    ttl_seconds: float | None = None
    lease: str | None = None

    def headers(self) -> dict[str, str]:
        """The conditions."""
        headers = {}
        if self.if_match is not None:
            headers["If-Match"] = "*" if self.if_match == "*" else f'"{self.if_match}"'
        if self.create_only:
            headers["If-None-Match"] = "*"
        return headers

    def query(self) -> dict[str, str]:
        """Everything else."""
        query = {}
        if self.prev:
            query["prev"] = "true"
        if self.ttl_seconds is not None:
            query["ttl"] = duration(self.ttl_seconds)
        if self.lease is not None:
            query["lease"] = self.lease
        return query


class KeyCalls(Caller):
    """Read and write one key.

    All writes take ``if_match`` (only if the key is at this mod revision, or exists: ``"*"``),
    ``fence`` (only while that lock is held) and ``idempotency_key`` (1 to 128 visible ASCII bytes:
    the same call under the same key happens once, also from another process; default: a new one).
    A condition that does not hold is `ConditionFailedError`, and nothing has changed.
    """

    async def get(
        self,
        key: bytes,
        *,
        consistency: Consistency = "linearizable",
        max_stale_seconds: float | None = None,
        min_revision: int = 0,
        revision: int = 0,
    ) -> Item | None:
        """The item under ``key``, or None.

        Args:
            key: 1 to 511 bytes.
            consistency: "linearizable" sees every write that was answered before; "bounded" may
                be up to ``max_stale_seconds`` behind; "local" is whatever the node has.
            max_stale_seconds: for "bounded"; the node's default if not given.
            min_revision: wait until the node has this revision.
            revision: as the key was then; 0 is now. `CompactedError` if that is forgotten.
        """
        query = read_query(consistency, max_stale_seconds, min_revision, revision)
        answer = await self._read(Request("GET", key_path(key), query, has_deadline=True))
        return _item(key, answer)

    async def wait_for_change(
        self, key: bytes, *, after: int, wait_seconds: float = 30.0
    ) -> Change | None:
        """The next change of ``key`` after revision ``after``; None if the wait is over first.

        For one key now and then; `watch` follows many without missing any change in between.
        """
        query = {"after": str(after), "wait": duration(wait_seconds)}
        request = Request("GET", key_path(key), query, wait_seconds=wait_seconds)
        answer = await self._read(request)
        if answer.status == 204:
            return None
        item = _item(key, answer)
        return Change(item, answer.revision() if item is None else item.mod_revision)

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        if_match: IfMatch | None = None,
        create_only: bool = False,
        prev: bool = False,
        ttl_seconds: float | None = None,
        lease: str | None = None,
        fence: Fence | None = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Store ``value`` under ``key``.

        Args:
            key: 1 to 511 bytes.
            value: up to 1 MiB by default (``--max-value-bytes`` of the nodes).
            if_match: only at this mod revision, or if it exists at all ("*").
            create_only: only if the key is absent.
            prev: also return the item as it was before.
            ttl_seconds: the key vanishes after this time, unless it is stored again.
            lease: the key vanishes with this lease (the id of `grant_lease`).
            fence: only while this lock is held.
            idempotency_key: see the class.
        """
        options = WriteOptions(if_match, create_only, prev, ttl_seconds, lease)
        request = Request(
            "PUT", key_path(key), options.query(), options.headers(), value, has_deadline=True
        )
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        return _written(answer)

    async def append(
        self,
        key: bytes,
        suffix: bytes,
        *,
        if_match: IfMatch | None = None,
        prev: bool = False,
        fence: Fence | None = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Append ``suffix`` to the value, creating the key if it is absent."""
        options = WriteOptions(if_match, prev=prev)
        request = Request(
            "POST",
            key_path(key),
            {"op": "append"} | options.query(),
            options.headers(),
            suffix,
            has_deadline=True,
        )
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        return _written(answer)

    async def increment(
        self,
        key: bytes,
        by: int = 1,
        *,
        if_match: IfMatch | None = None,
        fence: Fence | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Add ``by`` to the decimal number under ``key`` (0 if it is absent); the sum."""
        request = Request(
            "POST",
            key_path(key),
            {"op": "increment", "by": str(by)},
            WriteOptions(if_match).headers(),
            has_deadline=True,
        )
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        return int(decode(answer, CounterBody, is_write=True).value)

    async def delete(
        self,
        key: bytes,
        *,
        if_match: IfMatch | None = None,
        prev: bool = False,
        fence: Fence | None = None,
        idempotency_key: str | None = None,
    ) -> Deleted:
        """Remove ``key``; removing an absent one is no error."""
        options = WriteOptions(if_match, prev=prev)
        request = Request(
            "DELETE", key_path(key), options.query(), options.headers(), has_deadline=True
        )
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        body = decode(answer, DeletedBody, is_write=True)
        return Deleted(body.deleted, body.revision, prev_item(body.prev, body.revision))


def _item(key: bytes, answer: Answer) -> Item | None:
    problem = answer.problem() if answer.status == 404 else None
    if problem is not None and problem.code == "key_not_found":
        return None
    if answer.status != 200:
        raise failure(answer, is_write=False)
    try:
        return item_of(key, answer)
    except (KeyError, ValueError):  # some other server's idea of success
        raise failure(answer, is_write=False) from None


def _written(answer: Answer) -> Written:
    body = decode(answer, WrittenBody, is_write=True)
    return Written(body.revision, body.version, prev_item(body.prev, body.revision))
