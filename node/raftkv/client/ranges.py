"""Calls on ranges of keys."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from raftkv.client.calls import Caller
from raftkv.client.keys import read_query
from raftkv.client.model import Consistency, Deleted, Fence, Item, Page
from raftkv.client.streams import BrokenStreamError, Streams, lines
from raftkv.client.transport import Request
from raftkv.client.wire import (
    CountBody,
    DeletedBody,
    ItemBody,
    PageBody,
    decode,
    decode_line,
    query_bytes,
)

# A line holds one item: a value of 16 MiB in base64, and room for the key and the names.
_LINE_BYTES_MAX: Final = 24 << 20
_SILENCE_SECONDS: Final = 30.0
_LINES: Final = "application/x-ndjson"


class RangeCalls(Caller):
    """Read and remove the keys of a range.

    A range is the keys that begin with ``prefix``, from ``start`` on and below ``end`` (both may be
    left open); keys are ordered bytewise.
    """

    async def list(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        cursor: str | None = None,
        revision: int = 0,
        min_revision: int = 0,
        delimiter: bytes = b"",
        is_descending: bool = False,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        max_stale_seconds: float | None = None,
    ) -> Page:
        """A page of a range, at one revision (0: now).

        For the next page pass its ``next_cursor`` with the same other arguments; `range` does
        that by itself. Keys that hold ``delimiter`` behind the prefix are given once, as far as
        the delimiter, in ``prefixes``.
        """
        query = {"limit": str(limit)}
        query |= _range_query(prefix, start, end)
        query |= read_query(consistency, max_stale_seconds, min_revision, revision)
        if delimiter:
            query["delimiter"] = query_bytes(delimiter)
        if cursor is not None:
            query["cursor"] = query_bytes(cursor.encode())
        if is_descending:
            query["order"] = "desc"
        if keys_only:
            query["keys_only"] = "true"
        answer = await self._read(Request("GET", "/v1/kv", query, has_deadline=True))
        body = decode(answer, PageBody)
        return Page(
            tuple(each.item(body.revision) for each in body.items),
            tuple(each.data() for each in body.prefixes),
            body.revision,
            body.next_cursor,
        )

    async def range(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        page_size: int = 1000,
        revision: int = 0,
        is_descending: bool = False,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
    ) -> AsyncIterator[Item]:
        """All items of a range as they were at one moment, asked for page by page.

        Pages may come from different nodes; they still show one revision.
        """
        cursor = None
        while True:
            page = await self.list(
                prefix,
                start=start,
                end=end,
                limit=page_size,
                cursor=cursor,
                revision=revision,
                is_descending=is_descending,
                keys_only=keys_only,
                consistency=consistency,
            )
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def count(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        revision: int = 0,
        consistency: Consistency = "linearizable",
    ) -> int:
        """How many keys a range holds, without any limit."""
        query = _range_query(prefix, start, end) | {"count_only": "true"}
        query |= read_query(consistency, None, 0, revision)
        answer = await self._read(Request("GET", "/v1/kv", query, has_deadline=True))
        return decode(answer, CountBody).count

    async def stream(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        revision: int = 0,
        keys_only: bool = False,
    ) -> AsyncIterator[Item]:
        """All items of a range as they were at one moment, in one answer (NDJSON).

        The fastest way through many keys. When the connection breaks it goes on behind the last
        item, at the same revision, on another endpoint.

        Raises:
            UnreachableError: no endpoint could go on for the time that calls may take.
        """
        streams = Streams(self._transport, _LINES, silence_seconds=_SILENCE_SECONDS)
        headers = {"Accept": _LINES}
        while True:
            query = _range_query(prefix, start, end)
            query |= read_query("linearizable", None, 0, revision)
            if keys_only:
                query["keys_only"] = "true"
            request = Request("GET", "/v1/kv", query, headers, has_deadline=True)
            with suppress(BrokenStreamError):
                async with streams.open(request) as response:
                    revision = revision or int(response.headers.get("X-RaftKV-Revision", "0"))
                    async for line in lines(response.content.iter_any(), _LINE_BYTES_MAX):
                        streams.progressed()
                        item = decode_line(line, ItemBody).item(revision)
                        start = item.key + b"\x00"
                        yield item
                return

    async def delete_range(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        all_keys: bool = False,
        fence: Fence | None = None,
        idempotency_key: str | None = None,
    ) -> Deleted:
        """Remove all keys of a range at one revision: all or none.

        At most 10,000 keys (`RequestFailedError` with code "too_many_keys"). A range without a
        prefix that is open at an end needs ``all_keys``.
        """
        query = _range_query(prefix, start, end)
        if all_keys:
            query["all"] = "true"
        request = Request("DELETE", "/v1/kv", query, has_deadline=True)
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        body = decode(answer, DeletedBody, is_write=True)
        return Deleted(body.deleted, body.revision)

    async def delete_prefix(self, prefix: bytes) -> Deleted:
        """Remove the keys that begin with ``prefix`` (not empty), all or none."""
        return await self.delete_range(prefix)


def _range_query(prefix: bytes, start: bytes, end: bytes) -> dict[str, str]:
    named = {"prefix": prefix, "start": start, "end": end}
    return {name: query_bytes(data) for name, data in named.items() if data}
