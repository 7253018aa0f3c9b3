"""Many writes in few requests: what is to be written is gathered into transactions.

A `Batch` is for one task that has much to store; a `Writer` for many tasks of which each has a
little, and waits for what came of its own.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from raftkv.client.errors import ClientError, RequestFailedError
from raftkv.client.model import Deleted, Fence, Written
from raftkv.client.txn import (
    OPS_MAX,
    CounterResult,
    DeleteResult,
    Op,
    OpResult,
    PutResult,
    TxnCalls,
    op,
)

# Of keys and values in one transaction, so that it stays far below what a node takes.
_BYTES_MAX: Final = 1 << 20
PENDING_MAX: Final = 4096
# Refusals that may be the fault of one operation: a bad or forbidden key, an absent lease, a value
# that is no counter, one that is too large.
_MAY_BE_OF_ONE: Final = frozenset({400, 403, 404, 409, 413})


class Batch:
    """Use as ``async with client.batch() as batch: await batch.put(key, value)``.

    Writes are sent 128 at a time, each 128 atomically, in the order in which they were given;
    leaving the block sends the rest. It is not one transaction: when a call fails, what was sent
    before stays, and what was gathered and not sent is dropped with an error. ``revision`` is
    that of the last transaction that was done.
    """

    def __init__(self, calls: TxnCalls, *, fence: Fence | None = None) -> None:
        """Made by `Client.batch`."""
        self._calls = calls
        self._fence = fence
        self._ops: list[Op] = []
        self._bytes = 0
        self.revision = 0

    async def put(self, key: bytes, value: bytes, *, lease: str | None = None) -> None:
        """Store ``value`` under ``key`` with this batch."""
        await self._add(op.put(key, value, lease=lease), len(key) + len(value))

    async def delete(self, key: bytes) -> None:
        """Remove ``key`` with this batch."""
        await self._add(op.delete(key), len(key))

    async def flush(self) -> None:
        """Send what was gathered, and wait until it is done."""
        if self._ops:
            ops, self._ops, self._bytes = self._ops, [], 0
            done = await self._calls.txn().then(*ops).commit(fence=self._fence)
            self.revision = done.revision

    async def _add(self, what: Op, size: int) -> None:
        if self._ops and self._bytes + size > _BYTES_MAX:
            await self.flush()
        self._ops.append(what)
        self._bytes += size
        if len(self._ops) == OPS_MAX:
            await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            await self.flush()


@dataclass
class _Waiting:
    """A write that somebody waits for."""

    what: Op
    size: int
    done: asyncio.Future[tuple[OpResult, int]]  # and the revision


class Writer:
    """Use as ``async with client.writer() as writer``, and call it from many tasks at once.

    While one transaction is under way, writes gather for the next: up to 128 of them and 1 MiB,
    without any delay for its own sake. They are done in the order in which they were called, those
    of one transaction at one revision. Each call returns or raises what came of its own write: when
    nodes refuse a transaction for what may be the fault of one write in it, nothing of it was done,
    and its writes are sent again one by one. An unknown outcome is unknown for all of them.

    Conditions are not taken: one that fails would undo its neighbours. Use `Client.put` with
    ``if_match``, or a transaction of your own.

    At most ``pending_max`` writes are held; further calls wait for room before anything else.
    Leaving the block waits for all that was called; leaving it with an error drops, as cancelled,
    what is not under way yet.
    """

    def __init__(
        self, calls: TxnCalls, *, fence: Fence | None = None, pending_max: int = PENDING_MAX
    ) -> None:
        """Made by `Client.writer`."""
        self._calls = calls
        self._fence = fence
        self._room = asyncio.Semaphore(pending_max)
        self._pending_max = pending_max
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False
        self._is_dropping = False

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        lease: str | None = None,
        ttl_seconds: float | None = None,
    ) -> Written:
        """Store ``value`` under ``key``."""
        what = op.put(key, value, lease=lease, ttl_seconds=ttl_seconds)
        return _written(await self._write(what, len(key) + len(value)))

    async def append(self, key: bytes, suffix: bytes) -> Written:
        """Append to the value, creating the key if it is absent."""
        return _written(await self._write(op.append(key, suffix), len(key) + len(suffix)))

    async def increment(self, key: bytes, by: int = 1) -> int:
        """Add to the decimal number under the key; the sum."""
        result, _ = await self._write(op.increment(key, by), len(key))
        assert isinstance(result, CounterResult)
        return result.value

    async def delete(self, key: bytes) -> Deleted:
        """Remove the key, if it is there."""
        result, revision = await self._write(op.delete(key), len(key))
        assert isinstance(result, DeleteResult)
        return Deleted(result.deleted, revision)

    async def _write(self, what: Op, size: int) -> tuple[OpResult, int]:
        if self._is_closed:
            raise RuntimeError("the writer is closed")
        async with self._room:
            if self._is_dropping:
                raise asyncio.CancelledError
            waiting = _Waiting(what, size, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            if self._sender is None:
                # It begins in the next turn of the loop, with all that is called in this one.
                self._sender = asyncio.create_task(self._send_all())
            return await waiting.done

    async def _send_all(self) -> None:
        group: list[_Waiting] = []
        try:
            while group := self._next_group():
                await self._send(group)
        except BaseException as error:  # cancelled with the loop, or a defect: nobody waits on
            for each in (*group, *self._waiting):
                if isinstance(error, Exception) and not each.done.done():
                    each.done.set_exception(error)
                each.done.cancel()
            self._waiting.clear()
            raise
        finally:
            self._sender = None

    def _next_group(self) -> list[_Waiting]:
        """What goes into the next transaction; who was cancelled meanwhile is left out."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < OPS_MAX:
            first = self._waiting[0]
            if first.done.done():
                self._waiting.popleft()
                continue
            size += first.size
            if group and size > _BYTES_MAX:
                break
            group.append(self._waiting.popleft())
        return group

    async def _send(self, group: list[_Waiting]) -> None:
        try:
            done = (
                await self._calls.txn()
                .then(*(each.what for each in group))
                .commit(fence=self._fence)
            )
        except RequestFailedError as error:
            if len(group) > 1 and error.status in _MAY_BE_OF_ONE:
                for each in group:
                    if not each.done.done():
                        await self._send([each])
            else:
                _fail(group, error)
        except ClientError as error:
            _fail(group, error)
        else:
            for each, result in zip(group, done.results, strict=True):
                if not each.done.done():
                    each.done.set_result((result, done.revision))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        if error_type is not None:
            self._is_dropping = True
            for each in self._waiting:
                each.done.cancel()
        # Room is given in the order of asking: once all of it is ours, every call has ended.
        for _ in range(self._pending_max):
            await self._room.acquire()


def _fail(group: list[_Waiting], error: ClientError) -> None:
    for each in group:
        if not each.done.done():
            each.done.set_exception(error)


def _written(done: tuple[OpResult, int]) -> Written:
    result, revision = done
    assert isinstance(result, PutResult)
    return Written(revision, result.version)


class BatchCalls(TxnCalls):
    """Gathered writes."""

    def batch(self, *, fence: Fence | None = None) -> Batch:
        """Gather puts and deletes into transactions of 128."""
        return Batch(self, fence=fence)

    def writer(self, *, fence: Fence | None = None, pending_max: int = PENDING_MAX) -> Writer:
        """Gather the writes of many tasks, each of which waits for its own."""
        return Writer(self, fence=fence, pending_max=pending_max)
