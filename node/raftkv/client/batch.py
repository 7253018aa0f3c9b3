"""Many writes in few requests: puts and deletes are gathered into transactions."""

from types import TracebackType
from typing import Final, Self

from raftkv.client.model import Fence
from raftkv.client.txn import OPS_MAX, Op, TxnCalls, op

# Of keys and values in one transaction, so that it stays far below what a node takes.
_BYTES_MAX: Final = 1 << 20


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


class BatchCalls(TxnCalls):
    """Gathered writes."""

    def batch(self, *, fence: Fence | None = None) -> Batch:
        """Gather puts and deletes into transactions of 128."""
        return Batch(self, fence=fence)
