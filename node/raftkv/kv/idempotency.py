"""Idempotency records: what came of a request is told again instead of done again (rule 22).

Called by `raftkv.kv.execute`. A record is made by the command itself, in its transaction, so that
of duplicates in the log only the first takes effect, whichever node they came through. It stays
until a `Sweep` after its time, never less.
"""

from msgspec.structs import replace

from raftkv.kv.commands import Once
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import (
    Got,
    IdempotencyMismatch,
    LockQueued,
    Outcome,
    PlainOutcome,
    Replayed,
    Returned,
    TxnDone,
    decode_outcome,
    encode_outcome,
)
from raftkv.kv.records import OnceRecord, decode_once, encode_number, encode_once
from raftkv.kv.slice import Slice


def recall(slice_: Slice, once: Once) -> Replayed | IdempotencyMismatch | None:
    """The answer to a request whose key was used before; None: it was not, do it."""
    data = slice_.get(Table.ONCE, once.key)
    if data is None:
        return None
    record = decode_once(data)
    if record.fingerprint != once.fingerprint:
        return IdempotencyMismatch(slice_.revision)
    outcome = decode_outcome(record.outcome)
    assert not isinstance(outcome, Replayed), "what is stored was not replayed itself"
    return Replayed(slice_.revision, outcome)


def remember(slice_: Slice, once: Once, outcome: PlainOutcome) -> None:
    """Store what came of ``once``, less any values.

    Except `LockQueued`, which is no end: a retry asks again, and finds the owner's place in the
    queue or the lock itself.
    """
    if isinstance(outcome, LockQueued):
        return
    ends_at_ms = slice_.after(once.keep_ms)
    stored = OnceRecord(ends_at_ms, once.fingerprint, encode_outcome(_without_values(outcome)))
    before = slice_.logical_bytes
    slice_.set(Table.ONCE, once.key, encode_once(stored))
    slice_.set(Table.ONCE_END, encode_number(ends_at_ms) + once.key, b"")
    slice_.once_bytes += slice_.logical_bytes - before
    slice_.once_count += 1


def forget_expired(slice_: Slice, count_max: int) -> int:
    """Remove at most ``count_max`` records whose time is over; how many."""
    if slice_.once_count == 0 or count_max <= 0:
        return 0
    end = encode_number(slice_.log_time_ms + 1)
    over = slice_.scan(Table.ONCE_END, b"", end, count_max)
    before = slice_.logical_bytes
    for place, _ in over:
        slice_.set(Table.ONCE, place[8:], None)
        slice_.set(Table.ONCE_END, place, None)
    slice_.once_bytes += slice_.logical_bytes - before
    slice_.once_count -= len(over)
    return len(over)


def _without_values(outcome: PlainOutcome) -> Outcome:
    match outcome:
        case Returned():
            return outcome.outcome
        case TxnDone():
            results = tuple(Got(None) if isinstance(r, Got) else r for r in outcome.results)
            return replace(outcome, results=results)
        case _:
            return outcome
