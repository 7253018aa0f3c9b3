"""Answers queries from the store. Called by the node class once the store is new enough.

Which revision a read may see is decided before it comes here (`raftkv.node.reads`); this says
only what is found there.
"""

from collections.abc import Sequence

from raftkv.kv.changes import ChangesAfter, LastChange, last_change, read_changes
from raftkv.kv.listing import HeldLock, find_lease, find_lock, list_leases, list_locks
from raftkv.kv.ranges import Range, read_range
from raftkv.kv.records import Lease
from raftkv.kv.store import RevisionCompacted, Store
from raftkv.node.events import (
    Found,
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


def answer_each(store: Store, queries: Sequence[Query]) -> list[Found | Failure]:
    """What each of ``queries`` finds; present values share one transaction of the engine."""
    if len(queries) > 1 and all(type(query) is Get and not query.revision for query in queries):
        revision = store.revision
        items = store.get_each([query.key for query in queries if type(query) is Get])
        return [ReadResult(item, revision) for item in items]
    return [answer(store, query) for query in queries]


def answer(store: Store, query: Query) -> Found | Failure:
    """What ``query`` finds; a failure if it asks for a revision that is gone or yet to come."""
    match query:
        case Get() | Range() | ChangesAfter():
            return _answer_at_revision(store, query)
        case LastChange():
            return last_change(store.engine, store.revision, store.compacted_revision, query)
        case GetLease():
            found = find_lease(store.engine, query.lease)
            info = None if found is None else _lease_info(store, query.lease, *found)
            return LeaseFound(info, store.revision)
        case ListLeases():
            leases = list_leases(store.engine, query.after, query.limit + 1)
            listed = tuple(_lease_info(store, *pair) for pair in leases[: query.limit])
            next_lease = listed[-1].lease if listed and len(leases) > query.limit else None
            return LeasesFound(listed, store.revision, next_lease)
        case GetLock():
            lock = find_lock(store.engine, query.name)
            return LockFound(None if lock is None else _lock_info(store, lock), store.revision)
        case ListLocks():
            locks = list_locks(store.engine, query.after, query.limit + 1)
            held = tuple(_lock_info(store, lock) for lock in locks[: query.limit])
            next_name = held[-1].name if held and len(locks) > query.limit else None
            return LocksFound(held, store.revision, next_name)


def _answer_at_revision(store: Store, query: Get | Range | ChangesAfter) -> Found | Failure:
    at = query.revision
    if at > store.revision:
        detail = f"revision {at} is in the future: the store is at {store.revision}"
        return Failure(FailureCode.FUTURE_REVISION, detail)
    try:
        if isinstance(query, Range):
            return read_range(store.engine, store.revision, query)
        if isinstance(query, ChangesAfter):
            return read_changes(store.engine, store.revision, query)
        item = store.get_at(query.key, at) if at else store.get(query.key)
        return ReadResult(item, store.revision)
    except RevisionCompacted as gone:
        detail = f"revision {at} is compacted: the oldest that can be read is {gone.oldest}"
        return Failure(FailureCode.COMPACTED, detail, revision=gone.oldest)


def _lease_info(store: Store, lease: int, known: Lease, keys: tuple[bytes, ...] = ()) -> LeaseInfo:
    return LeaseInfo(lease, known.ttl_ms, _remaining_ms(store, known), keys)


def _lock_info(store: Store, held: HeldLock) -> LockInfo:
    lock = held.lock
    # Those whose time is over have left, though the record may name them until it changes.
    waiters = tuple(w.owner for w in lock.waiters if store.log_time_ms < w.until_ms)
    remaining_ms = _remaining_ms(store, held.lease)
    return LockInfo(held.name, lock.owner, lock.token, lock.ttl_ms, remaining_ms, waiters)


def _remaining_ms(store: Store, lease: Lease) -> int:
    return max(0, lease.ends_at_ms - store.log_time_ms)
