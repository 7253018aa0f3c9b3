"""Snapshot files that are open because somebody reads a backup of this node.

Owned by `raftkv.node.snapshots`, which makes the snapshot. Bounded in number, and closed when
nobody reads on. A backup has a number that is never used again, unlike that of an open file, so
that a reader who comes back late cannot get at another's.
"""

from collections.abc import Callable
from typing import Final

from raftkv.node.disk_tasks import DiskTasks, Refusal
from raftkv.node.events import (
    Answer,
    BackupEndRequest,
    BackupOpened,
    BackupPiece,
    BackupReadRequest,
    BackupRequest,
    SnapshotTaken,
)
from raftkv.node.messages import Failure, FailureCode, RequestId
from raftkv.storage.disk import Handle, Lane
from raftkv.storage.snapshots import close_snapshot, open_snapshot, read_chunk

BACKUPS_MAX: Final = 4  # open or about to be
IDLE_SECONDS: Final = 60.0
PIECE_BYTES_MAX: Final = 1 << 20


class Backups:
    """See the module docstring."""

    def __init__(
        self,
        disk: DiskTasks,
        clock: Callable[[], float],
        answer: Callable[[RequestId, Answer], None],
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._answer = answer
        self._count = 0  # with those whose snapshot is still being made
        # By number: the file, and when it was read last.
        self._open: dict[int, tuple[Handle, float]] = {}
        self._last_number = 0

    def admit(self, request: BackupRequest) -> bool:
        """Count a new one in; if there are too many, it is answered, and False returned."""
        if self._count >= BACKUPS_MAX:
            detail = f"{BACKUPS_MAX} backups of this node are being read already"
            self._answer(request.id, Failure(FailureCode.OVERLOADED, detail))
            return False
        self._count += 1
        return True

    def refuse(self, request: BackupRequest, failure: Failure) -> None:
        """There is no snapshot for one that was admitted."""
        self._count -= 1
        self._answer(request.id, failure)

    def open(self, request: BackupRequest, taken: SnapshotTaken) -> None:
        """The snapshot for one that was admitted is durable: open its file."""

        def opened(handle: Handle) -> None:
            self._last_number += 1
            self._open[self._last_number] = (handle, self._clock())
            self._answer(request.id, BackupOpened(taken, self._last_number))

        def refused(refusal: Refusal) -> None:
            self.refuse(request, Failure(FailureCode.REFUSED, str(refusal), "no_snapshot"))

        self._disk.start(open_snapshot(taken.name), opened, lane=Lane.BULK, refused=refused)

    def on_read(self, request: BackupReadRequest) -> None:
        """Read a piece."""
        if request.handle not in self._open:
            detail = f"the backup was not read for {IDLE_SECONDS:.0f} s"
            self._answer(request.id, Failure(FailureCode.DEADLINE, detail))
            return
        handle, _ = self._open[request.handle]
        self._open[request.handle] = (handle, self._clock())
        self._disk.start(
            read_chunk(handle, request.offset, min(request.size, PIECE_BYTES_MAX)),
            lambda data: self._answer(request.id, BackupPiece(data)),
            lane=Lane.BULK,
        )

    def on_end(self, request: BackupEndRequest) -> None:
        """Close it."""
        if request.handle in self._open:
            self._close(request.handle)

    def close_idle(self) -> None:
        """Close what nobody reads any more."""
        now = self._clock()
        for number, (_, read_at) in list(self._open.items()):
            if now - read_at > IDLE_SECONDS:
                self._close(number)

    def _close(self, number: int) -> None:
        handle, _ = self._open.pop(number)
        self._count -= 1
        self._disk.start(close_snapshot(handle), lambda _: None, lane=Lane.BULK)
