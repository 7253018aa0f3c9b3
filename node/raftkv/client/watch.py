"""Following the changes of keys, without losing one or seeing one twice.

A `Watch` reads the server's stream of events (docs/http-api.md). When the stream breaks, for
whatever reason, it goes on at another endpoint behind the last revision that it has handed out
completely: the server is told by Last-Event-ID, and what comes again is dropped.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from raftkv.client.calls import Caller
from raftkv.client.errors import CompactedError, EpochChangedError, UnreachableError
from raftkv.client.model import Event, Item
from raftkv.client.sse import SseEvent, SseParser
from raftkv.client.streams import BrokenStreamError, Streams, lines
from raftkv.client.transport import Request, Transport
from raftkv.client.wire import ItemBody, decode_line, query_bytes, to_bytes

# The server says something at least every 10 s.
_SILENCE_SECONDS: Final = 25.0
_EVENTS: Final = "text/event-stream"
# One line is one event: a value and the one before, 16 MiB each, in base64.
_LINE_BYTES_MAX: Final = 48 << 20
# A revision changes at most 10,000 keys (node design, rule 24).
_GROUP_EVENTS_MAX: Final = 10_000


class _EventBody(msgspec.Struct, frozen=True):
    key: str
    key_encoding: str = "utf-8"
    value: str | None = None
    value_encoding: str = "utf-8"
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: str = "0"
    prev: ItemBody | None = None


class _PositionBody(msgspec.Struct, frozen=True):
    revision: int = 0
    oldest_revision: int = 0


class Watch:
    """Use as ``async with client.watch(prefix=b"a/") as watch``, then iterate over it.

    From the moment the block is entered every change is seen. Iterating gives single events;
    `groups` gives the events of one revision together. Each is for one task at a time.
    """

    def __init__(
        self, transport: Transport, query: dict[str, str], *, from_revision: int | None
    ) -> None:
        """Made by `WatchCalls.watch`."""
        self._transport = transport
        self._query = query
        self._from_revision = from_revision
        # What has been handed out completely, as the server names it: "<epoch>:<revision>".
        self.last_event_id: str | None = None
        # The store's revision up to which nothing is missing.
        self.revision = from_revision or 0
        self._groups: AsyncIterator[tuple[Event, ...]] | None = None
        # Of a group that was begun with, and not handed out to its end.
        self._left: deque[Event] = deque()
        self._started = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Returns when the server has named the revision from which on all changes are seen."""
        self._groups = self._follow()
        # The first step runs up to the server's first word, which is never a change.
        assert await anext(self._groups) == ()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        groups, self._groups = self._groups, None
        if groups is not None:
            await groups.aclose()  # type: ignore[attr-defined]

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        while self._left:
            yield self._left.popleft()
        async for group in self.groups():
            self._left.extend(group)
            while self._left:
                yield self._left.popleft()

    async def groups(self) -> AsyncIterator[tuple[Event, ...]]:
        """The events of one revision together, which is how they happened.

        Raises:
            CompactedError: the changes since the last one seen are no longer there.
            EpochChangedError: the store was restored from a backup.
        """
        if self._groups is None:
            raise RuntimeError("the watch is not open: use it as an async context manager")
        while self._groups is not None:
            groups = self._groups
            try:
                group = await anext(groups)
            except StopAsyncIteration:  # it has failed before, and said so
                return
            except asyncio.CancelledError:
                # That ends what follows, not the watch: it goes on behind the last group.
                if self._groups is groups:
                    self._groups = self._follow()
                raise
            if group:
                yield group

    async def _follow(self) -> AsyncIterator[tuple[Event, ...]]:
        """Groups without end; an empty one for the server's first word."""
        streams = Streams(
            self._transport, _EVENTS, silence_seconds=_SILENCE_SECONDS, is_endless=True
        )
        is_first = True
        why = "the stream ended"
        while True:
            request = Request("GET", "/v1/watch", self._query | self._start(), self._headers())
            try:
                async with streams.open(request) as response:
                    group: list[Event] = []
                    parser = SseParser()
                    async for line in lines(response.content.iter_any(), _LINE_BYTES_MAX):
                        event = parser.feed(line)
                        if event is None:
                            continue
                        complete = self._take(event, group)
                        streams.progressed()
                        if complete or (is_first and event.kind == "progress"):
                            is_first = False
                            yield complete
                        if event.kind == "bye":
                            break
            except BrokenStreamError as error:
                why = str(error)
            # Go on elsewhere; the endpoint rests, so that a broken one is not asked in a circle.
            streams.leave(UnreachableError(f"no events came: {why}"))

    def _start(self) -> dict[str, str]:
        if self.last_event_id is not None or self._from_revision is None:
            return {}
        return {"from": str(self._from_revision)}

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": _EVENTS}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
        return headers

    def _take(self, event: SseEvent, group: list[Event]) -> tuple[Event, ...]:
        """Add ``event`` to its group; the whole group when it was the last of its revision."""
        match event.kind:
            case "put" | "delete":
                group.append(_event(event.kind, event))
                if len(group) > _GROUP_EVENTS_MAX:
                    raise BrokenStreamError("a revision with too many events")
            case "compacted":
                body = decode_line(event.data or b"{}", _PositionBody)
                oldest = body.oldest_revision
                raise CompactedError("the changes are no longer kept", oldest_revision=oldest)
            case _:
                pass  # progress and bye carry nothing but their id
        if event.id is None:
            return ()
        complete = tuple(group)
        group.clear()
        return complete if self._advance(event.id) else ()

    def _advance(self, event_id: str) -> bool:
        """Note that everything up to ``event_id`` is seen; False if it was before."""
        epoch, _, number = event_id.rpartition(":")
        if not number.isascii() or not number.isdigit():
            raise BrokenStreamError(f"an event id that is none: {event_id!r}")
        if self.last_event_id is not None and self.last_event_id.rpartition(":")[0] != epoch:
            raise EpochChangedError("the store was restored from a backup since")
        is_new = int(number) > self.revision or self.last_event_id is None
        self.last_event_id = event_id if is_new else self.last_event_id
        self.revision = max(self.revision, int(number))
        return is_new


class WatchCalls(Caller):
    """Follow changes."""

    def watch(
        self,
        *,
        key: bytes | None = None,
        prefix: bytes | None = None,
        from_revision: int | None = None,
        prev: bool = False,
    ) -> Watch:
        """Follow ``key``, or all keys that begin with ``prefix`` (``b""``: every key).

        Args:
            key: one key.
            prefix: or all with this prefix.
            from_revision: begin behind this revision; None: with what happens from now on.
            prev: events also carry the item as it was before.
        """
        if (key is None) == (prefix is None):
            raise ValueError("a watch follows either a key or a prefix")
        query = (
            {"key": query_bytes(key)} if key is not None else {"prefix": query_bytes(prefix or b"")}
        )
        if prev:
            query["prev"] = "true"
        return Watch(self._transport, query, from_revision=from_revision)


def _event(kind: Literal["put", "delete"], event: SseEvent) -> Event:
    body = decode_line(event.data, _EventBody)
    key = to_bytes(body.key, body.key_encoding)
    prev = None if body.prev is None else body.prev.item(body.mod_revision)
    if kind == "delete":
        return Event("delete", key, None, body.mod_revision, prev)
    value = to_bytes(body.value or "", body.value_encoding)
    item = Item(
        key, value, body.create_revision, body.mod_revision, body.version, body.mod_revision,
        body.lease,
    )  # fmt: skip
    return Event("put", key, item, body.mod_revision, prev)
