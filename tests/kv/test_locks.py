"""Locks: one holder, a queue, and a token that fences writes (rules 20 and 21)."""

from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Expire,
    Fenced,
    KeepLeaseAlive,
    KeepLockAlive,
    LeaveLock,
    Put,
    ReleaseLock,
    RevokeLease,
    Stamp,
)
from raftkv.kv.engine import Table
from raftkv.kv.listing import find_lock
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import (
    LeaseGranted,
    LeaseRevoked,
    LockBusy,
    LockGrant,
    LockHeld,
    LockLost,
    LockQueued,
    LockReleased,
    Outcome,
    Swept,
    TooLarge,
    Written,
)
from raftkv.kv.store import Store
from tests.kv.support import counted_bytes, entry, run

LOCK = b"l"


def acquire(owner: bytes, *, ttl_ms: int = 100, wait_ms: int = 0, waiters_max: int = 9) -> Command:
    return AcquireLock(LOCK, owner, ttl_ms, wait_ms, waiters_max)


def apply(store: Store, *wanted: Command) -> tuple[list[Outcome], tuple[LockGrant, ...]]:
    (applied,) = store.apply([entry(store.applied_index + 1, *wanted)])
    assert applied.outcomes is not None
    return list(applied.outcomes), applied.grants


def test_rule_20_a_later_holder_has_a_greater_token_and_one_owner_the_same() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b""))
    assert run(
        store,
        acquire(b"a"),
        acquire(b"a"),
        acquire(b"b"),
        ReleaseLock(LOCK, 1),
        ReleaseLock(LOCK, 2),
        ReleaseLock(LOCK, 2),
        acquire(b"b"),
    ) == [
        LockHeld(2, 2, 100),
        LockHeld(2, 2, 100),
        LockBusy(2, b"a"),
        LockLost(2),
        LockReleased(3),
        LockLost(3),
        LockHeld(4, 4, 100),
    ]
    assert (store.lock_count, store.lease_count) == (1, 1)


def test_rule_20_a_place_in_the_queue_is_kept_and_its_ticket_is_the_newest() -> None:
    store = Store(MemoryEngine())
    outcomes, grants = apply(
        store,
        acquire(b"a"),
        acquire(b"b", wait_ms=50, ttl_ms=70),
        acquire(b"c", wait_ms=50),
        acquire(b"b", wait_ms=90),
        acquire(b"d", wait_ms=50, waiters_max=2),
    )
    assert outcomes == [
        LockHeld(1, 1, 100),
        LockQueued(2, 2),
        LockQueued(3, 3),
        LockQueued(4, 4),
        LockBusy(4, b"a"),
    ]
    assert grants == ()
    outcomes, grants = apply(store, ReleaseLock(LOCK, 1), Put(b"k", b""))
    assert outcomes == [LockReleased(5), Written(6, 1)]
    assert grants == (LockGrant(LOCK, 4, 5, 70),)
    assert run(store, acquire(b"b")) == [LockHeld(6, 5, 70)]
    # Now with the grant in an entry that grants to each in turn.
    outcomes, grants = apply(store, ReleaseLock(LOCK, 5), ReleaseLock(LOCK, 7))
    assert outcomes == [LockReleased(7), LockReleased(8)]
    assert grants == (LockGrant(LOCK, 3, 7, 100),)
    assert (store.lock_count, store.lease_count) == (0, 0)
    with store.engine.read() as reader:
        assert not list(reader.scan(Table.LOCK, b"", None))


def test_a_request_that_was_given_up_takes_nothing_from_a_retry_elsewhere() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"), acquire(b"b", wait_ms=50), acquire(b"b", wait_ms=50))
    # The first request of b leaves, while the second waits; and once the lock was granted.
    assert run(store, LeaveLock(LOCK, 2, releases=True)) == [LockReleased(3)]
    _, grants = apply(store, ReleaseLock(LOCK, 1))
    assert grants == (LockGrant(LOCK, 3, 4, 100),)
    assert run(store, acquire(b"b")) == [LockHeld(4, 4, 100)]
    for ticket in (2, 3):
        assert run(store, LeaveLock(LOCK, ticket, releases=True)) == [LockReleased(4)]
    assert store.lock_count == 1


def test_rule_21_who_waited_for_too_long_is_passed_over() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"), acquire(b"b", wait_ms=10), acquire(b"c", wait_ms=20))
    run(store, Stamp(10))
    # The one whose time is over takes up no room, and asking again is a new place.
    assert run(store, acquire(b"b", wait_ms=30, waiters_max=2)) == [LockQueued(4, 4)]
    _, grants = apply(store, ReleaseLock(LOCK, 1))
    assert grants == (LockGrant(LOCK, 3, 5, 100),)
    run(store, Stamp(30))
    outcomes, grants = apply(store, ReleaseLock(LOCK, 5))
    assert (outcomes, grants) == ([LockReleased(6)], ())
    assert store.lock_count == 0


