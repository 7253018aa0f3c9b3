"""Leases: what ends with them, and when (rules 20, 21 and 24)."""

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Delete,
    DeleteRange,
    Expire,
    GrantLease,
    Increment,
    KeepLeaseAlive,
    Put,
    RevokeLease,
    Stamp,
    Txn,
)
from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import (
    Deleted,
    Item,
    LeaseForbidden,
    LeaseFull,
    LeaseGranted,
    LeaseNotFound,
    LeaseRevoked,
    LockHeld,
    Swept,
    TxnDone,
    Written,
)
from raftkv.kv.store import EXPIRED_KEYS, Store
from tests.kv.support import counted_bytes, one, run


def keys_of(store: Store) -> list[bytes]:
    with store.engine.read() as reader:
        return [key for key, _ in reader.scan(Table.CUR, b"", None)]


def empty_tables(store: Store) -> bool:
    """Whether nothing is left of any lease."""
    with store.engine.read() as reader:
        tables = (Table.LEASE, Table.ATTACHED, Table.DEADLINE)
        return not any(True for table in tables for _ in reader.scan(table, b"", None))


def test_rule_21_a_lease_ends_only_by_an_expire_that_apply_checks_again() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), Put(b"k", b"", None, 1))
    assert store.is_time_needed
    assert run(store, Stamp(99), Expire(1)) == [Swept(2, 0), LeaseRevoked(2, 0)]
    assert store.due(99, 9) == []
    assert store.due(100, 9) == [Expire(1)]
    # Kept alive between the leader's proposal and its application.
    assert run(store, KeepLeaseAlive(1), Stamp(1), Expire(1)) == [
        LeaseGranted(2, 1, 100),
        Swept(2, 0),
        LeaseRevoked(2, 0),
    ]
    # Over by log time, and still there: a keepalive saves it.
    assert run(store, Stamp(99), KeepLeaseAlive(1), Expire(1)) == [
        Swept(2, 0),
        LeaseGranted(2, 1, 100),
        LeaseRevoked(2, 0),
    ]
    run(store, Stamp(100))
    assert store.get(b"k") is not None
    assert store.due(store.log_time_ms, 9) == [Expire(1)]
    assert run(store, Expire(1), Expire(1)) == [LeaseRevoked(3, 1), LeaseRevoked(3, 0)]
    assert store.get(b"k") is None
    assert store.get_at(b"k", 2) == Item(b"k", b"", 2, 2, 1, 1)
    assert not Store(store.engine).is_time_needed
    assert empty_tables(store)


def test_rule_21_what_is_due_comes_in_order_of_its_end_and_no_more_than_asked_for() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(300, 9), GrantLease(100, 9), GrantLease(200, 9), GrantLease(400, 9))
    assert store.due(300, 9) == [Expire(2), Expire(3), Expire(1)]
    assert store.due(300, 2) == [Expire(2), Expire(3)]
    assert store.due(300, 0) == []


def test_what_is_due_at_once_deletes_a_bounded_number_of_keys() -> None:
    store = Store(MemoryEngine())
    run(store, *(GrantLease(100, 9000) for _ in range(4)))
    for lease, count in ((1, 10), (2, EXPIRED_KEYS), (3, 1)):
        run(store, *(Put(b"%d-%d" % (lease, n), b"", None, lease) for n in range(count)))
    assert store.due(100, 9) == [Expire(1), Expire(2)]
    run(store, Stamp(100), Expire(1))
    assert store.due(100, 9) == [Expire(2)]
    run(store, Expire(2))
    assert store.due(100, 9) == [Expire(3), Expire(4)]


def test_rule_20_a_lease_takes_a_revision_when_it_is_made_and_ends_but_not_when_kept() -> None:
    store = Store(MemoryEngine())
    assert run(
        store,
        GrantLease(100, 9),
        KeepLeaseAlive(1),
        RevokeLease(1),
        RevokeLease(1),
        KeepLeaseAlive(1),
        Put(b"k", b"", None, 1),
        GrantLease(100, 9),
    ) == [
        LeaseGranted(1, 1, 100),
        LeaseGranted(1, 1, 100),
        LeaseRevoked(2, 0),
        LeaseNotFound(2),
        LeaseNotFound(2),
        LeaseNotFound(2),
        LeaseGranted(3, 3, 100),
    ]


def test_rule_24_the_keys_of_a_lease_vanish_together_at_one_revision() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 3), Put(b"a", b"", None, 1), Put(b"b", b"", None, 1))
    run(store, Put(b"c", b"", None, 1), Put(b"free", b""))
    assert run(store, RevokeLease(1)) == [LeaseRevoked(6, 3)]
    assert keys_of(store) == [b"free"]
    for key in (b"a", b"b", b"c"):
        assert store.get_at(key, 5) is not None
        assert store.get_at(key, 6) is None
    assert store.logical_bytes == counted_bytes(store.engine)


