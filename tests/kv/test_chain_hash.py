"""The chain hash: equal for equal logs however they are sliced, and for nothing else."""

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
    GrantLease,
    KeepLeaseAlive,
    Once,
    Put,
    ReleaseLock,
    RevokeLease,
    Stamp,
    Sweep,
)
from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.records import (
    META_KEY,
    decode_lease,
    decode_lock,
    decode_meta,
    encode_lease,
    encode_lock,
    encode_meta,
    encode_number,
    rev_key,
)
from raftkv.kv.store import Store
from raftkv.raft.messages import Entry, EntryType
from tests.kv.against_model import entries_of, logs, slices_of, state_of
from tests.kv.support import DETERMINISTIC, entry, open_engine, run


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
    while other.applied_index < count:
        other.apply(entries[other.applied_index :][:slice_size])
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
