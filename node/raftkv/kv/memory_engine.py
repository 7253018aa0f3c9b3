"""The engine of the simulation: sorted dictionaries with LMDB's semantics.

A write transaction gathers its changes apart and merges them at commit, so that rolling back is
forgetting, and a reader never sees what is not committed. Held equal to `LmdbEngine` by a
hypothesis test (node design, rule 3).
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby, islice, pairwise
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

import msgspec
from sortedcontainers import SortedDict

from raftkv.kv.copies import encode_preamble, read_preamble
from raftkv.kv.engine import (
    KEY_BYTES_MAX,
    Engine,
    EngineCopy,
    EngineError,
    EngineReader,
    EngineWriter,
    Pair,
    Table,
)

_NAME: Final = "memory"  # in copies


class Tables:
    """What is committed. Survives the engine, as page cache survives a process."""

    def __init__(self) -> None:
        self.tables: tuple[SortedDict[bytes, bytes], ...] = tuple(SortedDict() for _ in Table)
        # The history as one more sorted table: key and value -> value.
        self.history: SortedDict[Pair, bytes] = SortedDict()

    def encode(self) -> bytes:
        """All that is committed: the same bytes for the same content."""
        named = {table.name: list(self.tables[table].items()) for table in Table}
        return msgspec.msgpack.encode((named, list(self.history)))

    @staticmethod
    def decode(data: bytes) -> "Tables":
        """Inverse of `encode`. Raises `EngineError` for anything else."""
        try:
            named, history = _COPY_DECODER.decode(data)
        except ValueError as error:
            raise EngineError(f"not a copy of this engine: {error}") from error
        tables = Tables()
        for table in Table:
            tables.tables[table].update(named.get(table.name, ()))
        tables.history.update((pair, pair[1]) for pair in history)
        return tables


_COPY_DECODER: Final = msgspec.msgpack.Decoder(tuple[dict[str, list[Pair]], list[Pair]])


# What a table is sorted by.
Place = TypeVar("Place", bytes, Pair)


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise EngineError(f"a key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} are possible")


def _scan(
    table: SortedDict[Place, bytes],
    over: Mapping[Place, bytes | None],
    start: Place,
    end: Place | None,
    *,
    reverse: bool,
) -> Iterator[tuple[Place, bytes]]:
    """`EngineReader.scan` of ``table`` with the changes ``over`` it."""
    committed = table.irange(start, end, inclusive=(True, False), reverse=reverse)
    added = sorted(
        (key for key in over if key not in table and start <= key and (end is None or key < end)),
        reverse=reverse,
    )
    for key in heapq.merge(committed, added, reverse=reverse):
        value = over[key] if key in over else table[key]
        if value is not None:
            yield key, value


def _merge(table: SortedDict[Place, bytes], changes: Mapping[Place, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


class _View:
    """The committed tables with changes laid over them: none, for a reader."""

    def __init__(self, engine: "MemoryEngine") -> None:
        self._engine = engine
        self._tables = engine.tables.tables
        self._history = engine.tables.history
        # Per table the keys changed so far; None: deleted.
        self._changes: tuple[dict[bytes, bytes | None], ...] = tuple({} for _ in Table)
        self._hist_changes: dict[Pair, bytes | None] = {}

    def get(self, table: Table, key: bytes) -> bytes | None:
        if not key:
            _check_key(key)
        changes = self._changes[table]
        return changes[key] if key in changes else self._tables[table].get(key)

    def scan(
        self, table: Table, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[Pair]:
        return _scan(self._tables[table], self._changes[table], start, end, reverse=reverse)

    def hist_floor(self, key: bytes, value: bytes) -> bytes | None:
        places = (key, b""), (key, value + b"\0")
        found = _scan(self._history, self._hist_changes, *places, reverse=True)
        return next((value for _, value in found), None)

    def hist_keys(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        places = (start, b""), None if end is None else (end, b"")
        found = _scan(self._history, self._hist_changes, *places, reverse=reverse)
        return (key for key, _ in groupby(key for (key, _), _ in found))


class _Reader(_View):
    """A snapshot. Nothing may be committed while it is open, so that the tables are one."""

    def __enter__(self) -> Self:
        self._engine.check_open()
        self._engine.reader_count += 1
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.reader_count -= 1


class _Writer(_View):
    """The write transaction: merges its changes into the tables, or forgets them."""

    def __enter__(self) -> Self:
        self._engine.check_open()
        assert not self._engine.is_writing, "one write transaction at a time"
        self._engine.is_writing = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.is_writing = False
        if exc_type is not None:
            return
        self._engine.check_open()
        assert self._engine.reader_count == 0, "a snapshot outlives its slice (rule 24)"
        for table, changes in zip(self._tables, self._changes, strict=True):
            _merge(table, changes)
        _merge(self._history, self._hist_changes)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        _check_key(key)
        self._changes[table][key] = value

    def putmulti(self, table: Table, pairs: Sequence[Pair]) -> None:
        for key, value in pairs:
            self.put(table, key, value)

    def append(self, table: Table, pairs: Sequence[Pair]) -> None:
        greatest = islice(self.scan(table, b"", None, reverse=True), 1)
        keys = [key for key, _ in (*greatest, *pairs)]
        if any(before >= after for before, after in pairwise(keys)):
            raise EngineError("the keys do not ascend")
        self.putmulti(table, pairs)

    def delete(self, table: Table, key: bytes) -> bool:
        existed = self.get(table, key) is not None
        if existed:
            self._changes[table][key] = None
        return existed

    def hist_add(self, pairs: Sequence[Pair]) -> None:
        for key, value in pairs:
            _check_key(key)
            self._hist_changes[key, value] = value

    def hist_delete(self, key: bytes, value: bytes) -> bool:
        entry = (key, value)
        changed = self._hist_changes
        existed = (changed[entry] if entry in changed else self._history.get(entry)) is not None
        if existed:
            changed[entry] = None
        return existed


class _Copy:
    """An `EngineCopy`, made at once."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = encode_preamble(_NAME) + data

    def write_to(self, file: BinaryIO) -> None:
        assert self._data is not None, "the copy is closed"
        file.write(self._data)

    def close(self) -> None:
        self._data = None


