"""What cannot be applied: limits that are in the command, broken entries, engines that fail."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Compact,
    Delete,
    Expire,
    GrantLease,
    Once,
    Put,
    ReadKey,
    Stamp,
    Sweep,
    Txn,
)
from raftkv.kv.engine import (
    Engine,
    EngineCopy,
    EngineError,
    EngineReader,
    EngineWriter,
    Pair,
    Table,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Item, TooLarge, Written
from raftkv.kv.store import ApplyError, Store, StoreError
from raftkv.raft.messages import Entry, EntryType
from tests.kv.against_model import state_of
from tests.kv.support import entry, open_engine, run

ENGINES = ["memory", "lmdb"]


def test_rule_19_the_limit_of_an_append_is_in_the_command() -> None:
    store = Store(MemoryEngine())
    assert run(
        store,
        Append(b"k", b"12345", 4),
        Append(b"k", b"1234", 4),
        Append(b"k", b"5", 4),
        Append(b"k", b"", 4),
        Append(b"k", b"5", 5),
    ) == [TooLarge(0, 5), Written(1, 1), TooLarge(1, 5), Written(2, 2), Written(3, 3)]
    assert store.get(b"k") == Item(b"k", b"12345", 1, 3, 3)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("data", [b"", b"\x00", b"\x91\x93\x09\xc4\x01k\xc4\x00", b"\x90\x90"])
def test_rule_19_an_entry_that_cannot_be_decoded_stops_the_node(kind: str, data: bytes) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        store.apply([entry(1, Put(b"a", b"1"))])
        before = state_of(store)
        broken = Entry(1, 3, EntryType.NORMAL, data)
        with pytest.raises(ApplyError, match="entry 3 cannot be decoded"):
            store.apply([entry(2, Put(b"a", b"2"), Delete(b"a")), broken])
        assert state_of(store) == before
        assert state_of(Store(engine)) == before


class FailingEngine:
    """An engine whose write transactions fail at the call that ``fail_at`` counts down to."""

    def __init__(self, engine: Engine, fail_at: int) -> None:
        self.engine = engine
        self.calls_left = fail_at

    def call(self) -> None:
        if self.calls_left == 0:
            raise EngineError("injected")
        self.calls_left -= 1

    @contextmanager
    def write(self) -> Iterator[EngineWriter]:
        with self.engine.write() as writer:
            yield FailingWriter(self, writer)
            self.call()  # the commit

    def read(self) -> AbstractContextManager[EngineReader]:
        return self.engine.read()

    def begin_copy(self) -> EngineCopy:
        return self.engine.begin_copy()

    def size_bytes(self) -> int:
        return self.engine.size_bytes()

    def close(self) -> None:
        self.engine.close()


class FailingWriter:
    """Passes on to ``writer`` until `FailingEngine.call` raises."""

    def __init__(self, engine: FailingEngine, writer: EngineWriter) -> None:
        self.engine = engine
        self.writer = writer

    def get(self, table: Table, key: bytes) -> bytes | None:
        self.engine.call()
        return self.writer.get(table, key)

    def scan(
        self, table: Table, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[Pair]:
        self.engine.call()
        return self.writer.scan(table, start, end, reverse=reverse)

    def hist_floor(self, key: bytes, value: bytes) -> bytes | None:
        self.engine.call()
        return self.writer.hist_floor(key, value)

    def hist_keys(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        self.engine.call()
        return self.writer.hist_keys(start, end, reverse=reverse)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.engine.call()
        self.writer.put(table, key, value)

    def putmulti(self, table: Table, pairs: Sequence[Pair]) -> None:
        # Half of it has happened when it fails.
        for pair in pairs:
            self.engine.call()
            self.writer.put(table, *pair)

    def append(self, table: Table, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self.engine.call()
            self.writer.append(table, [pair])

    def delete(self, table: Table, key: bytes) -> bool:
        self.engine.call()
        return self.writer.delete(table, key)

    def hist_add(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self.engine.call()
            self.writer.hist_add([pair])

    def hist_delete(self, key: bytes, value: bytes) -> bool:
        self.engine.call()
        return self.writer.hist_delete(key, value)


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_19_an_engine_error_at_any_call_changes_nothing(kind: str) -> None:
    first = [entry(1, Put(b"a", b"1"), Put(b"b", b"1"))]
    second = [
        entry(2, Put(b"a", b"2"), Append(b"b", b"2", 9)),
        entry(3, Delete(b"a"), Put(b"\x00", b"3")),
        entry(4, GrantLease(9, 9), Put(b"a", b"", None, 6), AcquireLock(b"l", b"me", 9, 0, 9)),
        entry(5, Once(b"key", bytes(16), 0, Txn((), (Put(b"a", b""), ReadKey(b"a")), (), 9, 9))),
        entry(6, Compact(8), Sweep(9), Stamp(9), Expire(6), Expire(8)),
    ]
    fail_at, failed = 0, True
    while failed:
        with open_engine(kind) as engine:
            failing = FailingEngine(engine, fail_at)
            Store(engine).apply(first)
            store = Store(failing)
            before = state_of(store)
            try:
                store.apply(second)
            except StoreError:
                assert state_of(store) == before
                assert state_of(Store(engine)) == before
                # Nor does the failure stand in the way of the next process.
                assert len(Store(engine).apply(second)) == 5
            else:
                failed = False
                assert store.applied_index == Store(engine).applied_index == 6
        fail_at += 1
    assert fail_at > 50, "the engine was called so often at least"
