"""What commands do to single keys and to ranges of them.

Called by `raftkv.kv.execute` and, for the operations of a transaction, by `raftkv.kv.txn`. A
command that cannot be done changes nothing and takes no revision.
"""

import re
from typing import Final

from raftkv.kv.commands import (
    Append,
    Condition,
    Delete,
    DeleteRange,
    Increment,
    KeyCommand,
    Put,
    ReturnPrevious,
)
from raftkv.kv.outcomes import (
    ConditionFailed,
    CounterOverflow,
    Deleted,
    Incremented,
    LeaseFull,
    LeaseNotFound,
    NotACounter,
    Returned,
    TooLarge,
    TooManyKeys,
    Written,
)
from raftkv.kv.records import Current
from raftkv.kv.slice import Slice

KeyOutcome = (
    Written
    | Deleted
    | Incremented
    | ConditionFailed
    | TooLarge
    | NotACounter
    | CounterOverflow
    | LeaseNotFound
    | LeaseFull
)

_COUNTER: Final = re.compile(rb"-?[0-9]{1,19}\Z")
_COUNTER_MIN: Final = -(2**63)
_COUNTER_MAX: Final = 2**63 - 1


def do_key_command(slice_: Slice, command: KeyCommand) -> KeyOutcome:
    """Do one command to one key."""
    if isinstance(command, Put):
        return put(slice_, command)
    current = slice_.look_up(command.key)
    if not _holds(command.condition, current):
        return _condition_failed(slice_, current)
    match command:
        case Delete():
            return _delete(slice_, command, current)
        case Append():
            return _append(slice_, command, current)
        case Increment():
            return _increment(slice_, command, current)


def put(slice_: Slice, command: Put) -> KeyOutcome:
    """Store a value; the lease of the key is the one that the command names, or none."""
    key = command.key
    current = slice_.look_up(key)
    condition = command.condition
    if condition is not None and not _holds(condition, current):
        return _condition_failed(slice_, current)
    lease = command.lease
    if lease:
        known = slice_.lease(lease)
        if known is None:
            return LeaseNotFound(slice_.revision)
        is_attached = current is not None and current.lease == lease
        if known.key_count >= known.keys_max and not is_attached:
            return LeaseFull(slice_.revision)
    elif command.ttl_ms:
        lease = slice_.add_lease(command.ttl_ms, 1, is_private=True)
    return slice_.store(key, command.value, current, lease)


def return_previous(slice_: Slice, wanted: ReturnPrevious) -> KeyOutcome | Returned:
    """Do the command within; if it is done, add the item as it was before."""
    previous = slice_.item(wanted.command.key)
    outcome = do_key_command(slice_, wanted.command)
    if isinstance(outcome, Written | Deleted | Incremented):
        return Returned(outcome, previous)
    return outcome


def delete_range(slice_: Slice, command: DeleteRange, keys_max: int) -> Deleted | TooManyKeys:
    """Remove the keys of a range, unless there are more than ``keys_max``."""
    keys = slice_.existing(command.start, command.end, keys_max + 1)
    if len(keys) > keys_max:
        return TooManyKeys(slice_.revision)
    remove_all(slice_, keys)
    return Deleted(slice_.revision, len(keys))


def remove_all(slice_: Slice, keys: list[bytes]) -> None:
    """Remove ``keys``, which exist."""
    for key in keys:
        current = slice_.look_up(key)
        assert current is not None, "a key that is to be removed does not exist"
        slice_.remove(key, current)


def _append(slice_: Slice, command: Append, current: Current | None) -> Written | TooLarge:
    value = command.suffix if current is None else slice_.value(current) + command.suffix
    if len(value) > command.value_bytes_max:
        return TooLarge(slice_.revision, len(value))
    return slice_.store(command.key, value, current, _lease(current))


def _delete(slice_: Slice, command: Delete, current: Current | None) -> Deleted:
    if current is None:
        return Deleted(slice_.revision, 0)
    slice_.remove(command.key, current)
    return Deleted(slice_.revision, 1)


def _increment(
    slice_: Slice, command: Increment, current: Current | None
) -> Incremented | NotACounter | CounterOverflow:
    number = 0 if current is None else _counter(slice_.value(current))
    if number is None:
        return NotACounter(slice_.revision)
    total = number + command.by
    if not _COUNTER_MIN <= total <= _COUNTER_MAX:
        return CounterOverflow(slice_.revision, number)
    text = str(total).encode("ascii")
    written = slice_.store(command.key, text, current, _lease(current))
    return Incremented(written.revision, written.version, total)


def _counter(value: bytes) -> int | None:
    """The decimal number that ``value`` is, if it has 64 bits with sign; else None."""
    if _COUNTER.match(value) is None:
        return None
    number = int(value)
    return number if _COUNTER_MIN <= number <= _COUNTER_MAX else None


def _lease(current: Current | None) -> int:
    return 0 if current is None else current.lease


def _holds(condition: Condition | None, current: Current | None) -> bool:
    """Whether ``condition`` is met. A key that does not exist has none of any revisions."""
    if condition is None:
        return True
    if condition.exists is not None and condition.exists != (current is not None):
        return False
    if condition.revisions is None:
        return True
    return current is not None and current.mod_revision in condition.revisions


def _condition_failed(slice_: Slice, current: Current | None) -> ConditionFailed:
    return ConditionFailed(slice_.revision, 0 if current is None else current.mod_revision)
