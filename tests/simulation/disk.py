"""A disk in memory that forgets: what a process wrote, what the cache holds, what is durable.

Performs the same operations as `raftkv.storage.os_disk.OsDisk`, and adds what a real disk does
rarely: it stops at any operation, loses power, fails, fills up, rots. Used by the storage tests
and by the simulation of the whole node. Deterministic: the only source of chance is the
`random.Random` handed to `power_loss`.

The model, after what POSIX promises and no more (reference/faults.md 4, rows 20 to 25):

- A write is visible at once and durable after `Fdatasync`. Until then a power loss leaves every
  512-byte sector of it old, new or garbage, each on its own.
- Creating, renaming and removing is visible at once and durable after `FsyncDir`. Until then a
  power loss keeps any subset of these operations, each of them whole.
- A file's new size is durable after `Fdatasync`; until then a power loss leaves the old or the
  new one.
- After a failed `Fdatasync` the cache shows the new bytes and calls them clean: a later, successful
  `Fdatasync` does not write them (Rebello et al., ATC 2020).
- `kill` ends the process: handles die, everything else stays as it is.
"""

import copy
import errno as errnos
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

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

SECTOR_BYTES: Final = 512


class Crash(BaseException):
    """The process ended, or the power went, instead of the operation.

    Not an `Exception`: no code under test may catch it.
    """