def test_rule_21_a_lock_goes_on_when_its_lease_expires_or_is_revoked() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"), acquire(b"b", wait_ms=500), acquire(b"c", wait_ms=500))
    run(store, Put(b"session", b"a", None, 1), Stamp(100))
    assert store.due(100, 9) == [Expire(1)]
    outcomes, grants = apply(store, Expire(1))
    assert (outcomes, grants) == ([LeaseRevoked(5, 1)], (LockGrant(LOCK, 2, 5, 100),))
    assert store.get(b"session") is None, "a key that is attached to a lock goes with it"
    outcomes, grants = apply(store, RevokeLease(5))
    assert (outcomes, grants) == ([LeaseRevoked(6, 0)], (LockGrant(LOCK, 3, 6, 100),))
    assert store.logical_bytes == counted_bytes(store.engine)


def test_rule_21_a_lock_is_kept_alive_by_its_token_or_as_a_lease() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"))
    kept: list[tuple[Command, Outcome]] = [
        (KeepLockAlive(LOCK, 1), LockHeld(1, 1, 100)),
        (KeepLeaseAlive(1), LeaseGranted(1, 1, 100)),
        (acquire(b"a"), LockHeld(1, 1, 100)),
    ]
    for keep, outcome in kept:
        assert run(store, Stamp(99), keep, Stamp(99), Expire(1)) == [
            Swept(1, 0),
            outcome,
            Swept(1, 0),
            LeaseRevoked(1, 0),
        ]
        run(store, KeepLeaseAlive(1))
    assert run(store, KeepLockAlive(LOCK, 2), KeepLockAlive(b"other", 1)) == [LockLost(1)] * 2


def test_a_waiter_leaves_the_queue_or_gives_back_what_came_too_late() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"), acquire(b"b", wait_ms=50), acquire(b"c", wait_ms=50))
    assert run(store, LeaveLock(LOCK, 2, releases=True)) == [LockReleased(4)]
    assert run(store, LeaveLock(LOCK, 2, releases=True)) == [LockReleased(4)]
    _, grants = apply(store, ReleaseLock(LOCK, 1))
    assert grants == (LockGrant(LOCK, 3, 5, 100),)
    # It has the lock by now: kept, or given up for good.
    assert run(store, LeaveLock(LOCK, 3, releases=False)) == [LockHeld(5, 5, 100)]
    assert run(store, LeaveLock(LOCK, 3, releases=True)) == [LockReleased(6)]
    assert run(store, LeaveLock(LOCK, 3, releases=True)) == [LockReleased(6)]
    assert store.lock_count == 0


def test_who_got_the_lock_at_once_gives_it_back_unless_it_asked_again() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"))
    for ticket in (0, 2):
        assert run(store, LeaveLock(LOCK, ticket, releases=True)) == [LockReleased(1)]
    assert run(store, LeaveLock(LOCK, 1, releases=False)) == [LockHeld(1, 1, 100)]
    assert run(store, LeaveLock(LOCK, 1, releases=True)) == [LockReleased(2)]
    assert find_lock(store.engine, LOCK) is None
    # A request that was given up, and a retry through another node that was told of the lock.
    assert run(store, acquire(b"a"), acquire(b"a")) == [LockHeld(3, 3, 100)] * 2
    for ticket in (0, 3):
        assert run(store, LeaveLock(LOCK, ticket, releases=True)) == [LockReleased(3)]
    assert find_lock(store.engine, LOCK) is not None


def test_rule_21_a_fenced_write_is_done_just_while_the_lock_is_held_under_its_token() -> None:
    store = Store(MemoryEngine())
    run(store, acquire(b"a"), acquire(b"b", wait_ms=500))

    def fenced(token: int, name: bytes = LOCK) -> Command:
        return Fenced(name, token, Append(b"k", b"x", 3))

    assert run(store, fenced(1), fenced(2), fenced(1, b"other")) == [
        Written(3, 1),
        LockLost(3),
        LockLost(3),
    ]
    # Its time is over, and nobody ended it: the lock is lost by an Expire only.
    assert run(store, Stamp(100), fenced(1)) == [Swept(3, 0), Written(4, 2)]
    run(store, Expire(1))
    assert run(store, fenced(1), fenced(5), fenced(5)) == [
        LockLost(5),
        Written(6, 3),
        TooLarge(6, 4),
    ]
