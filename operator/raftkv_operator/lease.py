"""The Lease that lets one operator act at a time.

Run by `main`; asked by `execute` before every action. It keeps two operators from working against
each other; it is not what keeps the data safe, since a paused process may believe in an expired
Lease: that is done by the preconditions of the actions themselves (rule 6).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from raftkv_operator.errors import ConflictError, KubeError, NotFoundError
from raftkv_operator.kube import Kube
from raftkv_operator.objects import JsonObject, Kind

logger = logging.getLogger(__name__)

LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
LEASE_NAME = "raftkv-operator"
DURATION_SECONDS = 15
RETRY_SECONDS = 3.0
# Stop acting before the others may start: a renewal that is in flight must not count.
_MARGIN_SECONDS = 5.0


class Gate(Protocol):
    """Whether actions may be performed now."""

    @property
    def is_open(self) -> bool:
        """True while they may."""


class Lease:
    """A `Gate` that is open while this process holds the Lease."""

    def __init__(
        self, kube: Kube, *, namespace: str, identity: str, monotonic: Callable[[], float]
    ) -> None:
        """``identity`` names the pod: a restarted container takes its own Lease over at once."""
        self._kube = kube
        self._namespace = namespace
        self._identity = identity
        self._monotonic = monotonic
        self._held_until = float("-inf")
        # As this process wrote it last: renewed without another look, unless somebody changed it.
        self._own: JsonObject | None = None
        # Another holder's renewal as last seen, and when: its clock is not compared with ours.
        self._seen: tuple[object, float] = (None, float("-inf"))

    @property
    def is_open(self) -> bool:
        """True while the Lease is held."""
        return self._monotonic() < self._held_until

    async def run(self) -> None:
        """Take the Lease when it is free and renew it, until cancelled; then give it back."""
        try:
            while True:
                await self._take_or_renew()
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._release()

    async def _take_or_renew(self) -> None:
        was_open = self.is_open
        asked_at = self._monotonic()
        try:
            is_taken = await self.try_take()
        except KubeError as error:
            logger.warning("lease: %s", error)
            return
        if is_taken:
            self._held_until = asked_at + DURATION_SECONDS - _MARGIN_SECONDS
            if not was_open:
                logger.info("holding the lease as %s", self._identity)
        elif was_open:
            self._held_until = float("-inf")
            logger.warning("another operator holds the lease")

    async def try_take(self) -> bool:
        """Take or renew the Lease once; False while someone else holds it.

        Raises:
            KubeError: nobody knows.
        """
        own, self._own = self._own, None
        if own is not None:
            with suppress(NotFoundError):  # deleted: it is made anew
                if await self._write(self._kube.replace, own):
                    return True
        try:
            live = await self._kube.get(LEASE, self._namespace, LEASE_NAME)
        except NotFoundError:
            return await self._write(self._kube.create, {"metadata": {}})
        spec = live.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder not in (None, "", self._identity) and not self._is_expired(spec):
            return False
        return await self._write(self._kube.replace, live)

    def _is_expired(self, spec: JsonObject) -> bool:
        """Whether the holder was seen not to renew for the duration that it promised."""
        now = self._monotonic()
        renewal = (spec.get("holderIdentity"), spec.get("renewTime"))
        if renewal != self._seen[0]:
            self._seen = (renewal, now)
        duration_seconds = float(spec.get("leaseDurationSeconds", DURATION_SECONDS))
        return now - self._seen[1] > duration_seconds

    async def _write(
        self,
        write: Callable[[Kind, JsonObject], Awaitable[JsonObject]],
        live: JsonObject,
        holder: str | None = None,
    ) -> bool:
        spec = {
            "holderIdentity": self._identity if holder is None else holder,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        metadata = {**live["metadata"], "name": LEASE_NAME, "namespace": self._namespace}
        item = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": metadata,
            "spec": spec,
        }
        try:
            self._own = await write(LEASE, item)
        except ConflictError:
            return False  # someone was faster
        return True

    async def _release(self) -> None:
        """Let a successor start at once instead of after the duration."""
        if not self.is_open:
            return
        self._held_until = float("-inf")
        self._own = None
        try:
            live = await self._kube.get(LEASE, self._namespace, LEASE_NAME)
            if (live.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._write(self._kube.replace, live, holder="")
        except KubeError as error:
            logger.info("lease was not given back: %s", error)