class MemoryEngine:
    """An `Engine` whose storage ends with the object, unless a factory keeps its tables."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables if tables is not None else Tables()
        self.is_writing = False  # a write transaction is open
        self.reader_count = 0  # snapshots that are open
        self._is_open = True

    def check_open(self) -> None:
        """Raise `EngineError` once the engine is closed."""
        if not self._is_open:
            raise EngineError("the engine is closed")

    def write(self) -> AbstractContextManager[EngineWriter]:
        """See `Engine.write`."""
        return _Writer(self)

    def read(self) -> AbstractContextManager[EngineReader]:
        """See `Engine.read`; a commit while a snapshot is open is a bug and asserted."""
        return _Reader(self)

    def begin_copy(self) -> EngineCopy:
        """See `Engine.begin_copy`."""
        self.check_open()
        return _Copy(self.tables.encode())

    def size_bytes(self) -> int:
        """Bytes of all keys and values, counted afresh: for tests and slow status calls."""
        of_tables = (len(k) + len(v) for table in self.tables.tables for k, v in table.items())
        return sum(of_tables) + sum(len(k) + len(v) for k, v in self.tables.history)

    def close(self) -> None:
        """See `Engine.close`: any later use raises `EngineError`."""
        self._is_open = False


class MemoryEngineFactory:
    """An `EngineFactory` that outlives the simulated process, as a disk does.

    What was committed survives a killed process, as it would in the page cache; `power_loss`
    takes everything that was not closed clean.
    """

    def __init__(self) -> None:
        self._tables = Tables()
        self._engine: MemoryEngine | None = None
        self._is_clean = False  # closed clean, and not opened since

    def open(self) -> MemoryEngine:
        """See `EngineFactory.open`."""
        if self._engine is not None:
            self._engine.close()
        self._is_clean = False
        self._engine = MemoryEngine(self._tables)
        return self._engine

    def rebuild(self) -> MemoryEngine:
        """See `EngineFactory.rebuild`."""
        self._tables = Tables()
        return self.open()

    def begin_install(self) -> "MemoryEngineInstall":
        """See `EngineFactory.begin_install`."""
        return MemoryEngineInstall(self)

    def install(self, tables: Tables) -> MemoryEngine:
        """The work of `EngineInstall.finish`."""
        self._tables = tables
        return self.open()

    def close_clean(self, engine: Engine) -> None:
        """See `EngineFactory.close_clean`."""
        assert engine is self._engine, "not the engine of this factory"
        engine.close()
        self._is_clean = True

    def power_loss(self) -> None:
        """Lose what a machine loses that goes dark: the engine, unless it was closed clean."""
        if self._engine is not None:
            self._engine.close()
        if not self._is_clean:
            self._tables = Tables()


class MemoryEngineInstall:
    """The `EngineInstall` of a `MemoryEngineFactory`."""

    def __init__(self, factory: MemoryEngineFactory) -> None:
        self._factory = factory
        self._tables: Tables | None = None

    def read_from(self, file: BinaryIO, size: int) -> None:
        """See `EngineInstall.read_from`."""
        assert self._tables is None, "read_from is called once"
        left = read_preamble(file, size, _NAME)
        data = file.read(left)
        if len(data) < left:
            raise EngineError(f"a copy that ends {left - len(data)} bytes early")
        self._tables = Tables.decode(data)

    def finish(self) -> MemoryEngine:
        """See `EngineInstall.finish`."""
        assert self._tables is not None, "nothing was installed"
        return self._factory.install(self._tables)

    def abort(self) -> None:
        """See `EngineInstall.abort`."""
        self._tables = None
