"""The production engine: LMDB without any sync of its own, and the files around it.

The only module of the state machine that touches files or LMDB (node design, rules 2, 3 and 9).
Layout of the directory that `LmdbEngineFactory` is given:

    env/          the environment in use: data.mdb, lock.mdb
    env.new/      one that a rebuild had begun
    env.state     whether env/ may be trusted: `raftkv.kv.environment`

Why no sync is safe: a killed process leaves its writes in the page cache, where LMDB's order
(pages first, then the meta page that names them) holds; and what a power loss leaves is not read.

py-lmdb releases the interpreter lock at every call, so calls are few: `putmulti` per slice
(rule 26). LMDB must not be used across a fork.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import lmdb

from raftkv.kv.engine import Engine, EngineError, EngineReader, EngineWriter, Pair, Table
from raftkv.kv.environment import (
    Circumstances,
    EnvironmentState,
    Rebuild,
    decide,
    decode_state,
    encode_state,
)
from raftkv.kv.records import FORMAT

# Address space, not memory or disk: the file grows as it is used.
MAP_BYTES_DEFAULT: Final = 64 << 30

_HISTORY: Final = b"hist"
_DATA_FILE: Final = "data.mdb"
_NONCE_BYTES: Final = 32  # hexadecimal digits
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


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
            raise EngineError(f"LMDB: {error}") from error
        # The methods below raise what LMDB raises; it becomes our error here, in one place.
        if isinstance(exc, lmdb.Error):
            raise EngineError(f"LMDB: {exc}") from exc

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

    def delete(self, table: Table, key: bytes) -> bool:
        return self._txn.delete(key, db=self._databases[table])

    def hist_add(self, pairs: Sequence[Pair]) -> None:
        with self._txn.cursor(self._history) as cursor:
            cursor.putmulti(pairs)

    def hist_delete(self, key: bytes, value: bytes) -> bool:
        return self._txn.delete(key, value, self._history)


class LmdbEngine:
    """An `Engine` in one LMDB environment: the directory ``path``, created if it is missing.

    ``map_bytes`` is the address space to begin with; it doubles when half of it is used, so one
    transaction may write at most half of it. Nothing may hold a snapshot at that moment.

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
            self.history = self.env.open_db(_HISTORY, dupsort=True, dupfixed=True)
        except lmdb.Error as error:
            self.env.close()
            raise EngineError(f"LMDB in {path}: {error}") from error
        self._map_bytes: int = self.env.info()["map_size"]
        self._page_bytes: int = self.env.stat()["psize"]

    def write(self) -> AbstractContextManager[EngineWriter]:
        """See `Engine.write`."""
        try:
            if self.size_bytes() > self._map_bytes // 2:
                self._map_bytes *= 2
                self.env.set_mapsize(self._map_bytes)
        except lmdb.Error as error:
            raise EngineError(f"LMDB: {error}") from error
        return _Writer(self, is_writer=True)

    def read(self) -> AbstractContextManager[EngineReader]:
        """See `Engine.read`."""
        return _Transaction(self, is_writer=False)

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
        self.env.close()


