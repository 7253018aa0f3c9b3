"""The production engine: LMDB without any sync of its own.

The only module of the state machine that touches LMDB (node design, rules 2 and 3). The files
around an environment are the matter of `raftkv.kv.lmdb_environment`.

py-lmdb releases the interpreter lock at every call, so calls are few: `putmulti` per slice
(rule 26). LMDB must not be used across a fork.

Two things would unmap the memory that a copy in another thread reads: growing the map, and closing
the environment. Both wait for the copy.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import lmdb

from raftkv.kv.copies import encode_preamble
from raftkv.kv.engine import (
    EngineCopy,
    EngineError,
    EngineReader,
    EngineWriter,
    Pair,
    Table,
)

# Address space, not memory or disk: the file grows as it is used.
MAP_BYTES_DEFAULT: Final = 64 << 30

# To ask LMDB for the size costs as much as a put. So much of the map must be left for a look at
# every transaction to be more than is needed, and so many are then written without one.
_AMPLE_BYTES: Final = 8 << 30
_UNWATCHED_WRITES: Final = 16
NAME: Final = "lmdb"  # of the engine, in the copies that it makes
_COPIED_BYTES: Final = 1 << 20  # at a time
_HISTORY: Final = b"hist"
# With less than this free, a failed write is put down to the want of it: more than one slice takes.
_NO_ROOM_BYTES: Final = 16 << 20


class _Transaction:
    """One LMDB transaction: what reader and writer share."""

    __slots__ = ("_databases", "_env", "_history", "_is_writer", "_txn")

    def __init__(self, engine: "LmdbEngine", *, is_writer: bool) -> None:
        self._env = engine.env
        self._databases = engine.databases
        self._history = engine.history
        self._is_writer = is_writer
        self._txn: lmdb.Transaction

    def __enter__(self) -> Self:
        try:
            self._txn = self._env.begin(write=self._is_writer)
        except lmdb.Error as error:
            raise EngineError(f"LMDB: {error}") from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None and self._is_writer:
                self._txn.commit()
            else:
                self._txn.abort()
        except lmdb.Error as error:
            raise self._failed(error) from error
        # The methods below raise what LMDB raises; it becomes our error here, in one place.
        if isinstance(exc, lmdb.Error):
            raise self._failed(exc) from exc

    def _failed(self, error: lmdb.Error) -> EngineError:
        """What LMDB says of a write cut short is "Input/output error", also of a full disk."""
        said = f"LMDB: {error}"
        path = self._env.path()
        free_bytes = shutil.disk_usage(path).free
        if self._is_writer and free_bytes < _NO_ROOM_BYTES:
            said += f" (No space left on device: {free_bytes} bytes are free for {path})"
        return EngineError(said)

    # Without ``buffers`` LMDB returns bytes, which its type hints cannot tell: hence the casts.

    def get(self, table: Table, key: bytes) -> bytes | None:
        return cast("bytes | None", self._txn.get(key, None, self._databases[table]))

    def scan(
        self, table: Table, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[Pair]:
        with self._txn.cursor(self._databases[table]) as cursor:
            if reverse:
                is_beyond = end is not None and cursor.set_range(end)
                if not (cursor.prev() if is_beyond else cursor.last()):
                    return
                for key, value in cast("Iterator[Pair]", cursor.iterprev()):
                    if key < start:
                        return
                    yield key, value
            else:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return
                for key, value in cast("Iterator[Pair]", cursor.iternext()):
                    if end is not None and key >= end:
                        return
                    yield key, value

    def hist_floor(self, key: bytes, value: bytes) -> bytes | None:
        with self._txn.cursor(self._history) as cursor:
            if cursor.set_range_dup(key, value):
                # At the least value that is not less: it itself, or the one before.
                is_found = cursor.value() == value or cursor.prev_dup()
            else:
                is_found = cursor.set_key(key) and cursor.last_dup()
            return cast("bytes", cursor.value()) if is_found else None

    def hist_keys(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        with self._txn.cursor(self._history) as cursor:
            if reverse:
                is_beyond = end is not None and cursor.set_range(end)
                if not (cursor.prev_nodup() if is_beyond else cursor.last()):
                    return
                for key in cast("Iterator[bytes]", cursor.iterprev_nodup(keys=True, values=False)):
                    if key < start:
                        return
                    yield key
            else:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return
                for key in cast("Iterator[bytes]", cursor.iternext_nodup(keys=True, values=False)):
                    if end is not None and key >= end:
                        return
                    yield key


class _Writer(_Transaction):
    __slots__ = ()

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._databases[table])

    def putmulti(self, table: Table, pairs: Sequence[Pair]) -> None:
        with self._txn.cursor(self._databases[table]) as cursor:
            cursor.putmulti(pairs)

    def append(self, table: Table, pairs: Sequence[Pair]) -> None:
        # LMDB splits a full page in two halves, of which the first stays half full when keys only
        # grow. Appending leaves it full: of 256-byte values, 341 bytes a record and not 372.
        with self._txn.cursor(self._databases[table]) as cursor:
            _, added = cursor.putmulti(pairs, append=True)
        if added != len(pairs):
            raise EngineError("LMDB: the keys do not ascend")

    def delete(self, table: Table, key: bytes) -> bool:
        return self._txn.delete(key, db=self._databases[table])

    def hist_add(self, pairs: Sequence[Pair]) -> None:
        with self._txn.cursor(self._history) as cursor:
            cursor.putmulti(pairs)

    def hist_delete(self, key: bytes, value: bytes) -> bool:
        return self._txn.delete(key, value, self._history)


class _Copy:
    """An `EngineCopy`: a read transaction of its own, copied page by page without the free ones."""

    def __init__(self, engine: "LmdbEngine") -> None:
        self._engine = engine
        self._env = engine.env
        self._txn: lmdb.Transaction | None = engine.env.begin()
        self._is_writing = False

    def write_to(self, file: BinaryIO) -> None:
        assert self._txn is not None, "the copy is closed"
        self._is_writing = True
        try:
            file.write(encode_preamble(NAME))
            try:
                descriptor = file.fileno()
            except io.UnsupportedOperation:
                # A simulated disk: LMDB writes to descriptors only.
                with tempfile.TemporaryFile(buffering=0) as pages:
                    self._env.copyfd(pages.fileno(), True, self._txn)
                    pages.seek(0)
                    shutil.copyfileobj(pages, file, _COPIED_BYTES)
            else:
                self._env.copyfd(descriptor, True, self._txn)
        except lmdb.Error as error:
            # LMDB's own numbers are negative, the others are the system's.
            code = getattr(error, "code", 0)
            if code > 0:
                raise OSError(code, f"LMDB: {error}") from error
            raise EngineError(f"LMDB: {error}") from error
        finally:
            self._is_writing = False

    def close(self) -> None:
        assert not self._is_writing, "closed during write_to"
        if self._txn is None:
            return
        self._txn.abort()
        self._txn = None
        self._engine.end_copy(self)


class LmdbEngine:
    """An `Engine` in one LMDB environment: the directory ``path``, created if it is missing.

    ``map_bytes`` is the address space to begin with; it doubles when half of it is used and no
    copy is open, so one transaction may write at most half of it. Nothing else may hold a snapshot
    at that moment.

    Raises:
        EngineError: the environment cannot be opened.
    """

    def __init__(self, path: str, *, map_bytes: int = MAP_BYTES_DEFAULT) -> None:
        try:
            self.env = lmdb.open(
                path,
                map_size=map_bytes,
                max_dbs=len(Table) + 1,
                mode=0o600,
                sync=False,
                metasync=False,
                writemap=False,
                readahead=False,
            )
        except lmdb.Error as error:
            raise EngineError(f"LMDB in {path}: {error}") from error
        try:
            # Indexed by Table.
            self.databases = tuple(self.env.open_db(table.name.lower().encode()) for table in Table)
            # Not dupfixed, though all values are as long: LMDB's copy of an environment (0.9.36)
            # reads wild memory in a key whose fixed-size values outgrew a page, 200 of them.
            self.history = self.env.open_db(_HISTORY, dupsort=True)
        except lmdb.Error as error:
            self.env.close()
            raise EngineError(f"LMDB in {path}: {error}") from error
        self._map_bytes: int = self.env.info()["map_size"]
        self._page_bytes: int = self.env.stat()["psize"]
        self._unwatched_writes = 0
        self._copies: set[_Copy] = set()  # open ones; they keep the environment open
        self._is_open = True

    def write(self) -> AbstractContextManager[EngineWriter]:
        """See `Engine.write`."""
        self._check_open()
        if self._unwatched_writes > 0:
            self._unwatched_writes -= 1
        else:
            self._watch_size()
        return _Writer(self, is_writer=True)

    def _watch_size(self) -> None:
        try:
            size_bytes = self.size_bytes()
            if size_bytes > self._map_bytes // 2 and not self._copies:
                self._map_bytes *= 2
                self.env.set_mapsize(self._map_bytes)
        except lmdb.Error as error:
            raise EngineError(f"LMDB: {error}") from error
        if self._map_bytes - size_bytes > _AMPLE_BYTES:
            self._unwatched_writes = _UNWATCHED_WRITES

    def read(self) -> AbstractContextManager[EngineReader]:
        """See `Engine.read`."""
        self._check_open()
        return _Transaction(self, is_writer=False)

    def begin_copy(self) -> EngineCopy:
        """See `Engine.begin_copy`."""
        self._check_open()
        try:
            copy = _Copy(self)
        except lmdb.Error as error:
            raise EngineError(f"LMDB: {error}") from error
        self._copies.add(copy)
        return copy

    def end_copy(self, copy: EngineCopy) -> None:
        """Forget ``copy``, which was closed; if the engine was too, the environment ends now."""
        self._copies = {other for other in self._copies if other is not copy}
        if not self._copies and not self._is_open:
            self.env.close()

    def size_bytes(self) -> int:
        """Bytes of the data file up to its last page, also those free for reuse."""
        pages: int = self.env.info()["last_pgno"] + 1
        return pages * self._page_bytes

    def sync(self) -> None:
        """Make all that was committed durable: only before a clean close."""
        try:
            self.env.sync(True)
        except lmdb.Error as error:
            raise EngineError(f"LMDB: {error}") from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._is_open = False
        if not self._copies:
            self.env.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise EngineError("the engine is closed")


def check_copied(path: str, size_bytes: int) -> None:
    """Whether the environment in ``path``, copied from elsewhere, has all the pages it names.

    LMDB opens one that was cut short, and ends the process when it reads a page that is missing.

    Raises:
        EngineError: it does not, or is no environment.
    """
    try:
        with lmdb.open(path, readonly=True, lock=False, create=False) as env:
            named_bytes: int = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    except lmdb.Error as error:
        raise EngineError(f"LMDB in {path}: {error}") from error
    if named_bytes != size_bytes:
        raise EngineError(f"LMDB in {path}: {size_bytes} bytes, not {named_bytes}: cut short")
