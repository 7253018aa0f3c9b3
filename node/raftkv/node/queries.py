"""Answers queries from the store. Called by the node class once the store is new enough.

Which revision a read may see is decided before it comes here (`raftkv.node.reads`); this says
only what is found there.
"""

from collections.abc import Sequence
from typing import Final

from raftkv.kv.changes import Changes, ChangesAfter, LastChange, last_change, read_changes
from raftkv.kv.listing import HeldLock, find_lease, find_lock, list_leases, list_locks
from raftkv.kv.ranges import Page, Range, read_range
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

# Answers of one turn end with the one that goes beyond (rule 26): what is found is in memory until
# its client takes it, and 512 keys are a millisecond or two.
TURN_BYTES_MAX: Final = 1 << 20
TURN_QUERIES_MAX: Final = 512
# What finding an item costs, in bytes that are copied.
_ITEM_BYTES: Final = 1024
_COUNTED_KEY_BYTES: Final = 128


def answer_some(store: Store, queries: Sequence[Query]) -> list[Found | Failure]:
    """What the first of ``queries`` find: one at least, and no more than a turn has time for.

    Present values share one transaction of the engine.
    """
    if len(queries) > 1 and all(type(query) is Get and not query.revision for query in queries):
        revision = store.revision
        keys = [query.key for query in queries[:TURN_QUERIES_MAX] if type(query) is Get]
        return [ReadResult(item, revision) for item in store.get_each(keys, TURN_BYTES_MAX)]
    found: list[Found | Failure] = []
    cost_bytes = 0
    for query in queries:
        found.append(answer(store, query))
        cost_bytes += _cost_bytes(found[-1])
        if cost_bytes > TURN_BYTES_MAX:
            break
    return found


def _cost_bytes(found: Found | Failure) -> int:
    match found:
        case ReadResult(item=item):
            return _ITEM_BYTES + (0 if item is None else len(item.value))
        case Page(items=items, count=count):
            values_bytes = sum(len(item.value) for item in items)
            return values_bytes + _ITEM_BYTES * len(items) + _COUNTED_KEY_BYTES * count
        case Changes(changes=changes):
            items = tuple(item for c in changes for item in (c.item, c.previous) if item)
            return sum(len(item.value) for item in items) + _ITEM_BYTES * len(changes)
        case LeasesFound(leases=listed) | LocksFound(locks=listed):
            return _ITEM_BYTES * len(listed)
        case _:
            return _ITEM_BYTES


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