class Files:
    """Every effect of `LmdbEngineFactory` on the file system; tests crash between any two."""

    def read(self, path: Path) -> bytes | None:
        """The content of a file; None if it cannot be read, whatever the reason."""
        try:
            return path.read_bytes()
        except OSError:
            return None

    def make_directory(self, path: Path) -> None:
        """Make ``path`` and its parents, as far as they are missing."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Write and sync a file; its name is durable after `sync_directory`."""
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Atomic for readers; durable after `sync_directory`."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all that it holds, if it is there."""
        if path.exists():
            shutil.rmtree(path)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in ``path`` durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def boot_id(self) -> str:
        """Names the running kernel; where the system has no name for it, equal to nothing."""
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            return os.urandom(_NONCE_BYTES // 2).hex()

    def mount_nonce(self, path: Path) -> str:
        """The nonce in the file ``path``, drawn if it is missing.

        The file's owner is checked, since the directory may be shared with other users. One that
        can be neither trusted nor created yields a nonce that equals no other.
        """
        drawn = os.urandom(_NONCE_BYTES // 2).hex()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return drawn
        with os.fdopen(descriptor, "r+b") as file:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return drawn
            found = file.read(_NONCE_BYTES + 1)
            if len(found) == _NONCE_BYTES:
                return found.decode("ascii", "replace")
            # New, or its creator was killed before it wrote.
            file.seek(0)
            file.truncate()
            file.write(drawn.encode())
        return drawn


class LmdbEngineFactory:
    """The `EngineFactory` of production: one environment under ``path`` (module docstring).

    Args:
        path: a directory on the data volume, made if it is missing.
        runtime_dir: a directory that is lost no later than the data volume is unmounted (in a pod:
            an emptyDir); default: the system's directory for temporary files.
        force_rebuild: the first `open` discards what is there.
        map_bytes: see `LmdbEngine`.
        files: how to touch the file system.
    """

    def __init__(
        self,
        path: str,
        runtime_dir: str | None = None,
        *,
        force_rebuild: bool = False,
        map_bytes: int = MAP_BYTES_DEFAULT,
        files: Files | None = None,
    ) -> None:
        self._path = Path(path)
        self._environment = self._path / "env"
        self._new_environment = self._path / "env.new"
        self._state_file = self._path / "env.state"
        self._runtime_dir = Path(runtime_dir or tempfile.gettempdir())
        self._force_rebuild = force_rebuild
        self._map_bytes = map_bytes
        self._files = files or Files()
        self._engine: LmdbEngine | None = None
        # Why the last `open` or `rebuild` gave an empty engine; None if it gave the old one.
        self.rebuild_reason: str | None = None

    def open(self) -> LmdbEngine:
        """See `EngineFactory.open`."""
        if self._force_rebuild:
            self._force_rebuild = False
            return self._rebuild("it was asked for")
        self._close()
        try:
            self._files.make_directory(self._path)
            verdict = decide(self._recorded_state(), self._circumstances())
            if isinstance(verdict, Rebuild):
                return self._rebuild(verdict.reason)
            # Before the first write: from now on only these circumstances vouch for it.
            self._record(is_clean=False)
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error
        try:
            return self._open_environment(None)
        except EngineError as error:
            return self._rebuild(str(error))

    def rebuild(self) -> LmdbEngine:
        """See `EngineFactory.rebuild`."""
        return self._rebuild("it contradicts the log")

    def close_clean(self, engine: Engine) -> None:
        """See `EngineFactory.close_clean`."""
        assert engine is self._engine, "not the engine of this factory"
        self._engine.sync()
        self._close()
        try:
            self._files.sync_directory(self._environment)
            self._record(is_clean=True)
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error

    def _rebuild(self, reason: str) -> LmdbEngine:
        """New directory, rename, mark. A crash anywhere leaves no env.state: it begins again."""
        files = self._files
        self._close()
        try:
            files.make_directory(self._path)
            # First, and durably: a half removed environment must not be called clean.
            files.remove(self._state_file)
            files.sync_directory(self._path)
            files.remove_tree(self._new_environment)
            files.make_directory(self._new_environment)
            LmdbEngine(str(self._new_environment), map_bytes=self._map_bytes).close()
            files.remove_tree(self._environment)
            files.rename(self._new_environment, self._environment)
            # Its directory sync makes both renames durable.
            self._record(is_clean=False)
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error
        return self._open_environment(reason)

    def _open_environment(self, rebuild_reason: str | None) -> LmdbEngine:
        self._engine = LmdbEngine(str(self._environment), map_bytes=self._map_bytes)
        self.rebuild_reason = rebuild_reason
        return self._engine

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _recorded_state(self) -> EnvironmentState | None:
        data = self._files.read(self._state_file)
        return None if data is None else decode_state(data)

    def _circumstances(self) -> Circumstances | None:
        try:
            data_file = (self._environment / _DATA_FILE).stat()
        except FileNotFoundError:
            return None
        directory = self._path.stat()
        nonce_file = f"raftkv-mount-{directory.st_dev:x}-{directory.st_ino:x}"
        return Circumstances(
            boot_id=self._files.boot_id(),
            device=data_file.st_dev,
            inode=data_file.st_ino,
            mount_nonce=self._files.mount_nonce(self._runtime_dir / nonce_file),
        )

    def _record(self, *, is_clean: bool) -> None:
        """Replace env.state durably."""
        circumstances = self._circumstances()
        assert circumstances is not None, "there is an environment"
        state = EnvironmentState(FORMAT, is_clean, circumstances)
        written = self._state_file.with_suffix(".state.new")
        self._files.write(written, encode_state(state))
        self._files.rename(written, self._state_file)
        self._files.sync_directory(self._path)
