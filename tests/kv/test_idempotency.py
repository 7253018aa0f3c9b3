"""Idempotency records: told again, never done again (rule 22)."""

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    ClientCommand,
    Condition,
    Delete,
    Fenced,
    GrantLease,
    Increment,
    Once,
    Put,
    ReadKey,
    ReleaseLock,
    ReturnPrevious,
    Stamp,
    Sweep,
    Txn,
)
from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import (
    ConditionFailed,
    Deleted,
    Got,
    IdempotencyMismatch,
    Incremented,
    Item,
    LeaseGranted,
    LeaseNotFound,
    LockBusy,
    LockHeld,
    LockLost,
    LockQueued,
    LockReleased,
    NotACounter,
    Outcome,
    Replayed,
    Returned,
    Swept,
    TooLarge,
    TxnDone,
    TxnFailed,
    Written,
)
from raftkv.kv.store import SWEEP_RECORDS, Store
from tests.kv.support import counted_bytes, one, run

PRINT, OTHER = b"f" * 16, b"g" * 16


def once(command: ClientCommand, key: bytes = b"key", fingerprint: bytes = PRINT) -> Once:
    return Once(key, fingerprint, 1000, command)  # type: ignore[arg-type]


def test_rule_22_duplicates_have_one_effect_and_one_outcome_also_after_a_restart() -> None:
    store = Store(MemoryEngine())
    wanted = once(Append(b"k", b"x", 9))
    # Concurrent duplicates may be in one entry; a retry comes later.
    assert run(store, wanted, wanted) == [Written(1, 1), Replayed(1, Written(1, 1))]
    run(store, Put(b"other", b""))
    assert one(Store(store.engine), wanted) == Replayed(2, Written(1, 1))
    assert store.get(b"k") == Item(b"k", b"x", 1, 1, 1)


def test_rule_22_another_request_under_the_same_key_is_refused() -> None:
    store = Store(MemoryEngine())
    assert run(store, once(Put(b"k", b"1")), once(Put(b"k", b"2"), fingerprint=OTHER)) == [
        Written(1, 1),
        IdempotencyMismatch(1),
    ]
    item = store.get(b"k")
    assert item is not None
    assert item.value == b"1"


TXN = Txn((), (ReadKey(b"k"), Delete(b"k")), (), 9, 1000)
BIG = b"a value that must not be kept" * 10


@pytest.mark.parametrize(
    ("command", "first", "replayed"),
    [
        (Delete(b"k"), Deleted(2, 1), Deleted(2, 1)),
        (Delete(b"none"), Deleted(1, 0), Deleted(1, 0)),
        (Put(b"k", b"", Condition(exists=False)), ConditionFailed(1, 1), ConditionFailed(1, 1)),
        (Put(b"k", b"", None, 7), LeaseNotFound(1), LeaseNotFound(1)),
        (Append(b"k", b"x", 1), TooLarge(1, len(BIG) + 1), TooLarge(1, len(BIG) + 1)),
        (Increment(b"k", 1), NotACounter(1), NotACounter(1)),
        (Increment(b"n", 3), Incremented(2, 1, 3), Incremented(2, 1, 3)),
        (
            ReturnPrevious(Put(b"k", b"")),
            Returned(Written(2, 2), Item(b"k", BIG, 1, 1, 1)),
            Written(2, 2),
        ),
        (
            TXN,
            TxnDone(2, True, (Got(Item(b"k", BIG, 1, 1, 1)), Deleted(2, 1))),
            TxnDone(2, True, (Got(None), Deleted(2, 1))),
        ),
        (
            Txn((), (Increment(b"k", 1),), (), 9, 9),
            TxnFailed(1, True, 0, NotACounter(1)),
            TxnFailed(1, True, 0, NotACounter(1)),
        ),
        (GrantLease(50, 9), LeaseGranted(2, 2, 50), LeaseGranted(2, 2, 50)),
        (AcquireLock(b"l", b"me", 50, 0, 9), LockHeld(2, 2, 50), LockHeld(2, 2, 50)),
        (ReleaseLock(b"l", 7), LockLost(1), LockLost(1)),
        (Fenced(b"l", 7, Put(b"k", b"")), LockLost(1), LockLost(1)),
    ],
)
def test_rule_22_every_applied_outcome_is_kept_without_values(
    command: ClientCommand, first: Outcome, replayed: Outcome
) -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", BIG))
    assert one(store, once(command)) == first
    revision, before = store.revision, store.logical_bytes
    run(store, Put(b"k", b"in between"))
    assert one(store, once(command)) == Replayed(revision + 1, replayed)  # type: ignore[arg-type]
    assert store.logical_bytes - before < 100
    assert store.once_bytes < 150


def test_rule_22_a_place_in_a_queue_is_no_outcome_to_keep() -> None:
    store = Store(MemoryEngine())
    wanted = once(AcquireLock(b"l", b"b", 50, 500, 9))
    run(store, AcquireLock(b"l", b"a", 50, 0, 9))
    assert run(store, wanted, wanted) == [LockQueued(2, 2), LockQueued(3, 3)]
    assert run(store, ReleaseLock(b"l", 1), wanted) == [LockReleased(4), LockHeld(4, 4, 50)]
    assert one(store, wanted) == Replayed(4, LockHeld(4, 4, 50))
    busy = once(AcquireLock(b"l", b"c", 50, 0, 9), b"second")
    assert run(store, busy, busy) == [LockBusy(4, b"b"), Replayed(4, LockBusy(4, b"b"))]


def test_rule_21_a_record_ends_only_by_a_sweep_after_its_time() -> None:
    store = Store(MemoryEngine())
    wanted = once(Put(b"k", b""))
    run(store, wanted)
    assert store.is_time_needed
    assert store.due(999, 9) == []
    assert store.due(1000, 9) == [Sweep(SWEEP_RECORDS)]
    assert run(store, Stamp(999), Sweep(9), wanted) == [
        Swept(1, 0),
        Swept(1, 0),
        Replayed(1, Written(1, 1)),
    ]
    # Its time is over, and nobody swept: it is told again rather than done again.
    assert run(store, Stamp(1), wanted) == [Swept(1, 0), Replayed(1, Written(1, 1))]
    assert run(store, Sweep(9), wanted) == [Swept(1, 1), Written(2, 2)]


def test_rule_22_records_are_counted_and_swept_in_bounded_pieces() -> None:
    store = Store(MemoryEngine())
    run(store, *(once(Put(b"k", b""), b"%d" % n) for n in range(10)))
    tables = (Table.ONCE, Table.ONCE_END)
    assert store.once_count == 10
    assert store.once_bytes == counted_bytes(store.engine, tables) > 0
    run(store, Stamp(1000))
    assert one(store, Sweep(4)) == Swept(10, 4)
    assert store.once_count == 6
    assert store.once_bytes == counted_bytes(store.engine, tables) > 0
    assert one(store, Sweep(99)) == Swept(10, 6)
    assert (store.once_count, store.once_bytes) == (0, 0)
    assert store.logical_bytes == counted_bytes(store.engine)
    assert not store.is_time_needed
