"""The real disk: performs operations on files below one data directory.

The only module of the storage layer that touches the system (node design, rule 2). Called from
the shell's disk thread, one submission at a time; knows nothing of what the files mean. Blocking
system calls release the interpreter lock, so the event loop goes on meanwhile.

A failed operation is reported, never repeated: after a failed fsync the kernel may have dropped
what it could not write, and a second one would succeed without having written it (Rebello et
al., 'Can Applications Recover from fsync Failures?', ATC 2020).
"""

import errno
import fcntl
import io
import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from raftkv.storage.disk import (
    Allocate,
    Close,
    DiskError,
    DiskOp,
    DiskOps,
    DiskResult,
    Fdatasync,
    FreeBytes,
    FsyncDir,
    Handle,
    Listdir,
    Mkdir,
    Open,
    Pread,
    Pwrite,
    ReadInto,
    Rename,
    Truncate,
    Unlink,
    WriteFrom,
)
from raftkv.storage.errors import DirectoryLockedError, DirectoryUnusableError
from raftkv.storage.kernel_sync import KernelSync, open_kernel_sync
from raftkv.storage.layout import LOCK, refuse_foreign

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
    from typing import override
else:
    from typing_extensions import Buffer, override

# Data is for the node's own user only.
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
# Linux' IOV_MAX: buffers in one system call.
_BUFFERS_MAX = 1024


class OsDisk:
    """The files below ``root``. Handles are file descriptors."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._lock_fd: int | None = None

    def lock(self) -> None:
        """Make the directory if it is missing, and take it for this process until `close`.

        Raises a `StorageError` if it is another's, in use, or cannot be used. A directory that
        is not ours is left as it is.
        """
        root = str(self._root)
        try:
            self._root.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            refuse_foreign(os.listdir(root))  # noqa: PTH208 - names, not paths
            fd = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT, _FILE_MODE)
        except FileExistsError:
            raise DirectoryUnusableError(root, "it is not a directory") from None
        except OSError as error:
            raise DirectoryUnusableError(root, os.strerror(error.errno or 0)) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DirectoryLockedError(root) from None
            raise DirectoryUnusableError(root, os.strerror(error.errno or 0)) from None
        self._lock_fd = fd

    def close(self) -> None:
        """Give the directory free. Open handles stay open: they die with the process."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def kernel_sync(self) -> KernelSync | None:
        """What makes files here durable without a thread that waits; None: nothing does.

        To be called with the directory locked.
        """
        return None if self._lock_fd is None else open_kernel_sync(self._lock_fd)

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        """Perform ``ops`` in order, blocking; raises `DiskError` for the first that fails."""
        results: list[DiskResult] = []
        for op in ops:
            try:
                results.append(self._perform_one(op))
            except OSError as error:
                reason = error.strerror or str(error)
                raise DiskError(op, error.errno, reason) from error
            except Exception as error:
                # Foreign code in a thread where nobody would see it. The rest are bugs.
                if not isinstance(op, WriteFrom | ReadInto):
                    raise
                raise DiskError(op, None, f"{type(error).__name__}: {error}") from error
        return results

    def _perform_one(self, op: DiskOp) -> DiskResult:  # noqa: C901, PLR0912 - one arm per operation
        match op:
            case Pwrite(handle, offset, chunks):
                _write_all(handle, offset, chunks)
            case Fdatasync(handle):
                os.fdatasync(handle)
            case Pread(handle, offset, size):
                return _read_all(handle, offset, size)
            case WriteFrom(handle, offset, source):
                with _paced_file(handle) as file:
                    file.seek(offset)
                    source.write_to(file)
                    return file.tell() - offset
            case ReadInto(handle, offset, size, sink):
                with io.FileIO(handle, "rb", closefd=False) as file:
                    file.seek(offset)
                    sink.read_from(file, size)
            case Open(path, create, exclusive, read_only):
                flags = os.O_RDONLY if read_only else os.O_RDWR
                flags |= os.O_CREAT * create | os.O_EXCL * exclusive
                return os.open(self._root / path, flags, _FILE_MODE)
            case Close(handle):
                os.close(handle)
            case Allocate(handle, size):
                # Reserves the blocks (a full disk is found out now, not in a later write), and
                # leaves them marked as never written; see `wal.ZERO_AHEAD_BYTES`.
                if size > os.fstat(handle).st_size:
                    os.posix_fallocate(handle, 0, size)
            case Truncate(handle, size):
                os.ftruncate(handle, size)
            case Rename(source, target):
                (self._root / source).rename(self._root / target)
            case Unlink(path):
                (self._root / path).unlink()
            case Mkdir(path):
                (self._root / path).mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
            case Listdir(path):
                return _list(self._root / path)
            case FsyncDir(path):
                _fsync_dir(self._root / path)
            case FreeBytes(path):
                usage = os.statvfs(self._root / path)
                return usage.f_bavail * usage.f_frsize
        return None


class _WholeFile(io.FileIO):
    """A file whose ``write`` never stops half way."""

    @override
    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size


def _paced_file(handle: Handle) -> _WholeFile:
    """The open file once more, as one whose every write waits for the disk.

    A blob is as large as the state, and a library would fill the page cache with it at once:
    the log's fdatasync then waits behind all of it. Measured on ext4 while 512 MiB are copied,
    the longest one takes 20 to 60 ms with this, and 110 to 230 ms without.
    """
    return _WholeFile(os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_DSYNC), "wb")


def _write_all(handle: Handle, offset: int, chunks: Sequence[bytes]) -> None:
    """A write may be cut short by the system (a signal, a full disk): go on where it stopped."""
    if len(chunks) <= _BUFFERS_MAX and os.pwritev(handle, chunks, offset) == sum(map(len, chunks)):
        return
    # Once more, from the start: to write the same twice does no harm.
    rest = [memoryview(chunk) for chunk in chunks if chunk]
    while rest:
        written = os.pwritev(handle, list(islice(rest, _BUFFERS_MAX)), offset)
        offset += written
        while written:
            part = min(written, len(rest[0]))
            written -= part
            rest[0] = rest[0][part:]
            if not rest[0]:
                del rest[0]


def _read_all(handle: Handle, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.pread(handle, size, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _list(path: Path) -> list[tuple[str, int]]:
    with os.scandir(path) as entries:
        return sorted(
            (entry.name, -1 if entry.is_dir(follow_symlinks=False) else entry.stat().st_size)
            for entry in entries
        )


def _fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
