"""Locks: one holder at a time, a replicated queue of those who wait, a fencing token.

Called by `raftkv.kv.execute` and, when the lease of a lock ends, by `raftkv.kv.leases`. The token
is the revision of the grant, so that a later holder always has a greater one, and it is the id of
the lock's lease: the lock is held as long as that lease exists. A command grants at most one lock,
which makes the id new.

A waiter has a ticket, the revision that queued it, or in which its owner asked again: an owner has
one place, and the latest to ask in its name has the ticket. So a request that was given up, and
leaves with its old ticket while another already asks elsewhere, takes nothing away; for one that
was granted the lock at once the token is the ticket. When a waiter
gets the lock the slice says so (`LockGrant`), because the command that made it happen is somebody
else's.

A lock whose lease is over by log time, but not ended yet, is held: no other gets it, and its fenced
writes are done. Log time may be a little behind when a lease is made, so that looking at it here
could end a lock before its ttl; only the leader, who knows by how much, says when it is over
(rule 21).
"""

from typing import Final

from msgspec.structs import replace

from raftkv.kv.commands import AcquireLock, KeepLockAlive, LeaveLock
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import (
    LockBusy,
    LockGrant,
    LockHeld,
    LockLost,
    LockQueued,
    LockReleased,
)
from raftkv.kv.records import Lock, Waiter, decode_lock, encode_lock
from raftkv.kv.slice import Slice

# Keys that may be attached to the lease of a lock. Part of what apply does: all versions must
# agree on it.
_LEASE_KEYS_MAX: Final = 10_000


def look_up(slice_: Slice, name: bytes) -> Lock | None:
    """The lock ``name``; None: nobody holds it."""
    data = slice_.get(Table.LOCK, name)
    return None if data is None else decode_lock(data)


def is_held(slice_: Slice, name: bytes, token: int) -> bool:
    """Whether a write fenced by ``token`` may still be done."""
    lock = look_up(slice_, name)
    return lock is not None and lock.token == token


def acquire(slice_: Slice, command: AcquireLock) -> LockHeld | LockQueued | LockBusy:
    """Take the lock, or a place in its queue; either again, with a new life, for its owner."""
    lock = look_up(slice_, command.name)
    if lock is None:
        slice_.lock_count += 1
        token = _grant(slice_, command.name, Waiter(0, command.owner, command.ttl_ms, 0))
        return LockHeld(slice_.revision, token, command.ttl_ms)
    if lock.owner == command.owner:
        if lock.ticket:
            lock = replace(lock, ticket=0)
            _set(slice_, command.name, lock)
        return _renew(slice_, lock)
    waiters = _alive(slice_, lock)
    until_ms = slice_.after(command.wait_ms)
    for place, waiter in enumerate(waiters):
        if waiter.owner == command.owner:
            ticket = slice_.take_revision()
            until_ms = max(waiter.until_ms, until_ms)
            waiters[place] = replace(waiter, ticket=ticket, until_ms=until_ms)
            _set(slice_, command.name, replace(lock, waiters=tuple(waiters)))
            return LockQueued(slice_.revision, ticket)
    if command.wait_ms == 0 or len(waiters) >= command.waiters_max:
        return LockBusy(slice_.revision, lock.owner)
    ticket = slice_.take_revision()
    waiters.append(Waiter(ticket, command.owner, command.ttl_ms, until_ms))
    _set(slice_, command.name, replace(lock, waiters=tuple(waiters)))
    return LockQueued(slice_.revision, ticket)


def keep_alive(slice_: Slice, command: KeepLockAlive) -> LockHeld | LockLost:
    """Let a lock be held for its whole ttl again."""
    lock = look_up(slice_, command.name)
    if lock is None or lock.token != command.token:
        return LockLost(slice_.revision)
    return _renew(slice_, lock)


def leave(slice_: Slice, command: LeaveLock) -> int | LockHeld | LockReleased:
    """Take a waiter out of the queue; a number: it holds the lock by that token, and gives it up.

    A ticket that is not there any more has left already.
    """
    lock = look_up(slice_, command.name)
    if lock is None:
        return LockReleased(slice_.revision)
    if lock.ticket == command.ticket != 0:
        if command.releases:
            return lock.token
        return LockHeld(slice_.revision, lock.token, lock.ttl_ms)
    waiters = tuple(w for w in lock.waiters if w.ticket != command.ticket)
    if len(waiters) < len(lock.waiters):
        slice_.take_revision()
        _set(slice_, command.name, replace(lock, waiters=waiters))
    return LockReleased(slice_.revision)


def pass_on(slice_: Slice, name: bytes) -> None:
    """The lease of the lock ended: the first who still waits gets it, or nobody holds it."""
    lock = look_up(slice_, name)
    assert lock is not None, "a lease names a lock that is not held"
    waiters = _alive(slice_, lock)
    if not waiters:
        slice_.set(Table.LOCK, name, None)
        slice_.lock_count -= 1
        return
    next_, *others = waiters
    token = _grant(slice_, name, next_, tuple(others))
    slice_.grants.append(LockGrant(name, next_.ticket, token, next_.ttl_ms))


def _grant(slice_: Slice, name: bytes, to: Waiter, others: tuple[Waiter, ...] = ()) -> int:
    token = slice_.add_lease(to.ttl_ms, _LEASE_KEYS_MAX, lock=name)
    ticket = to.ticket or token  # who did not wait has the token for a ticket
    _set(slice_, name, Lock(token, to.owner, to.ttl_ms, ticket, others))
    return token


def _renew(slice_: Slice, lock: Lock) -> LockHeld:
    lease = slice_.lease(lock.token)
    assert lease is not None, "a held lock has a lease"
    slice_.renew_lease(lock.token, lease)
    return LockHeld(slice_.revision, lock.token, lock.ttl_ms)


def _alive(slice_: Slice, lock: Lock) -> list[Waiter]:
    """Those whose time to wait is not over."""
    return [waiter for waiter in lock.waiters if slice_.log_time_ms < waiter.until_ms]


def _set(slice_: Slice, name: bytes, lock: Lock) -> None:
    slice_.set(Table.LOCK, name, encode_lock(lock))
