"""Who waits for the disk: the kernel for the log's writes, a thread for all else (rule 26).

Owned by the driver. Each lane performs its submissions one at a time, in order; each completion is
handed back to the event loop. A thread makes only single long calls: it does no work of its own
between them, so the interpreter lock comes back to the loop within a switch interval.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol

from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.storage.disk import DiskError, DiskOps, DiskResult, Fdatasync, Lane, Pwrite
from raftkv.storage.kernel_sync import KernelSync

JOIN_SECONDS_MAX: Final = 2.0
# What is written on the loop goes to the page cache, 0.1 ms of copying; more is left to the thread.
LOOP_WRITE_BYTES_MAX: Final = 256 << 10


class BlockingDisk(Protocol):
    """`raftkv.storage.os_disk.OsDisk`, as far as the thread needs it."""

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        """Perform ``ops`` in order, blocking; raises `DiskError` for the first that fails."""
        ...

    def kernel_sync(self) -> KernelSync | None:
        """What the kernel offers instead of a thread that waits; None: nothing."""
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


class WalLane:
    """The log's lane: what is written for every request takes no thread, if the kernel waits.

    A frame and its fdatasync (`raftkv.storage.wal.Wal.append`) are written from the loop and made
    durable by the kernel; anything else goes to a `DiskThread`. Never both at once, and nothing
    overtakes: no segment is written to while its fdatasync runs (rule 5).
    """

    def __init__(
        self,
        disk: BlockingDisk,
        done: Callable[[DiskDone], None],
        synced: Callable[[float], None],
    ) -> None:
        """See `DiskThread`. Only the thread is used until `use_kernel`."""
        self._disk = disk
        self._done = done
        self._synced = synced
        self._loop = asyncio.get_running_loop()
        self._thread = DiskThread(disk, done, synced, "disk")
        self._kernel: KernelSync | None = None
        # What the kernel makes durable now, since when (loop time), and what came meanwhile.
        self._in_kernel: SubmitDisk | None = None
        self._in_kernel_since = 0.0
        self._waiting: deque[SubmitDisk] = deque()

    def use_kernel(self, kernel: KernelSync) -> None:
        """From now on let ``kernel`` wait for the disk."""
        self._kernel = kernel
        self._loop.add_reader(kernel.fileno, kernel.collect)

    def submit(self, submission: SubmitDisk) -> None:
        """Perform the submission's operations; its completion is handed to ``done``."""
        if self._in_kernel is not None:
            self._waiting.append(submission)
        elif not self._thread.is_idle or not self._begin_in_kernel(submission):
            self._thread.submit(submission)

    def _begin_in_kernel(self, submission: SubmitDisk) -> bool:
        match submission.ops:
            case (Pwrite(chunks=chunks) as write, Fdatasync() as sync):
                pass
            case _:
                return False
        kernel = self._kernel
        if kernel is None or sum(map(len, chunks)) > LOOP_WRITE_BYTES_MAX:
            return False
        began_at = time.perf_counter()

        def ended(error: DiskError | None) -> None:
            self._in_kernel = None
            self._synced(time.perf_counter() - began_at)
            self._done(DiskDone(submission.submission, [None, None] if error is None else error))
            while self._waiting and self._in_kernel is None:
                self.submit(self._waiting.popleft())

        try:
            self._disk.perform((write,))
        except DiskError as error:
            self._done(DiskDone(submission.submission, error))
            return True
        # One that the kernel does not take goes to the thread, which writes the same once more.
        if not kernel.start(sync, ended):
            return False
        self._in_kernel, self._in_kernel_since = submission, self._loop.time()
        return True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return self._in_kernel is None and self._thread.is_idle

    def oldest_age_seconds(self) -> float:
        """For how long the oldest submission has been in flight; 0 if none is."""
        if self._in_kernel is not None:
            return self._loop.time() - self._in_kernel_since
        return self._thread.oldest_age_seconds()

    def close(self) -> None:
        """See `DiskThread.close`."""
        if self._kernel is not None:
            self._loop.remove_reader(self._kernel.fileno)
        self._thread.close()


class DiskLanes:
    """All lanes: a `WalLane`, and a `DiskThread` for what takes long."""

    def __init__(
        self,
        disk: BlockingDisk,
        done: Callable[[DiskDone], None],
        synced: Callable[[float], None],
    ) -> None:
        """See `DiskThread`; ``synced`` hears only of the lane that requests wait for."""
        self._disk = disk
        self._wal = WalLane(disk, done, synced)
        self._lanes: dict[Lane, WalLane | DiskThread] = {
            Lane.WAL: self._wal,
            Lane.BULK: DiskThread(disk, done, lambda _: None, "disk-bulk"),
        }

    def start(self) -> bool:
        """Ask the disk what the kernel offers; whether it waits. Once the disk may be used."""
        kernel = self._disk.kernel_sync()
        if kernel is not None:
            self._wal.use_kernel(kernel)
        return kernel is not None

    def submit(self, submission: SubmitDisk) -> None:
        """Perform the submission's operations in its lane."""
        self._lanes[submission.lane].submit(submission)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return all(lane.is_idle for lane in self._lanes.values())

    def oldest_age_seconds(self, lane: Lane) -> float:
        """For how long the oldest submission of this lane has been in flight; 0 if none is."""
        return self._lanes[lane].oldest_age_seconds()

    def close(self) -> None:
        """See `DiskThread.close`."""
        for lane in self._lanes.values():
            lane.close()