@dataclass(slots=True)
class File:
    """A file, with or without a name."""

    content: bytearray = field(default_factory=bytearray)  # what a reader sees
    durable: bytearray = field(default_factory=bytearray)  # what a power loss leaves for sure
    # Sectors of ``content`` that may differ from ``durable``, and that the next fdatasync writes.
    dirty: set[int] = field(default_factory=set)
    # Sectors whose fdatasync failed: they differ too, and no fdatasync writes them any more.
    dropped: set[int] = field(default_factory=set)

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite from ``offset`` on; a gap behind the end is filled with zeros."""
        if not data:
            return
        self.resize(max(len(self.content), offset + len(data)))
        self.content[offset : offset + len(data)] = data
        self.dirty.update(range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES)))

    def resize(self, size: int) -> None:
        """Cut, or extend with zeros."""
        old_size = len(self.content)
        if size < old_size:
            del self.content[size:]
        else:
            self.content.extend(bytes(size - old_size))
        edges = min(size, old_size) // SECTOR_BYTES, -(-max(size, old_size) // SECTOR_BYTES)
        self.dirty.update(range(*edges))

    def sync(self) -> None:
        """Fdatasync that worked."""
        self._resize_durable(len(self.content))
        for sector in self.dirty:
            _copy_sector(self.content, self.durable, sector)
        self.dropped -= self.dirty
        self.dirty.clear()

    def fail_sync(self) -> None:
        """Fdatasync that failed."""
        self.dropped |= self.dirty
        self.dirty.clear()

    def lose_power(self, rng: Random) -> None:
        """Leave of what was not durable what chance leaves."""
        if rng.random() < 0.5:
            self._resize_durable(len(self.content))
        for sector in sorted(self.dirty | self.dropped):
            fate = rng.randrange(3)
            if fate == 0:
                _copy_sector(self.content, self.durable, sector)
            elif fate == 1:
                start = sector * SECTOR_BYTES
                size = len(self.durable[start : start + SECTOR_BYTES])
                self.durable[start : start + size] = rng.randbytes(size)
        self.content = bytearray(self.durable)
        self.dirty.clear()
        self.dropped.clear()

    def _resize_durable(self, size: int) -> None:
        del self.durable[size:]
        self.durable.extend(bytes(size - len(self.durable)))


def _copy_sector(source: bytearray, target: bytearray, sector: int) -> None:
    start, end = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
    data = source[start : min(end, len(target))]
    target[start : start + len(data)] = data


@dataclass(slots=True)
class Directory:
    """A directory: names as they are seen, as they are durable, and the steps in between."""

    names: dict[str, "File | Directory"] = field(default_factory=dict)
    durable: dict[str, "File | Directory"] = field(default_factory=dict)
    # Each step changes a dictionary of names; whole or not at all.
    pending: list["_Link | _Unlink | _Rename"] = field(default_factory=list)

    def do(self, step: "_Link | _Unlink | _Rename") -> None:
        """Take a step, visible at once, durable later."""
        step.apply(self.names)
        self.pending.append(step)

    def sync(self) -> None:
        """FsyncDir."""
        self.durable = dict(self.names)
        self.pending.clear()

    def lose_power(self, rng: Random) -> None:
        """Keep some of the steps, here and below."""
        for step in self.pending:
            if rng.random() < 0.5:
                step.apply(self.durable)
        self.pending.clear()
        self.names = dict(self.durable)
        for _, node in sorted(self.names.items()):
            node.lose_power(rng)


@dataclass(frozen=True, slots=True)
class _Link:
    name: str
    node: File | Directory

    def apply(self, names: dict[str, File | Directory]) -> None:
        names[self.name] = self.node


@dataclass(frozen=True, slots=True)
class _Unlink:
    name: str

    def apply(self, names: dict[str, File | Directory]) -> None:
        names.pop(self.name, None)


@dataclass(frozen=True, slots=True)
class _Rename:
    source: str
    target: str
    node: File | Directory

    def apply(self, names: dict[str, File | Directory]) -> None:
        if names.get(self.source) is self.node:
            del names[self.source]
        names[self.target] = self.node


class SimDisk:
    """One disk. Its files hold at most ``capacity_bytes`` together; None: without limit."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.op_count = 0  # operations begun since the disk was made
        self.failed_syncs = 0  # of those that `fail_next_sync` asked for
        self._next_sync_errno: int | None = None
        self._root = Directory()
        self._handles: dict[Handle, File] = {}
        # What to do instead of the operation with this number.
        self._faults: dict[int, Callable[[DiskOp], None]] = {}

    # ---- faults -----------------------------------------------------------------------------

    def fail_at(self, op_number: int, errno: int) -> None:
        """Let the operation with this number (the next one is ``op_count + 1``) fail, once."""

        def fail(op: DiskOp) -> None:
            if isinstance(op, Fdatasync):
                self._file(op, op.handle).fail_sync()
            raise _error(op, errno)

        self._faults[op_number] = fail

    def fail_next_sync(self, errno: int) -> None:
        """Let the next `Fdatasync` fail, once."""
        self._next_sync_errno = errno

    def crash_at(self, op_number: int) -> None:
        """Raise `Crash` at the operation with this number: a write is half done, others not."""

        def crash(op: DiskOp) -> None:
            if isinstance(op, Pwrite):
                data = b"".join(op.chunks)
                self._file(op, op.handle).write(op.offset, data[: len(data) // 2])
            elif isinstance(op, WriteFrom):
                data = _blob(op, self._file(op, op.handle))
                self._file(op, op.handle).write(op.offset, data[: len(data) // 2])
            raise Crash

        self._faults[op_number] = crash

    def cancel_faults(self) -> None:
        """Forget what `fail_at`, `fail_next_sync` and `crash_at` planned."""
        self._faults.clear()
        self._next_sync_errno = None

    def kill(self) -> None:
        """The process ends."""
        self._handles.clear()

    def power_loss(self, rng: Random) -> None:
        """The machine ends, and with it what was not durable."""
        self.kill()
        self._root.lose_power(rng)

    def clone(self) -> "SimDisk":
        """An independent copy, without the planned faults."""
        other = SimDisk(self.capacity_bytes)
        other.op_count = self.op_count
        other._root, other._handles = copy.deepcopy((self._root, self._handles))
        return other

    # ---- inspection and decay: what a test does to a disk behind the node's back -------------

    def paths(self) -> list[str]:
        """All files, as they are seen, sorted."""
        return sorted(path for path, _ in _walk(self._root, ""))

    def read(self, path: str) -> bytes:
        """The content of a file, as it is seen."""
        return bytes(self._named_file(path).content)

    def write(self, path: str, content: bytes) -> None:
        """Make ``path`` a file with this content, durably; its directory exists."""
        parent, name = self._parent(path)
        file = File(bytearray(content), bytearray(content))
        parent.names[name] = parent.durable[name] = file

    def settle_names(self) -> None:
        """Let all names be durable, as they are some time after a process ended."""
        directories = [self._root]
        while directories:
            directory = directories.pop()
            directory.sync()
            directories += [n for n in directory.names.values() if isinstance(n, Directory)]

    def remove(self, path: str) -> None:
        """Remove a file, durably."""
        parent, name = self._parent(path)
        parent.names.pop(name)
        parent.durable.pop(name, None)

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Flip one durable bit."""
        content = bytearray(self.read(path))
        content[offset] ^= 1 << bit
        self.write(path, bytes(content))

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, durably."""
        self.write(path, self.read(path)[:size])

    # ---- the operations ----------------------------------------------------------------------

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        """Perform ``ops`` in order; raises `DiskError` for the first that fails."""
        return [self._perform_one(op) for op in ops]

    def _perform_one(self, op: DiskOp) -> DiskResult:
        self.op_count += 1
        fault = self._faults.pop(self.op_count, None)
        if fault is not None:
            fault(op)
        try:
            return self._on_names(op)
        except KeyError:
            raise _error(op, errnos.ENOENT) from None
        except NotADirectoryError:
            raise _error(op, errnos.ENOTDIR) from None

    def _on_names(self, op: DiskOp) -> DiskResult:
        """The operations that take a path."""
        match op:
            case Open():
                return self._open(op)
            case Rename(source, target):
                parent, name = self._parent(source)
                target_parent, target_name = self._parent(target)
                assert parent is target_parent, "nothing is moved between directories"
                moved, replaced = parent.names[name], parent.names.get(target_name)
                assert isinstance(moved, File), "only files are renamed"
                assert not isinstance(replaced, Directory), "only files are replaced"
                parent.do(_Rename(name, target_name, moved))
            case Unlink(path):
                parent, name = self._parent(path)
                if isinstance(parent.names[name], Directory):
                    raise _error(op, errnos.EISDIR)
                parent.do(_Unlink(name))
            case Mkdir(path):
                parent, name = self._parent(path)
                if name not in parent.names:
                    parent.do(_Link(name, Directory()))
                elif isinstance(parent.names[name], File):
                    raise _error(op, errnos.EEXIST)
            case Listdir(path):
                names = self._directory(path).names
                return sorted(
                    (name, len(node.content) if isinstance(node, File) else -1)
                    for name, node in names.items()
                )
            case FsyncDir(path):
                self._directory(path).sync()
            case FreeBytes(path):
                self._directory(path)
                return self._free_bytes()
            case _:
                return self._on_file(op)
        return None

    def _on_file(
        self, op: Close | Pread | Pwrite | WriteFrom | ReadInto | Allocate | Truncate | Fdatasync
    ) -> int | bytes | None:
        """The operations that take a handle."""
        file = self._file(op, op.handle)
        match op:
            case Close(handle):
                del self._handles[handle]
            case Pread(_, offset, size):
                return bytes(file.content[offset : offset + size])
            case Pwrite(_, offset, chunks):
                data = b"".join(chunks)
                self._take_space(op, file, offset + len(data))
                file.write(offset, data)
            case WriteFrom(_, offset, _):
                data = _blob(op, file)
                self._take_space(op, file, offset + len(data))
                file.write(offset, data)
                return len(data)
            case ReadInto(_, offset, size, sink):
                content = io.BytesIO(file.content)
                content.seek(offset)
                try:
                    sink.read_from(content, size)
                except Exception as error:
                    raise _blob_error(op, error) from error
            case Allocate(_, size):
                if size > len(file.content):
                    self._take_space(op, file, size)
                    file.resize(size)
            case Truncate(_, size):
                self._take_space(op, file, size)
                file.resize(size)
            case Fdatasync():
                errno, self._next_sync_errno = self._next_sync_errno, None
                if errno is not None:
                    self.failed_syncs += 1
                    file.fail_sync()
                    raise _error(op, errno)
                file.sync()
        return None

    def _open(self, op: Open) -> Handle:
        parent, name = self._parent(op.path)
        node = parent.names.get(name)
        if node is None:
            if not op.create:
                raise _error(op, errnos.ENOENT)
            node = File()
            parent.do(_Link(name, node))
        elif op.create and op.exclusive:
            raise _error(op, errnos.EEXIST)
        if isinstance(node, Directory):
            raise _error(op, errnos.EISDIR)
        # The least that is free, as a system does: what was closed may soon be another file.
        handle = next(number for number in count(1) if number not in self._handles)
        self._handles[handle] = node
        return handle

    def _free_bytes(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 40
        return self.capacity_bytes - sum(len(file.content) for _, file in _walk(self._root, ""))

    def _take_space(self, op: DiskOp, file: File, size: int) -> None:
        if self.capacity_bytes is not None and size - len(file.content) > self._free_bytes():
            raise _error(op, errnos.ENOSPC)

    def _file(self, op: DiskOp, handle: Handle) -> File:
        file = self._handles.get(handle)
        if file is None:
            raise _error(op, errnos.EBADF)
        return file

    def _named_file(self, path: str) -> File:
        parent, name = self._parent(path)
        node = parent.names[name]
        assert isinstance(node, File)
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name

    def _directory(self, path: str) -> Directory:
        directory = self._root
        for part in path.split("/"):
            if part in ("", "."):
                continue
            node = directory.names[part]
            if not isinstance(node, Directory):
                raise NotADirectoryError
            directory = node
        return directory


def _walk(directory: Directory, prefix: str) -> Iterator[tuple[str, File]]:
    for name, node in directory.names.items():
        if isinstance(node, Directory):
            yield from _walk(node, f"{prefix}{name}/")
        else:
            yield prefix + name, node


def _blob(op: WriteFrom, file: File) -> bytes:
    """What the source writes."""
    content = io.BytesIO(file.content)
    content.seek(op.offset)
    try:
        op.source.write_to(content)
    except Exception as error:
        raise _blob_error(op, error) from error
    end = content.tell()
    return content.getvalue()[op.offset : end]


def _blob_error(op: WriteFrom | ReadInto, error: Exception) -> DiskError:
    """As `OsDisk` reports it."""
    if isinstance(error, OSError):
        return DiskError(op, error.errno, error.strerror or str(error))
    return DiskError(op, None, f"{type(error).__name__}: {error}")


def _error(op: DiskOp, errno: int) -> DiskError:
    return DiskError(op, errno, os.strerror(errno))
