"""Locks with fencing tokens.

A lock alone does not protect anything: its holder may be paused, lose it, and go on writing. Only
a write that carries the fence (``fence=lock.fence``) is refused when the lock is lost.
"""

import asyncio
import os
import secrets
import sys
from contextlib import suppress
from typing import Final

import msgspec

from raftkv.client.calls import Caller
from raftkv.client.errors import (
    ClientError,
    ConditionFailedError,
    LockHeldError,
    LockLostError,
    NotFoundError,
)
from raftkv.client.keepalive import KeptAlive
from raftkv.client.model import Fence, LockInfo
from raftkv.client.transport import Request
from raftkv.client.wire import bytes_fields, decode, duration, parse_duration, segment, to_name

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# How long one request waits in the queue; the next one asks again under the same name.
_WAIT_SECONDS_MAX: Final = 30.0


class _OwnerBody(msgspec.Struct, frozen=True):
    owner: str = ""
    owner_encoding: str = "utf-8"

    def text(self) -> str:
        return to_name(self.owner, self.owner_encoding)


class _LockBody(_OwnerBody, frozen=True, kw_only=True):
    name: str
    name_encoding: str = "utf-8"
    token: int
    lease: str
    ttl: str
    remaining: str | None = None
    waiters: tuple[_OwnerBody, ...] = ()

    def info(self) -> LockInfo:
        return LockInfo(
            to_name(self.name, self.name_encoding),
            self.token,
            self.lease,
            parse_duration(self.ttl),
            self.text(),
            None if self.remaining is None else parse_duration(self.remaining),
            tuple(waiter.text() for waiter in self.waiters),
        )


class _LocksBody(msgspec.Struct, frozen=True):
    locks: tuple[_LockBody, ...]
    next_cursor: str | None = None


class Lock(KeptAlive):
    """A lock that is kept in the background: ``async with client.lock("jobs", 10) as lock``.

    Leaving the block releases it. If it is lost, the block is cancelled and ends with
    `LockLostError`. ``token`` grows with every holder; give ``fence`` to every write.
    """

    def __init__(
        self,
        calls: "LockCalls",
        name: str,
        ttl_seconds: float,
        *,
        wait_seconds: float | None,
        owner: str | None,
        cancel_on_loss: bool,
    ) -> None:
        """Made by `Client.lock`."""
        super().__init__(f"the lock {name!r}")
        self._calls = calls
        self._wanted_seconds = ttl_seconds
        self._wait_seconds = wait_seconds
        self._cancel_on_loss = cancel_on_loss
        self.name = name
        self.owner = owner or secrets.token_hex(8)
        self.token = 0

    @property
    def fence(self) -> Fence:
        """For the writes that the lock is to protect."""
        return Fence(self.name, self.token)

    @override
    async def _acquire(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = None if self._wait_seconds is None else loop.time() + self._wait_seconds
        held: LockInfo | None = None
        asked_at = loop.time()
        while held is None:
            left = _WAIT_SECONDS_MAX if give_up_at is None else max(0.0, give_up_at - loop.time())
            asked_at = loop.time()
            try:
                held = await self._calls.acquire_lock(
                    self.name,
                    self._wanted_seconds,
                    owner=self.owner,
                    wait_seconds=min(_WAIT_SECONDS_MAX, left),
                )
            except LockHeldError:
                if give_up_at is not None and loop.time() >= give_up_at - 0.001:
                    raise
        token = held.token
        self.token = token
        if loop.time() - asked_at > held.ttl_seconds / 4:
            # It was granted at some time while the request waited: only a renewal says when.
            asked_at = loop.time()
            try:
                await self._calls.keep_lock_alive(self.name, token)
            except (ConditionFailedError, NotFoundError) as error:
                raise LockLostError(f"the lock {self.name!r} ended at once: {error}") from None
        self._keep(
            lambda: self._calls.keep_lock_alive(self.name, token),
            ttl_seconds=held.ttl_seconds,
            granted_at=asked_at,
            cancels=self._cancel_on_loss,
            error=LockLostError,
        )

    @override
    async def _release(self) -> None:
        with suppress(ClientError):  # it ends by itself
            await self._calls.release_lock(self.name, self.token)


class LockCalls(Caller):
    """Take, renew and release locks."""

    def lock(
        self,
        name: str,
        ttl_seconds: float = 10.0,
        *,
        wait_seconds: float | None = None,
        owner: str | None = None,
        cancel_on_loss: bool = True,
    ) -> Lock:
        """A lock that is held as long as the block it is used in.

        Args:
            name: 1 to 511 bytes. Locks are apart from keys of the same name.
            ttl_seconds: how long others wait when this process dies.
            wait_seconds: for the holder before; `LockHeldError` then. None: for ever.
            owner: who asks, for people and for `list_locks`; the same owner gets the same lock
                again. Default: a random one.
            cancel_on_loss: cancel the block when the lock is lost; else look at ``lost``.
        """
        return Lock(
            self,
            name,
            ttl_seconds,
            wait_seconds=wait_seconds,
            owner=owner,
            cancel_on_loss=cancel_on_loss,
        )

    async def acquire_lock(
        self, name: str, ttl_seconds: float, *, owner: str, wait_seconds: float = 0.0
    ) -> LockInfo:
        """Take a lock without keeping it alive; the same ``owner`` gets the same token again.

        Raises:
            LockHeldError: another owner holds it, and the wait is over.
        """
        fields = {"ttl": duration(ttl_seconds)} | bytes_fields("owner", os.fsencode(owner))
        if wait_seconds > 0:
            fields["wait"] = duration(wait_seconds)
        request = Request(
            "POST",
            f"/v1/locks/{segment(name)}",
            body=msgspec.json.encode(fields),
            # The owner makes it repeatable, so it goes without a key.
            wait_seconds=wait_seconds,
            has_deadline=True,
            to_leader=True,
        )
        return decode(await self._transport.call(request), _LockBody, is_write=True).info()

    async def keep_lock_alive(self, name: str, token: int) -> LockInfo:
        """Begin its life anew; `ConditionFailedError` or `NotFoundError` if it is lost."""
        path = f"/v1/locks/{segment(name)}/keepalive"
        query = {"token": str(token)}
        request = Request("POST", path, query, has_deadline=True, to_leader=True)
        return decode(await self._transport.call(request), _LockBody, is_write=True).info()

    async def release_lock(self, name: str, token: int) -> None:
        """Give a lock back; `ConditionFailedError` if it is not held under ``token``."""
        request = Request(
            "DELETE", f"/v1/locks/{segment(name)}", {"token": str(token)}, has_deadline=True
        )
        decode(await self._write(request), dict[str, object], is_write=True)

    async def get_lock(self, name: str) -> LockInfo | None:
        """Who holds a lock, or None."""
        answer = await self._read(Request("GET", f"/v1/locks/{segment(name)}", has_deadline=True))
        try:
            return decode(answer, _LockBody).info()
        except NotFoundError:
            return None

    async def list_locks(self) -> list[LockInfo]:
        """All locks that are held, by name."""
        found: list[LockInfo] = []
        query: dict[str, str] = {}
        while True:
            answer = await self._read(Request("GET", "/v1/locks", query, has_deadline=True))
            page = decode(answer, _LocksBody)
            found += (each.info() for each in page.locks)
            if page.next_cursor is None:
                return found
            query = {"cursor": segment(page.next_cursor)}
