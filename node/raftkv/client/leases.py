"""Leases: keys that vanish together, when nobody keeps them alive."""

import asyncio
import sys
from contextlib import suppress

import msgspec

from raftkv.client.calls import Caller
from raftkv.client.errors import ClientError, LeaseLostError, NotFoundError
from raftkv.client.keepalive import KeptAlive
from raftkv.client.model import LeaseInfo
from raftkv.client.transport import Request
from raftkv.client.wire import decode, duration, parse_duration, segment, to_bytes

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override


class _KeyBody(msgspec.Struct, frozen=True):
    key: str
    key_encoding: str = "utf-8"


class _LeaseBody(msgspec.Struct, frozen=True):
    id: str
    ttl: str
    remaining: str | None = None
    keys: tuple[_KeyBody, ...] = ()

    def info(self) -> LeaseInfo:
        remaining = None if self.remaining is None else parse_duration(self.remaining)
        keys = tuple(to_bytes(each.key, each.key_encoding) for each in self.keys)
        return LeaseInfo(self.id, parse_duration(self.ttl), remaining, keys)


class _LeasesBody(msgspec.Struct, frozen=True):
    leases: tuple[_LeaseBody, ...]
    next_cursor: str | None = None


class Lease(KeptAlive):
    """A lease that is kept alive in the background: ``async with client.lease(10) as lease``.

    Leaving the block revokes it, and its keys vanish. If it is lost, the block is cancelled and
    ends with `LeaseLostError`; its keys are gone then, or will be.
    """

    def __init__(self, calls: "LeaseCalls", ttl_seconds: float, *, cancel_on_loss: bool) -> None:
        """Made by `Client.lease`."""
        super().__init__("the lease")
        self._calls = calls
        self._wanted_seconds = ttl_seconds
        self._cancel_on_loss = cancel_on_loss
        self.id = ""

    @override
    async def _acquire(self) -> None:
        granted_at = asyncio.get_running_loop().time()
        granted = await self._calls.grant_lease(self._wanted_seconds)
        self.id = granted.id
        self._keep(
            lambda: self._calls.keep_lease_alive(granted.id),
            ttl_seconds=granted.ttl_seconds,
            granted_at=granted_at,
            cancels=self._cancel_on_loss,
            error=LeaseLostError,
        )

    @override
    async def _release(self) -> None:
        with suppress(ClientError):  # it ends by itself
            await self._calls.revoke_lease(self.id)


class LeaseCalls(Caller):
    """Grant, renew and revoke leases."""

    def lease(self, ttl_seconds: float, *, cancel_on_loss: bool = True) -> Lease:
        """A lease that lives as long as the block it is used in, and ``ttl_seconds`` if we die."""
        return Lease(self, ttl_seconds, cancel_on_loss=cancel_on_loss)

    async def grant_lease(
        self, ttl_seconds: float, *, idempotency_key: str | None = None
    ) -> LeaseInfo:
        """A new lease; it ends after ``ttl_seconds`` unless it is kept alive."""
        body = msgspec.json.encode({"ttl": duration(ttl_seconds)})
        request = Request("POST", "/v1/leases", body=body, has_deadline=True)
        answer = await self._write(request, idempotency_key=idempotency_key)
        return decode(answer, _LeaseBody, is_write=True).info()

    async def keep_lease_alive(self, lease: str) -> LeaseInfo:
        """Begin the life of a lease anew; `NotFoundError` if it has ended."""
        path = f"/v1/leases/{segment(lease)}/keepalive"
        # Doing it twice is no harm, so it goes without a key.
        answer = await self._transport.call(
            Request("POST", path, has_deadline=True, to_leader=True)
        )
        return decode(answer, _LeaseBody, is_write=True).info()

    async def revoke_lease(self, lease: str) -> None:
        """End a lease now: its keys vanish, at one revision; `NotFoundError` if it had ended."""
        request = Request("DELETE", f"/v1/leases/{segment(lease)}", has_deadline=True)
        answer = await self._write(request)
        decode(answer, dict[str, object], is_write=True)

    async def get_lease(self, lease: str) -> LeaseInfo | None:
        """A lease with its keys, or None."""
        path = f"/v1/leases/{segment(lease)}"
        answer = await self._read(Request("GET", path, has_deadline=True))
        try:
            return decode(answer, _LeaseBody).info()
        except NotFoundError:
            return None

    async def list_leases(self) -> list[LeaseInfo]:
        """All leases, in the order in which they were granted."""
        found: list[LeaseInfo] = []
        query: dict[str, str] = {}
        while True:
            answer = await self._read(Request("GET", "/v1/leases", query, has_deadline=True))
            page = decode(answer, _LeasesBody)
            found += (each.info() for each in page.leases)
            if page.next_cursor is None:
                return found
            query = {"cursor": segment(page.next_cursor)}
