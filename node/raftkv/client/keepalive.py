"""Keeping a lease or a lock alive, and stopping the work that needs it when it is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from raftkv.client.errors import (
    ClientError,
    LeaseLostError,
    RequestFailedError,
)

# Three tries in the life of a lease.
_TRIES: Final = 3


class KeptAlive:
    """Renews something until the block is left; cancels the block when it is lost.

    It counts as lost when a node says so, or when the last renewal that was answered was *sent*
    longer ago than the lease lives: nodes count from later, so they have not ended it before.
    """

    def __init__(self, what: str) -> None:
        """``what`` names it in errors."""
        self._what = what
        self._ttl_seconds = 0.0
        self._renewed_at = 0.0  # when the last good renewal was sent
        self._renewer: asyncio.Task[None] | None = None
        self._user: asyncio.Task[object] | None = None
        self._cancels = True
        self._loss: LeaseLostError | None = None
        # Set when it is lost, for who does not want to be cancelled.
        self.lost = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be gone."""
        return self.lost.is_set()

    def _keep(
        self,
        renew: Callable[[], Awaitable[object]],
        *,
        ttl_seconds: float,
        granted_at: float,
        cancels: bool,
        error: type[LeaseLostError],
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._renewed_at = granted_at
        self._cancels = cancels
        self._user = asyncio.current_task()
        self._renewer = asyncio.create_task(self._renew_forever(renew, error))

    async def _renew_forever(
        self, renew: Callable[[], Awaitable[object]], error_type: type[LeaseLostError]
    ) -> None:
        loop = asyncio.get_running_loop()
        pause = self._ttl_seconds / _TRIES
        reason = ""
        while True:
            ends_at = self._renewed_at + self._ttl_seconds
            left = ends_at - loop.time()
            if left <= 0:
                return self._lose(error_type(f"{self._what} could not be kept alive: {reason}"))
            await asyncio.sleep(min(pause, left))
            started_at = loop.time()
            try:
                async with asyncio.timeout_at(ends_at):
                    await renew()
                self._renewed_at = started_at
                pause = self._ttl_seconds / _TRIES
            except TimeoutError:
                reason = reason or "no node answered in time"
            except RequestFailedError as error:
                if error.status in (404, 412):
                    return self._lose(error_type(f"{self._what} has ended: {error}"))
                reason, pause = str(error), self._ttl_seconds / (4 * _TRIES)
            except ClientError as error:
                reason, pause = str(error), self._ttl_seconds / (4 * _TRIES)

    def _lose(self, loss: LeaseLostError) -> None:
        self._loss = loss
        self.lost.set()
        if self._cancels and self._user is not None:
            self._user.cancel()

    async def _stop(self) -> None:
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.wait([self._renewer])
            self._renewer = None

    async def _release(self) -> None:
        """Give it back; the caller has stopped renewing."""
        raise NotImplementedError

    async def _acquire(self) -> None:
        """Get it and begin to renew."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self._acquire()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()
        if self._loss is None:
            await self._release()
            return
        if self._cancels and self._user is not None:
            # Ours, unless somebody else cancelled too: then that goes on.
            still_cancelled = self._user.uncancel()
            if still_cancelled and error_type is asyncio.CancelledError:
                return
            if error_type is asyncio.CancelledError or error_type is None:
                raise self._loss from error
