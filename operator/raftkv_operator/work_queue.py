"""The queue between what happens and what is done: one task per cluster, wakes coalesced.

Fed by the watches, calls the reconciler. A cluster is never processed twice at once; any number of
wakes while a pass runs cause one more. Without a wake each cluster is looked at after a jittered
interval (rule 11).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from raftkv_operator.clusters import ClusterKey
from raftkv_operator.errors import OperatorError

logger = logging.getLogger(__name__)

COALESCE_SECONDS = 0.1
_BACKOFF_MIN_SECONDS = 1.0
_BACKOFF_MAX_SECONDS = 30.0

# One pass: when to look again in seconds, None for the usual resync.
Process = Callable[[ClusterKey], Awaitable[float | None]]


class WorkQueue:
    """Tasks by cluster. Must be used inside a running loop."""

    def __init__(
        self,
        process: Process,
        *,
        resync_seconds: float,
        on_error: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._process = process
        self._resync_seconds = resync_seconds
        self._on_error = on_error
        self._rng = rng
        self._wakes: dict[ClusterKey, asyncio.Event] = {}
        self._tasks: dict[ClusterKey, asyncio.Task[None]] = {}

    def wake(self, key: ClusterKey) -> None:
        """Have ``key`` processed soon."""
        if key not in self._tasks:
            self._wakes[key] = asyncio.Event()
            self._tasks[key] = asyncio.create_task(
                self._run(key), name=f"{key.namespace}/{key.name}"
            )
        self._wakes[key].set()

    def remove(self, key: ClusterKey) -> None:
        """Stop processing ``key``; a pass that runs is broken off."""
        self._wakes.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all tasks and wait for them."""
        tasks = list(self._tasks.values())
        for key in list(self._tasks):
            self.remove(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: ClusterKey) -> None:
        wake = self._wakes[key]
        failures = 0
        while True:
            wake.clear()
            try:
                delay = await self._process(key)
                failures = 0
            except OperatorError as error:
                logger.warning("%s/%s: %s", *key, error)
                delay = self._backoff_seconds(failures)
                failures += 1
                self._on_error()
            except Exception:  # a bug met by one cluster must not stop the others
                logger.exception("%s/%s: this is a bug in the operator", *key)
                delay = self._backoff_seconds(failures)
                failures += 1
                self._on_error()
            if delay is None:
                delay = self._resync_seconds * self._rng.uniform(0.8, 1.2)
            try:
                async with asyncio.timeout(delay):
                    await wake.wait()
                    # A change rarely comes alone: a pod's start is a dozen of them.
                    await asyncio.sleep(COALESCE_SECONDS)
            except TimeoutError:
                pass

    def _backoff_seconds(self, failures: int) -> float:
        ceiling = min(_BACKOFF_MAX_SECONDS, _BACKOFF_MIN_SECONDS * (1 << min(failures, 10)))
        return ceiling * self._rng.uniform(0.5, 1.0)
