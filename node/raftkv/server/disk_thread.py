"""The threads that wait for the disk, one for each lane (node design, rule 26).

Owned by the driver. Each performs submissions one at a time, in order; each completion is handed
back to the event loop. A thread makes only single long calls: it does no work of its own between
them, so the interpreter lock comes back to the loop within a switch interval.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol

from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.storage.disk import DiskError, DiskOps, DiskResult, Fdatasync, Lane

JOIN_SECONDS_MAX: Final = 2.0


class BlockingDisk(Protocol):
    """`raftkv.storage.os_disk.OsDisk`, as far as the thread needs it."""

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        """Perform ``ops`` in order, blocking; raises `DiskError` for the first that fails."""
        ...


class DiskThread:
    """Performs disk submissions off the loop. Methods are called on the loop's thread."""

    def __init__(
        self,
        disk: BlockingDisk,
        done: Callable[[DiskDone], None],
        synced: Callable[[float], None],
        name: str = "disk",
    ) -> None:
        """Hand completions to ``done`` and the seconds of durable writes to ``synced``.

        Both are called on the loop's thread. ``name`` is the thread's.
        """
        self._disk = disk
        self._done = done
        self._synced = synced
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[SubmitDisk | None] = SimpleQueue()
        # Submission number -> when it was handed in (loop time); the first one is the oldest.
        self._in_flight: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, submission: SubmitDisk) -> None:
        """Perform the submission's operations; its completion is handed to ``done``."""
        self._in_flight[submission.submission] = self._loop.time()
        self._queue.put(submission)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._in_flight

    def oldest_age_seconds(self) -> float:
        """For how long the oldest submission has been in flight; 0 if none is."""
        for submitted_at in self._in_flight.values():
            return self._loop.time() - submitted_at
        return 0.0

    def close(self) -> None:
        """End the thread after what is in flight; one that hangs in the kernel is left behind."""
        self._queue.put(None)
        self._thread.join(JOIN_SECONDS_MAX)

    def _run(self) -> None:
        while (submission := self._queue.get()) is not None:
            started_at = time.perf_counter()
            try:
                results: list[DiskResult] | DiskError = self._disk.perform(submission.ops)
            except DiskError as error:
                results = error
            seconds = time.perf_counter() - started_at
            try:
                self._loop.call_soon_threadsafe(self._finish, submission, results, seconds)
            except RuntimeError:  # the loop was closed: the process is ending
                return

    def _finish(
        self, submission: SubmitDisk, results: list[DiskResult] | DiskError, seconds: float
    ) -> None:
        del self._in_flight[submission.submission]
        if any(type(op) is Fdatasync for op in submission.ops):
            self._synced(seconds)
        self._done(DiskDone(submission.submission, results))


class DiskThreads:
    """A `DiskThread` for each lane."""

    def __init__(
        self,
        disk: BlockingDisk,
        done: Callable[[DiskDone], None],
        synced: Callable[[float], None],
    ) -> None:
        """See `DiskThread`; ``synced`` hears only of the lane that requests wait for."""
        self._lanes = {
            Lane.WAL: DiskThread(disk, done, synced, "disk"),
            Lane.BULK: DiskThread(disk, done, lambda _: None, "disk-bulk"),
        }

    def submit(self, submission: SubmitDisk) -> None:
        """Perform the submission's operations in its lane."""
        self._lanes[submission.lane].submit(submission)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return all(thread.is_idle for thread in self._lanes.values())

    def oldest_age_seconds(self, lane: Lane) -> float:
        """For how long the oldest submission of this lane has been in flight; 0 if none is."""
        return self._lanes[lane].oldest_age_seconds()

    def close(self) -> None:
        """See `DiskThread.close`."""
        for thread in self._lanes.values():
            thread.close()
