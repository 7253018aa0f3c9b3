"""The past: what may be read of it, what compaction forgets, how its room is freed.

Called by `raftkv.kv.execute` for `Compact` and `Sweep`, and by whoever reads at a revision.

A compaction takes effect at once, as one number; a read at that revision or later finds the same
as before. What it made useless goes bit by bit. A record is useless as soon as the one that
superseded it can be read at all revisions that are left, and a tombstone together with what it
removed. So a sweep goes through REV upwards, once and for all, and for each record removes the one
before it of the same key: the cost is that of the changes there were, not that of the keys there
are, however often the store is compacted.
"""

from typing import Final

from raftkv.kv.commands import Compact, Sweep
from raftkv.kv.engine import EngineReader, StoreError, Table
from raftkv.kv.idempotency import forget_expired
from raftkv.kv.outcomes import Compacted, NotYetReached, Swept
from raftkv.kv.records import (
    META_KEY,
    decode_key,
    decode_meta,
    encode_number,
    is_tombstone,
    rev_key_before,
    rev_key_last,
)
from raftkv.kv.slice import Slice

# Bytes of records that one sweep looks at. Part of what apply does: all versions must agree on it.
_SWEEP_BYTES_MAX: Final = 4 << 20

LOG_TIME_KEY: Final = b"log_time"
_COMPACTED_KEY: Final = b"compacted"
_SWEPT_KEY: Final = b"swept"


class RevisionCompacted(StoreError):  # noqa: N818 - an answer to a read, not a fault
    """A read at a revision that was compacted; ``oldest`` is the first that can be read."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


def check_not_compacted(reader: EngineReader, revision: int) -> None:
    """Raise `RevisionCompacted` unless the store can be read as it was at ``revision``."""
    data = reader.get(Table.META, META_KEY)
    oldest = 0 if data is None else decode_meta(data).compacted_revision
    if revision < oldest:
        raise RevisionCompacted(oldest)


def compact(slice_: Slice, command: Compact) -> Compacted | NotYetReached:
    """Forget what is before a revision. Takes none itself: no key changed."""
    if command.revision > slice_.revision:
        return NotYetReached(slice_.revision)
    if command.revision > slice_.compacted_revision:
        slice_.compacted_revision = command.revision
        slice_.note(Table.META, _COMPACTED_KEY, encode_number(command.revision))
    return Compacted(slice_.revision, slice_.compacted_revision)


def sweep(slice_: Slice, command: Sweep) -> Swept:
    """Remove what is expired or compacted, as far as the command's bound allows."""
    count = forget_expired(slice_, command.records_max)
    count += _sweep_history(slice_, command.records_max - count)
    return Swept(slice_.revision, count)


def is_swept(swept: bytes, compacted_revision: int) -> bool:
    """Whether nothing is left to do for a `Sweep` in the history."""
    return swept >= rev_key_last(compacted_revision) or compacted_revision == 0


def _sweep_history(slice_: Slice, records_max: int) -> int:
    if is_swept(slice_.swept, slice_.compacted_revision) or records_max <= 0:
        return 0
    last = rev_key_last(slice_.compacted_revision)
    writer = slice_.write()
    # What there is to remove, before anything is: a scan ends with the first write.
    seen: list[tuple[bytes, bytes, bytes | None]] = []
    size_bytes = 0
    swept = last
    for at, record in writer.scan(Table.REV, slice_.swept + b"\0", last + b"\0"):
        if len(seen) == records_max or size_bytes >= _SWEEP_BYTES_MAX:
            swept = seen[-1][0]
            break
        size_bytes += len(record)
        seen.append((at, decode_key(record), record if is_tombstone(record) else None))
    count = 0
    for at, key, tombstone in seen:
        before = writer.hist_floor(key, rev_key_before(at))
        if before is not None:
            superseded = writer.get(Table.REV, before)
            assert superseded is not None, "the history names a record that REV does not have"
            slice_.forget_record(before, key, superseded)
            count += 1
        if tombstone is not None:
            slice_.forget_record(at, key, tombstone)
            count += 1
    slice_.swept = swept
    slice_.note(Table.META, _SWEPT_KEY, swept)
    return count
