"""The store against a dumb model, and the rules of the node design that it keeps."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Compact,
    Condition,
    Delete,
    Expire,
    GrantLease,
    KeepLeaseAlive,
    Once,
    Put,
    ReadKey,
    ReleaseLock,
    RevokeLease,
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
from raftkv.kv.listing import find_lease, find_lock, list_leases, list_locks
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import ConditionFailed, Deleted, Item, Outcome, Swept, TooLarge, Written
from raftkv.kv.records import (
    META_KEY,
    Lease,
    decode_lease,
    decode_lock,
    decode_meta,
    encode_lease,
    encode_lock,
    encode_meta,
    encode_number,
    rev_key,
)
from raftkv.kv.store import ApplyError, RevisionCompacted, Store, StoreError
from raftkv.raft.messages import Entry, EntryType
from tests.kv.model import Model
from tests.kv.support import (
    DETERMINISTIC,
    KEYS,
    all_commands,
    counted_bytes,
    dump,
    entry,
    open_engine,
    run,
)

ENGINES = ["memory", "lmdb"]

# A log: what its entries hold, None for one without commands.
logs = st.lists(st.none() | st.lists(all_commands, max_size=6), max_size=10)


def entries_of(log: Sequence[Sequence[Command] | None]) -> list[Entry]:
    return [
        Entry(1, index, EntryType.NOOP, b"") if content is None else entry(index, *content)
        for index, content in enumerate(log, start=1)
    ]


def slices_of(entries: Sequence[Entry], sizes: Sequence[int]) -> Iterator[Sequence[Entry]]:
    start = 0
    for size in (*sizes, len(entries)):
        yield entries[start : start + size]
        start += size


def state_of(store: Store) -> tuple[object, ...]:
    """Everything that a store is and holds."""
    properties = (
        store.applied_index,
        store.revision,
        store.chain_hash,
        store.key_count,
        store.logical_bytes,
    )
    return (*properties, dump(store.engine, KEYS))


# ---- the model ------------------------------------------------------------------------------


def check_against_model(
    engine: Engine, log: Sequence[Sequence[Command] | None], sizes: Sequence[int]
) -> None:
    store, model = Store(engine), Model()
    for slice_ in slices_of(entries_of(log), sizes):
        for applied in store.apply(slice_):
            content = log[applied.index - 1]
            expected = None if content is None else tuple(model.execute(c) for c in content)
            assert without_swept_history(applied.outcomes, expected) == expected
            assert list(applied.grants) == model.grants
            model.grants.clear()
    # A store opened on the same tables is the same.
    for view in (store, Store(engine)):
        assert view.applied_index == len(log)
        assert view.revision == model.revision
        assert view.key_count == len(model.items)
        assert view.log_time_ms == model.log_time_ms
        assert view.compacted_revision == model.compacted_revision
        assert view.lease_count == len(model.leases)
        assert view.lock_count == len(model.locks)
        assert view.once_count == len(model.once)
        assert view.logical_bytes == counted_bytes(engine)
        assert view.once_bytes == counted_bytes(engine, (Table.ONCE, Table.ONCE_END))
        assert view.is_time_needed == bool(model.leases or model.once)
    for key in KEYS:
        assert store.get(key) == model.items.get(key)
        for revision, items in enumerate(model.states):
            if revision >= model.compacted_revision:
                assert store.get_at(key, revision) == items.get(key)
            else:
                with pytest.raises(RevisionCompacted):
                    store.get_at(key, revision)
    check_leases_and_locks(store, model)
    check_due(store, model)


def without_swept_history(
    outcomes: Sequence[Outcome] | None, expected: Sequence[Outcome] | None
) -> Sequence[Outcome] | None:
    """As ``outcomes``, but sweeps count what the model knows of: no history."""
    if outcomes is None or expected is None:
        return outcomes
    return tuple(
        replace(outcome, count=wanted.count)
        if isinstance(outcome, Swept) and isinstance(wanted, Swept) and outcome.count > wanted.count
        else outcome
        for outcome, wanted in zip(outcomes, expected, strict=True)
    )


def check_leases_and_locks(store: Store, model: Model) -> None:
    listed = dict(list_leases(store.engine, 0, 1000))
    assert listed.keys() == model.leases.keys()
    for lease, known in model.leases.items():
        keys = {key for key, item in model.items.items() if item.lease == lease}
        found = find_lease(store.engine, lease)
        assert found is not None
        assert found[0] == listed[lease]
        assert set(found[1]) == keys
        assert len(found[1]) == len(keys)
        assert found[0] == Lease(
            known.ttl_ms, known.ends_at_ms, known.keys_max, len(keys), known.is_private, known.lock
        )
    assert [held.name for held in list_locks(store.engine, b"", 1000)] == sorted(model.locks)
    for name, lock in model.locks.items():
        held = find_lock(store.engine, name)
        assert held is not None
        assert (held.lock.token, held.lock.owner, held.lock.ttl_ms, held.lock.ticket) == (
            lock.token,
            lock.owner,
            lock.ttl_ms,
            lock.ticket,
        )
        now = model.log_time_ms
        assert [(w.ticket, w.until_ms) for w in held.lock.waiters if w.until_ms > now] == [
            (w.ticket, w.until_ms) for w in lock.waiters if w.until_ms > now
        ]


def check_due(store: Store, model: Model) -> None:
    """What is due is applied, until nothing is: then nothing is over any more."""
    now = model.log_time_ms
    for _ in range(100):
        wanted = store.due(now, 3)
        assert len(wanted) <= 3
        if not wanted:
            break
        run(store, *wanted)
    assert store.due(now, 3) == []
    assert all(lease.ends_at_ms > now for _, lease in list_leases(store.engine, 0, 1000))
    assert store.once_count == sum(once.ends_at_ms > now for once in model.once.values())


@settings(DETERMINISTIC, max_examples=300)
@given(logs, st.lists(st.integers(1, 4), max_size=6))
def test_the_store_in_memory_is_the_model(
    log: list[list[Command] | None], sizes: list[int]
) -> None:
    check_against_model(MemoryEngine(), log, sizes)


@settings(DETERMINISTIC, max_examples=60)
@given(logs, st.lists(st.integers(1, 4), max_size=6))
def test_the_store_in_lmdb_is_the_model(log: list[list[Command] | None], sizes: list[int]) -> None:
    with open_engine("lmdb") as engine:
        check_against_model(engine, log, sizes)


# ---- rule 8 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 3])
def test_rule_08_entries_are_applied_without_gap_or_repetition(index: int) -> None:
    store = Store(MemoryEngine())
    store.apply([entry(1, Put(b"k", b"1"))])
    before = state_of(store)
    with pytest.raises(AssertionError, match="is applied as entry 2"):
        store.apply([entry(index, Put(b"k", b"2"))])
    with pytest.raises(AssertionError, match="is applied as entry 3"):
        store.apply([entry(2, Put(b"k", b"2")), entry(4, Put(b"k", b"4"))])
    assert state_of(store) == before


# ---- rule 19 --------------------------------------------------------------------------------


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


# ---- rule 20 --------------------------------------------------------------------------------


def test_rule_20_only_a_command_that_changed_a_key_takes_a_revision() -> None:
    store = Store(MemoryEngine())
    assert run(
        store,
        Delete(b"k"),
        Put(b"k", b"", Condition(exists=True)),
        Put(b"k", b"", Condition(revisions=(0, 1))),
        Append(b"k", b"12", 1),
        Put(b"k", b"v"),
        Put(b"k", b"v"),
        Delete(b"k", Condition(exists=False)),
        Delete(b"k", Condition(revisions=(1,))),
        Append(b"k", b"", 1, Condition(revisions=(7, 2))),
        Delete(b"k", Condition(revisions=(3,))),
        Delete(b"k"),
        Delete(b"k", Condition(exists=True)),
    ) == [
        Deleted(0, 0),
        ConditionFailed(0, 0),
        ConditionFailed(0, 0),
        TooLarge(0, 2),
        Written(1, 1),
        Written(2, 2),  # the same value is a change: the ETag is the revision
        ConditionFailed(2, 2),
        ConditionFailed(2, 2),
        Written(3, 3),
        Deleted(4, 1),
        Deleted(4, 0),
        ConditionFailed(4, 0),
    ]
    assert store.revision == 4


def test_rule_20_an_entry_without_commands_takes_an_index_but_no_revision() -> None:
    store = Store(MemoryEngine())
    applied = store.apply(
        [
            Entry(1, 1, EntryType.CONFIG, b"a configuration, opaque here"),
            Entry(2, 2, EntryType.NOOP, b""),
            entry(3, term=2),
            entry(4, Put(b"k", b""), term=2),
        ]
    )
    assert [(a.index, a.term, a.outcomes) for a in applied] == [
        (1, 1, None),
        (2, 2, None),
        (3, 2, ()),
        (4, 2, (Written(1, 1),)),
    ]
    assert (store.applied_index, store.revision) == (4, 1)


def test_rule_20_a_key_that_is_created_again_begins_again() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"1"), Put(b"k", b"2"), Delete(b"k"))
    (outcome,) = run(store, Append(b"k", b"3", 9))
    assert outcome == Written(4, 1)
    assert outcome.created
    assert store.get(b"k") == Item(b"k", b"3", 4, 4, 1)


# ---- rule 23 --------------------------------------------------------------------------------


@settings(DETERMINISTIC, max_examples=60)
@given(logs, st.lists(st.integers(1, 4), max_size=6), st.lists(st.integers(1, 4), max_size=6))
def test_rule_23_replicas_are_equal_however_the_log_is_sliced(
    log: list[list[Command] | None], sizes_one: list[int], sizes_two: list[int]
) -> None:
    entries = entries_of(log)
    with open_engine("lmdb") as lmdb:
        one, two = Store(MemoryEngine()), Store(lmdb)
        applied_one = [a for slice_ in slices_of(entries, sizes_one) for a in one.apply(slice_)]
        applied_two = [a for slice_ in slices_of(entries, sizes_two) for a in two.apply(slice_)]
        assert applied_one == applied_two
        assert state_of(one) == state_of(two)


def test_rule_23_the_hash_covers_index_term_type_command_outcome_and_mutation() -> None:
    put = entry(1, Put(b"k", b"v"))
    variants = [
        [],
        [put],
        [entry(1, Put(b"k", b"v"), term=2)],
        [entry(1, Put(b"k", b"w"))],
        [entry(1, Put(b"l", b"v"))],
        [entry(1, Put(b"k", b"v", Condition(exists=False)))],
        [entry(1, Append(b"k", b"v", 1))],
        [entry(1)],
        [Entry(1, 1, EntryType.NOOP, b"")],
        [Entry(1, 1, EntryType.CONFIG, b"")],
        [Entry(1, 1, EntryType.NOOP, b""), entry(2, Put(b"k", b"v"))],
        [put, Entry(1, 2, EntryType.NOOP, b"")],
    ]
    hashes = set()
    for entries in variants:
        store = Store(MemoryEngine())
        store.apply(entries)
        hashes.add(store.chain_hash)
    assert len(hashes) == len(variants)


def test_rule_23_replicas_that_differ_in_a_value_part_at_its_next_use() -> None:
    """Same commands, same outcomes: only the mutation tells."""
    hashes = set()
    for value in (b"v", b"w"):
        engine = MemoryEngine()
        store = Store(engine)
        store.apply([entry(1, Put(b"k", b"v"))])
        with engine.write() as writer:
            record = writer.get(Table.REV, rev_key(1, 0))
            assert record is not None
            writer.put(Table.REV, rev_key(1, 0), record[:-1] + value)
        store.apply([entry(2, Append(b"k", b"x", 9))])
        hashes.add(store.chain_hash)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("table", "key", "then"),
    [
        (Table.LEASE, encode_number(1), KeepLeaseAlive(1)),
        (Table.LOCK, b"l", ReleaseLock(b"l", 2)),
        (Table.META, META_KEY, Stamp(1)),
    ],
)
def test_rule_23_replicas_that_differ_beside_the_keys_part_at_the_next_use(
    table: Table, key: bytes, then: Command
) -> None:
    hashes = set()
    for is_damaged in (False, True):
        engine = MemoryEngine()
        store = Store(engine)
        run(store, GrantLease(100, 9), AcquireLock(b"l", b"a", 50, 0, 9))
        run(store, AcquireLock(b"l", b"b", 50, 60, 9), Stamp(1))
        if is_damaged:
            with engine.write() as writer:
                record = writer.get(table, key)
                assert record is not None
                writer.put(table, key, damaged(table, record))
        store = Store(engine)
        run(store, then)
        hashes.add(store.chain_hash)
    assert len(hashes) == 2


def damaged(table: Table, record: bytes) -> bytes:
    """Another record, with the same outcomes."""
    if table is Table.META:
        meta = decode_meta(record)
        return encode_meta(replace(meta, log_time_ms=meta.log_time_ms + 1))
    if table is Table.LEASE:
        return encode_lease(replace(decode_lease(record), keys_max=8))
    lock = decode_lock(record)
    waiters = tuple(replace(waiter, owner=b"somebody") for waiter in lock.waiters)
    return encode_lock(replace(lock, waiters=waiters))


@pytest.mark.parametrize("slice_size", [1, 700, 3000])
def test_rule_23_the_hash_is_kept_at_every_1024th_index(slice_size: int) -> None:
    """The last eight of them, whatever the slices, and over a restart."""
    count = 10 * 1024 + 5
    entries = [entry(index, Put(b"k", b"%d" % index)) for index in range(1, count + 1)]
    one, other = Store(MemoryEngine()), Store(MemoryEngine())
    hashes = []
    for start in range(0, count, 1024):
        one.apply(entries[start : start + 1024])
        hashes.append((one.applied_index, one.chain_hash))
    for start in range(0, count, slice_size):
        other.apply(entries[start : start + slice_size])
    assert other.hashes == Store(other.engine).hashes == tuple(hashes[2:10])
    assert [index for index, _ in other.hashes] == [1024 * n for n in range(3, 11)]


def test_rule_23_the_hash_is_stable_between_versions() -> None:
    """A change here means that replicas of two versions cannot be compared: raise the format."""
    store = Store(MemoryEngine())
    store.apply([entry(1, Put(b"k", b"v"), Delete(b"k")), Entry(2, 2, EntryType.NOOP, b"")])
    assert (
        store.chain_hash.hex() == "38d3756a644afd24d7117c0f585ca4e0e9e837b528802b7726281df7d7e1f5ca"
    )
    run(
        store,
        Stamp(5),
        GrantLease(10, 9),
        Once(b"key", bytes(16), 1000, Put(b"k", b"v", None, 3)),
        AcquireLock(b"l", b"me", 10, 0, 9),
        Compact(2),
        Sweep(9),
        RevokeLease(3),
    )
    assert (
        store.chain_hash.hex() == "72fcc3edd18eb1c95bcd93eadf169b8fea2d7ffd6ed7c547b0c3afe9fac49cd1"
    )


# ---- rule 24 --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_24_records_of_a_key_that_is_written_overwritten_deleted(kind: str) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        run(store, Put(b"a", b"1"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert [key for key, _ in cur] == [b"a"]
        assert [key for key, _ in rev] == [rev_key(1, 0)]
        assert history == [], "written only when a key is overwritten or deleted"

        run(store, Put(b"a", b"2"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert [key for key, _ in cur] == [b"a"]
        assert [key for key, _ in rev] == [rev_key(1, 0), rev_key(2, 0)]
        assert history == [rev_key(1, 0)]

        run(store, Delete(b"a"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert cur == []
        assert [key for key, _ in rev] == [rev_key(1, 0), rev_key(2, 0), rev_key(3, 0)]
        assert history == [rev_key(3, 0), rev_key(2, 0), rev_key(1, 0)]


def test_rule_24_no_read_transaction_outlives_a_call() -> None:
    # A commit while a snapshot is open fails in this engine, so each call proves the one before.
    store = Store(MemoryEngine())
    for _ in range(2):
        run(store, Put(b"a", b"1"), Delete(b"b"))
        store.get(b"a")
        run(store, Put(b"b", b"1"))
        store.get(b"missing")
        run(store, Delete(b"a"))
        store.get_at(b"a", 1)
        store.get_at(b"missing", 1)
    with open_engine("lmdb") as engine:
        assert isinstance(engine, LmdbEngine)
        store = Store(engine)
        run(store, Put(b"a", b"1"))
        store.get(b"a")
        store.get_at(b"missing", 1)
        assert active_readers(engine) == 0
        with engine.read():
            assert active_readers(engine) == 1
        assert active_readers(engine) == 0


def active_readers(engine: LmdbEngine) -> int:
    """How many slots of LMDB's reader table hold a transaction; a free one shows a dash."""
    _header, *slots = engine.env.readers().splitlines()
    return sum(slot.split()[-1] != "-" for slot in slots)