def test_rule_24_a_lease_has_no_more_keys_than_it_may() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 1), Put(b"a", b"1", None, 1))
    assert run(
        store,
        Put(b"b", b"", None, 1),
        Put(b"a", b"2", None, 1),  # it is one of its keys already
        Delete(b"a"),
        Put(b"b", b"", None, 1),
    ) == [LeaseFull(2), Written(3, 2), Deleted(4, 1), Written(5, 1)]


def test_a_put_says_anew_to_which_lease_its_key_belongs() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), GrantLease(100, 9), Put(b"k", b"", None, 1))
    run(store, Put(b"k", b"", None, 2))
    assert run(store, RevokeLease(1)) == [LeaseRevoked(5, 0)]
    run(store, Put(b"k", b"mine"))
    assert run(store, RevokeLease(2)) == [LeaseRevoked(7, 0)]
    assert store.get(b"k") == Item(b"k", b"mine", 3, 6, 3, 0)


def test_append_and_increment_leave_the_key_with_its_lease() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), Put(b"k", b"1", None, 1), Append(b"k", b"2", 9))
    run(store, Increment(b"k", 1))
    assert store.get(b"k") == Item(b"k", b"13", 2, 4, 3, 1)
    assert run(store, RevokeLease(1)) == [LeaseRevoked(5, 1)]
    assert store.get(b"k") is None


def test_a_deleted_key_leaves_its_lease_and_comes_back_without_one() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), Put(b"a", b"", None, 1), Put(b"b", b"", None, 1))
    run(store, Delete(b"a"), DeleteRange(b"b", None, 9), Put(b"a", b""), Append(b"b", b"", 9))
    assert run(store, RevokeLease(1)) == [LeaseRevoked(8, 0)]
    assert keys_of(store) == [b"a", b"b"]


@pytest.mark.parametrize("last", [Delete(b"k"), Put(b"k", b""), Put(b"k", b"", None, 1)])
def test_the_lease_of_a_ttl_ends_with_its_key(last: Delete | Put) -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), Put(b"k", b"", None, 0, 50))
    assert store.get(b"k") == Item(b"k", b"", 2, 2, 1, 2)
    assert run(store, Put(b"other", b"", None, 2)) == [LeaseFull(2)], "it is the key's own"
    run(store, last)
    assert store.lease_count == 1
    assert run(store, RevokeLease(2)) == [LeaseNotFound(3)]
    # A new ttl is a new lease.
    run(store, Put(b"k", b"", None, 0, 50), Put(b"k", b"", None, 0, 70))
    assert store.lease_count == 2
    assert store.due(70, 9) == [Expire(5)]
    run(store, Stamp(70), Expire(5))
    assert store.get(b"k") is None
    run(store, RevokeLease(1))
    assert empty_tables(store)


def test_each_ttl_in_a_transaction_is_a_lease_of_its_own() -> None:
    store = Store(MemoryEngine())
    ops = (Put(b"a", b"", None, 0, 50), Put(b"b", b"", None, 0, 60), Put(b"a", b"", None, 0, 70))
    assert one(store, Txn((), ops, (), 9, 9)) == TxnDone(
        1, True, (Written(1, 1), Written(1, 1), Written(1, 2))
    )
    second, third = 1 + (1 << 46), 1 + (2 << 46)
    assert store.due(100, 9) == [Expire(second), Expire(third)]
    run(store, Stamp(60), Expire(second))
    assert keys_of(store) == [b"a"]
    assert third < 2**53, "a number that JSON can carry"


def test_a_lease_is_revoked_only_if_all_that_hangs_on_it_has_the_prefix() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(100, 9), Put(b"a/1", b"", None, 1), Put(b"b", b"", None, 1))
    assert run(store, RevokeLease(1, b"a/")) == [LeaseForbidden(3)]
    run(store, Delete(b"b"))
    assert run(store, RevokeLease(1, b"a/")) == [LeaseRevoked(5, 1)]
    assert run(store, AcquireLock(b"b", b"me", 100, 0, 9)) == [LockHeld(6, 6, 100)]
    assert run(store, RevokeLease(6, b"a/")) == [LeaseForbidden(6)]
    assert run(store, RevokeLease(6, b"b")) == [LeaseRevoked(7, 0)]


def test_rule_19_no_number_in_a_command_stops_a_node() -> None:
    store = Store(MemoryEngine())
    largest = 2**64 - 1
    run(
        store,
        Stamp(largest),
        GrantLease(largest, 9),
        KeepLeaseAlive(1),
        Put(b"k", b"", None, 0, largest),
        AcquireLock(b"l", b"me", largest, largest, largest),
        AcquireLock(b"l", b"you", largest, largest, largest),
        *(KeepLeaseAlive(lease) for lease in (0, -1, -(2**63), largest)),
        *(RevokeLease(lease) for lease in (0, -1, -(2**63), largest)),
        *(Expire(lease) for lease in (0, -1, -(2**63), largest)),
        Put(b"k", b"", None, -1),
        Put(b"k", b"", None, largest),
        Stamp(largest),
    )
    assert store.revision == 4
