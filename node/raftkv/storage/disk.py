"""The disk as plain values: what may be asked of it, and how a caller waits for the answer.

All code that persists anything (WAL, identity, recovery, later snapshots) is written as a *disk
task*: a generator that yields operations and is resumed with their results. It never touches a
file itself, so that the same code runs on a real disk (`os_disk`), and on the simulated one that
loses power between any two operations. Rule 2 of the node design; import-linter forbids `os`
elsewhere.

A task yields a tuple of operations: they are performed in order, as one submission (one hand-off
to a disk thread). It is resumed with the list of their results; if one fails, the rest is not
performed and the task is resumed by throwing `DiskError` into it.
"""

from collections.abc import Generator, Sequence
from enum import IntEnum
from typing import BinaryIO, Protocol, TypeVar

import msgspec

Handle = int  # an open file, as `Open` returned it; dies with the process


class Lane(IntEnum):
    """Which queue a submission waits in; the lanes go on beside each other.

    Within a lane submissions are performed one at a time, in order.
    """

    WAL = 0  # what a request waits for: log, identity, recovery
    BULK = 1  # long: snapshots, and files that are no longer needed


class BlobSource(Protocol):
    """Something that writes its content itself: the copy of an engine."""

    def write_to(self, file: BinaryIO) -> None:
        """Write everything at the position of ``file`` and leave it behind the last byte.

        Called in a disk thread. On the real disk ``file`` is unbuffered, ``write`` always takes
        all, and ``fileno`` is real, so that a library may write to it; the simulated one's
        raises `io.UnsupportedOperation`. Each write waits for the disk: some hundred KiB to a
        MiB at once are best. Whatever is raised becomes a `DiskError`.
        """
        ...


class BlobSink(Protocol):
    """Something that reads its content itself: an engine that is built from a copy."""

    def read_from(self, file: BinaryIO, size: int) -> None:
        """Read ``size`` bytes from the position of ``file``; see `BlobSource.write_to`.

        The file may be shorter: ``read`` then returns less.
        """
        ...


class Open(msgspec.Struct, frozen=True):
    """-> Handle. ``create`` makes a missing file, ``exclusive`` insists on it.

    For reading and writing, unless ``read_only``: who only looks needs no right to change.
    """

    path: str
    create: bool = False
    exclusive: bool = False
    read_only: bool = False


class Close(msgspec.Struct, frozen=True):
    """-> None."""

    handle: Handle


class Pread(msgspec.Struct, frozen=True):
    """-> bytes, shorter than ``size`` only at the end of the file."""

    handle: Handle
    offset: int
    size: int


class Pwrite(msgspec.Struct, frozen=True):
    """-> None, when all of ``chunks`` is written at ``offset`` (not yet durable)."""

    handle: Handle
    offset: int
    chunks: Sequence[bytes]


class WriteFrom(msgspec.Struct, frozen=True):
    """-> int: bytes that ``source`` wrote from ``offset`` on (not yet durable)."""

    handle: Handle
    offset: int
    source: BlobSource


class ReadInto(msgspec.Struct, frozen=True):
    """-> None, when ``sink`` has taken ``size`` bytes from ``offset`` on."""

    handle: Handle
    offset: int
    size: int
    sink: BlobSink


class Allocate(msgspec.Struct, frozen=True):
    """-> None. Extend the file with zeros to ``size`` bytes, space reserved. Never shrinks."""

    handle: Handle
    size: int


class Truncate(msgspec.Struct, frozen=True):
    """-> None. Cut the file to ``size`` bytes."""

    handle: Handle
    size: int


class Fdatasync(msgspec.Struct, frozen=True):
    """-> None, once all that was written to this file before is durable."""

    handle: Handle


class Rename(msgspec.Struct, frozen=True):
    """-> None. Atomic for readers; durable after `FsyncDir`."""

    source: str
    target: str


class Unlink(msgspec.Struct, frozen=True):
    """-> None; a missing file is an error."""

    path: str


class Mkdir(msgspec.Struct, frozen=True):
    """-> None; an existing directory is fine."""

    path: str


class Listdir(msgspec.Struct, frozen=True):
    """-> list[tuple[str, int]]: (name, size in bytes; -1 for a directory), sorted by name."""

    path: str


class FsyncDir(msgspec.Struct, frozen=True):
    """-> None, once creations, renames and removals in ``path`` are durable."""

    path: str


class FreeBytes(msgspec.Struct, frozen=True):
    """-> int: bytes that may still be written on the file system of ``path``."""

    path: str


DiskOp = (
    Open
    | Close
    | Pread
    | Pwrite
    | WriteFrom
    | ReadInto
    | Allocate
    | Truncate
    | Fdatasync
    | Rename
    | Unlink
    | Mkdir
    | Listdir
    | FsyncDir
    | FreeBytes
)
DiskOps = tuple[DiskOp, ...]
DiskResult = int | bytes | list[tuple[str, int]] | None

T = TypeVar("T")
DiskTask = Generator[DiskOps, list[DiskResult], T]


class DiskError(Exception):
    """An operation failed: which one, and what the system said of it.

    ``errno`` is None if it was not the system but a `BlobSource` or `BlobSink` that failed.
    """

    def __init__(self, op: DiskOp, errno: int | None, reason: str) -> None:
        super().__init__(f"{type(op).__name__.lower()} failed: {reason} ({op!r:.200})")
        self.op = op
        self.errno = errno
        self.reason = reason


class Disk(Protocol):
    """What performs operations: `os_disk.OsDisk`, or the simulation's."""

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        """Perform ``ops`` in order, blocking; raises `DiskError` for the first that fails."""
        ...


def run_task(disk: Disk, task: DiskTask[T]) -> T:
    """Run a whole task on ``disk``, blocking, and return what it returns."""
    try:
        ops = next(task)
        while True:
            try:
                results = disk.perform(ops)
            except DiskError as error:
                ops = task.throw(error)
            else:
                ops = task.send(results)
    except StopIteration as stop:
        result: T = stop.value
        return result