# ---- byte-exact keys and values -------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_keys_of_every_byte_and_length_are_kept_apart(kind: str) -> None:
    keys = [bytes((byte,)) for byte in range(256)]
    keys += [b"/" * length for length in range(2, 512)]
    keys += [b"\x00" * 511, b"\xff" * 511, b"\x00" * 510 + b"\x01", bytes(range(256))]
    keys += [b"a//b", b"a/../b", b"%FF", b"%25FF", "\u00e9".encode(), "e\u0301".encode()]
    assert len(set(keys)) == len(keys)
    with open_engine(kind) as engine:
        store = Store(engine)
        # Twice, so that the history holds each of them too.
        for round_ in (b"first", b"second"):
            run(store, *(Put(key, round_ + key) for key in keys))
        assert store.key_count == len(keys)
        for key in keys:
            item = store.get(key)
            assert item is not None
            assert (item.key, item.value, item.version) == (key, b"second" + key, 2)
            old = store.get_at(key, len(keys))
            assert old is not None
            assert (old.key, old.value, old.version) == (key, b"first" + key, 1)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    "value",
    [b"", b"\x00", bytes(range(256)), bytes(1 << 20), b"\xff" * (1 << 20), b"\x00" * 4096],
    ids=["empty", "nul", "every byte", "1 MiB of zeros", "1 MiB of ones", "a page of zeros"],
)
def test_values_are_kept_byte_for_byte(kind: str, value: bytes) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        run(store, Put(b"put", value), Append(b"appended", value, len(value)))
        run(store, Append(b"put", b"+", 1 << 21), Append(b"put", value, 1 << 22))
        assert store.get(b"appended") == Item(b"appended", value, 2, 2, 1)
        assert store.get_at(b"put", 1) == Item(b"put", value, 1, 1, 1)
        assert store.get(b"put") == Item(b"put", value + b"+" + value, 1, 4, 3)
