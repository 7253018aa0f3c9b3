"""What each query finds in a store."""

from raftkv.kv.changes import ChangesAfter
from raftkv.kv.commands import AcquireLock, Compact, GrantLease, Put, Stamp
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.ranges import Page, Range
from raftkv.kv.store import Store
from raftkv.node.events import (
    Get,
    GetLease,
    GetLock,
    LeaseFound,
    LeaseInfo,
    LeasesFound,
    ListLeases,
    ListLocks,
    LockFound,
    LockInfo,
    LocksFound,
    Query,
    ReadResult,
)
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.queries import TURN_BYTES_MAX, TURN_QUERIES_MAX, answer, answer_some
from tests.kv.support import run


def test_leases_are_found_with_their_keys_and_listed_without() -> None:
    store = Store(MemoryEngine())
    run(store, GrantLease(1000, 9), Put(b"b", b"", None, 1), Put(b"a", b"", None, 1))
    run(store, Stamp(400), GrantLease(50, 9), Put(b"c", b"", None, 0, 70), Stamp(60))
    first, second = LeaseInfo(1, 1000, 540, ()), LeaseInfo(4, 50, 0, ())
    private = LeaseInfo(5, 70, 10, ())
    assert answer(store, GetLease(1)) == LeaseFound(LeaseInfo(1, 1000, 540, (b"b", b"a")), 5)
    assert answer(store, GetLease(5)) == LeaseFound(LeaseInfo(5, 70, 10, (b"c",)), 5)
    for missing in (0, -1, 2, 2**64 - 1, 2**64, 2**80):
        assert answer(store, GetLease(missing)) == LeaseFound(None, 5)
    assert answer(store, ListLeases()) == LeasesFound((first, second, private), 5, None)
    assert answer(store, ListLeases(0, 2)) == LeasesFound((first, second), 5, 4)
    assert answer(store, ListLeases(4, 1)) == LeasesFound((private,), 5, None)
    for beyond in (5, 2**64 - 1, 2**80):
        assert answer(store, ListLeases(beyond)) == LeasesFound((), 5, None)


def test_locks_are_found_and_listed_with_those_who_still_wait() -> None:
    store = Store(MemoryEngine())
    run(
        store,
        AcquireLock(b"l1", b"alice", 1000, 0, 9),
        AcquireLock(b"l1", b"bob", 1000, 30, 9),
        AcquireLock(b"l1", b"carol", 1000, 80, 9),
        AcquireLock(b"l2", b"dave", 500, 0, 9),
        Stamp(30),
    )
    one = LockInfo(b"l1", b"alice", 1, 1000, 970, (b"carol",))
    two = LockInfo(b"l2", b"dave", 4, 500, 470, ())
    assert answer(store, GetLock(b"l1")) == LockFound(one, 4)
    for missing in (b"", b"l", b"l" * 511, b"l" * 512):
        assert answer(store, GetLock(missing)) == LockFound(None, 4)
    assert answer(store, ListLocks()) == LocksFound((one, two), 4, None)
    assert answer(store, ListLocks(limit=1)) == LocksFound((one,), 4, b"l1")
    assert answer(store, ListLocks(b"l1")) == LocksFound((two,), 4, None)
    for beyond in (b"l2", b"\xff" * 600):
        assert answer(store, ListLocks(beyond)) == LocksFound((), 4, None)


def test_rule_25_a_compacted_revision_is_refused_with_the_oldest_that_is_left() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"1"), Put(b"k", b"2"), Put(b"k", b"3"), Compact(2))
    detail = "revision 1 is compacted: the oldest that can be read is 2"
    refused = Failure(FailureCode.COMPACTED, detail, revision=2)
    assert answer(store, Get(b"k", 1)) == refused
    assert answer(store, Range(revision=1)) == refused
    at_oldest = answer(store, Range(revision=2))
    assert isinstance(at_oldest, Page)
    assert [item.value for item in at_oldest.items] == [b"2"]
    assert answer(store, Get(b"k", 2)) == ReadResult(at_oldest.items[0], 3)
    future = answer(store, Get(b"k", 4))
    assert isinstance(future, Failure)
    assert future.code is FailureCode.FUTURE_REVISION


def test_rule_26_a_turn_reads_no_more_than_it_has_time_for() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"large", bytes(TURN_BYTES_MAX // 2 + 1)), Put(b"small", b"v"))
    large, small = Get(b"large"), Get(b"small")
    cases: list[tuple[list[Query], int]] = [
        ([small] * 9, 9),
        ([small] * 2000, TURN_QUERIES_MAX),
        ([small, large, small, large, small], 4),
        ([large] * 9, 2),
        ([large], 1),
        # Not all of them plain.
        ([ListLocks(), large, small, large, small], 4),
        ([Range(b"", None)] * 9, 2),
        ([Range(b"", None, with_values=False)] * 9, 9),
        ([ChangesAfter(0, b"", None)] * 9, 2),
    ]
    for queries, count in cases:
        found = answer_some(store, queries)
        assert found == [answer(store, query) for query in queries[:count]]
