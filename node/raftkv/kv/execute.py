"""Gives every command its meaning: the one place that knows all of them.

Called by `raftkv.kv.store` for each command of an entry, in order. What each does to the tables is
in the module of its concern; this says which, and what `Fenced` and `Once` add around it.
"""

from raftkv.kv import history, idempotency, keys, leases, locks
from raftkv.kv.commands import (
    AcquireLock,
    Append,
    Command,
    Compact,
    Delete,
    DeleteRange,
    Expire,
    Fenced,
    GrantLease,
    Increment,
    KeepLeaseAlive,
    KeepLockAlive,
    LeaveLock,
    Once,
    Put,
    ReleaseLock,
    ReturnPrevious,
    RevokeLease,
    Stamp,
    Sweep,
    Txn,
)
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import LockLost, LockReleased, Outcome, PlainOutcome, Swept
from raftkv.kv.records import encode_number
from raftkv.kv.slice import Slice
from raftkv.kv.txn import transact


def execute(slice_: Slice, command: Command) -> Outcome:
    """Apply one command. All its changes share one revision."""
    slice_.begin_command()
    if isinstance(command, Put):  # before all others: the most frequent by far
        return keys.put(slice_, command)
    if isinstance(command, Once):
        recalled = idempotency.recall(slice_, command)
        if recalled is not None:
            return recalled
        outcome = _do(slice_, command.command)
        idempotency.remember(slice_, command, outcome)
        return outcome
    return _do(slice_, command)


def _do(slice_: Slice, command: Command) -> PlainOutcome:
    match command:
        case Put() | Delete() | Append() | Increment():
            return keys.do_key_command(slice_, command)
        case ReturnPrevious():
            return keys.return_previous(slice_, command)
        case DeleteRange():
            return keys.delete_range(slice_, command, command.keys_max)
        case Txn():
            return transact(slice_, command)
        case Fenced():
            if not locks.is_held(slice_, command.name, command.token):
                return LockLost(slice_.revision)
            return _do(slice_, command.command)
        case Stamp() | Sweep() | Compact():
            return _keep_house(slice_, command)
        case GrantLease() | KeepLeaseAlive() | RevokeLease() | Expire():
            return _do_lease_command(slice_, command)
        case AcquireLock() | KeepLockAlive() | ReleaseLock() | LeaveLock():
            return _do_lock_command(slice_, command)
        case Once():
            raise AssertionError("Once is not inside another command")


def _do_lease_command(
    slice_: Slice, command: GrantLease | KeepLeaseAlive | RevokeLease | Expire
) -> PlainOutcome:
    match command:
        case GrantLease():
            return leases.grant(slice_, command)
        case KeepLeaseAlive():
            return leases.keep_alive(slice_, command)
        case RevokeLease():
            return leases.revoke(slice_, command)
        case Expire():
            return leases.expire(slice_, command)


def _do_lock_command(
    slice_: Slice, command: AcquireLock | KeepLockAlive | ReleaseLock | LeaveLock
) -> PlainOutcome:
    match command:
        case AcquireLock():
            return locks.acquire(slice_, command)
        case KeepLockAlive():
            return locks.keep_alive(slice_, command)
        case LeaveLock():
            left = locks.leave(slice_, command)
            return _release(slice_, left) if isinstance(left, int) else left
        case ReleaseLock():
            lock = locks.look_up(slice_, command.name)
            if lock is None or lock.token != command.token:
                return LockLost(slice_.revision)
            return _release(slice_, command.token)


def _release(slice_: Slice, token: int) -> LockReleased:
    leases.end_of_lock(slice_, token)
    return LockReleased(slice_.revision)


def _keep_house(slice_: Slice, command: Stamp | Sweep | Compact) -> PlainOutcome:
    match command:
        case Stamp():
            slice_.log_time_ms = slice_.after(command.elapsed_ms)
            slice_.note(Table.META, history.LOG_TIME_KEY, encode_number(slice_.log_time_ms))
            return Swept(slice_.revision, 0)
        case Sweep():
            return history.sweep(slice_, command)
        case Compact():
            return history.compact(slice_, command)
