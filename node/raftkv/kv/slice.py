"""One slice of apply: the tables as the commands so far left them, written at the end.

Owns what must hold between the tables, whatever a command means: CUR, REV and the history of keys
say the same; ATTACHED and the counts of leases follow CUR; `logical_bytes` is what the tables
hold. Commands are given their meaning by the modules that `raftkv.kv.execute` calls.

Used by `raftkv.kv.store` inside one engine transaction. A command sees the effects of all before
it, whether they are in the engine or still in the slice; the changes then go out with one
`putmulti` per table (node design, rules 26 and 27). A savepoint takes back what was done since,
which is cheap, because nothing has gone to the engine yet; without one it costs nothing.

Deterministic: depends on the tables, the slice's start and the commands alone (rule 19).
"""

import struct
from itertools import islice
from typing import Final

import msgspec

from raftkv.kv.engine import EngineReader, EngineWriter, Pair, Table
from raftkv.kv.outcomes import Item, LockGrant, Written
from raftkv.kv.records import (
    REV_KEY_BYTES,
    Current,
    Lease,
    Meta,
    deadline_key,
    decode_current,
    decode_item,
    decode_lease,
    decode_value,
    encode_current,
    encode_lease,
    encode_number,
    encode_stored,
    encode_tombstone,
    rev_key,
)

_NO_CHANGE: Final = 0xFFFFFFFF
_MUTATION: Final = struct.Struct(">BHI")  # table, bytes of key, bytes of value (or deleted)
_SIDE_TABLES: Final = tuple(table for table in Table if table > Table.REV)
_SECOND_LEASE_SHIFT: Final = 46
TIME_MS_MAX: Final = 2**63 - 1


class _Savepoint(msgspec.Struct):
    """What `Slice.roll_back` goes back to."""

    revision: int
    has_revision: bool
    key_count: int
    logical_bytes: int
    lease_count: int
    leases_made: int
    changes: int
    record_count: int
    superseded_count: int
    mutation_count: int
    # Since then: what was replaced, in order.
    replaced_keys: list[tuple[bytes, Current | None]]
    replaced: list[tuple[Table, bytes, bytes | None]]


class Slice:
    """The changes of a slice over the tables as they were before it."""

    def __init__(self, writer: EngineWriter, meta: Meta) -> None:
        self._writer = writer
        self._reader: EngineReader = writer
        # The store's, after the commands so far: see `Meta`.
        self.revision = meta.revision
        self.key_count = meta.key_count
        self.logical_bytes = meta.logical_bytes
        self.log_time_ms = meta.log_time_ms
        self.compacted_revision = meta.compacted_revision
        self.swept = meta.swept
        self.lease_count = meta.lease_count
        self.lock_count = meta.lock_count
        self.once_count = meta.once_count
        self.once_bytes = meta.once_bytes
        # What CUR says of the keys that the slice has looked at; None: the key does not exist.
        self._current: dict[bytes, Current | None] = {}
        self._changed: set[bytes] = set()  # those of them that CUR must be told of
        # New records of REV, in the order of their keys, since revisions only grow.
        self.records: list[Pair] = []
        self._written_count = 0  # of them, already in the engine
        self._record_at: dict[bytes, bytes] = {}  # the same, to look one up
        self._superseded: list[Pair] = []  # for the history: records that are no longer current
        # The tables after REV: what the slice has read or changed of them.
        self._known: dict[Table, dict[bytes, bytes | None]] = {t: {} for t in _SIDE_TABLES}
        self._unwritten: dict[Table, set[bytes]] = {t: set() for t in _SIDE_TABLES}
        # Changes beside those in ``records``, encoded for the chain hash.
        self.mutations: list[bytes] = []
        # Locks that went to waiters.
        self.grants: list[LockGrant] = []
        # Of the present command:
        self._has_revision = False  # it took one
        self.changes = 0  # records with its revision
        self._leases_made = 0
        self._savepoint: _Savepoint | None = None

    # ---- commands ---------------------------------------------------------------------------

    def begin_command(self) -> None:
        """What changes from now on has a revision of its own."""
        self._has_revision = False
        self.changes = 0
        self._leases_made = 0

    def take_revision(self) -> int:
        """The revision of the present command, which changes something."""
        if not self._has_revision:
            self.revision += 1
            self._has_revision = True
        return self.revision

    def after(self, duration_ms: int) -> int:
        """The log time ``duration_ms`` from now; no later than eight bytes can say."""
        return min(self.log_time_ms + max(duration_ms, 0), TIME_MS_MAX)

    def set_savepoint(self) -> None:
        """Begin to remember what is replaced. One at a time; `release` or `roll_back` ends it."""
        assert self._savepoint is None, "savepoints do not nest"
        self._savepoint = _Savepoint(
            self.revision,
            self._has_revision,
            self.key_count,
            self.logical_bytes,
            self.lease_count,
            self._leases_made,
            self.changes,
            len(self.records),
            len(self._superseded),
            len(self.mutations),
            [],
            [],
        )

    def release(self) -> None:
        """Keep what was done since the savepoint."""
        self._savepoint = None

    def roll_back(self) -> None:
        """Take back everything since the savepoint: changes of keys and of their leases."""
        point = self._savepoint
        assert point is not None, "a savepoint to go back to"
        self._savepoint = None
        self.revision, self._has_revision = point.revision, point.has_revision
        self.key_count, self.logical_bytes = point.key_count, point.logical_bytes
        self.lease_count, self._leases_made = point.lease_count, point.leases_made
        self.changes = point.changes
        for at, _ in self.records[point.record_count :]:
            del self._record_at[at]
        del self.records[point.record_count :]
        del self._superseded[point.superseded_count :]
        del self.mutations[point.mutation_count :]
        for key, current in reversed(point.replaced_keys):
            self._current[key] = current
        for table, key, value in reversed(point.replaced):
            self._known[table][key] = value

    # ---- keys -------------------------------------------------------------------------------

    def look_up(self, key: bytes) -> Current | None:
        """What CUR says of ``key``; None: it does not exist."""
        known = self._current
        if key in known:
            return known[key]
        data = self._reader.get(Table.CUR, key)
        current = None if data is None else decode_current(data)
        known[key] = current
        return current

    def value(self, current: Current) -> bytes:
        """The value of a key that exists."""
        return decode_value(self._record_of(current))

    def item(self, key: bytes) -> Item | None:
        """All that is known of ``key``; None: it does not exist."""
        current = self.look_up(key)
        return None if current is None else decode_item(current.rev_key, self._record_of(current))

    def existing(self, start: bytes, end: bytes | None, count_max: int) -> list[bytes]:
        """At least the first ``count_max`` keys of a range, if it has as many; else all."""
        here = {key for key in self._changed if start <= key and (end is None or key < end)}
        stored = (key for key, _ in self._reader.scan(Table.CUR, start, end) if key not in here)
        found = [key for key in here if self._current[key] is not None]
        return sorted([*found, *islice(stored, max(0, count_max - len(found)))])

    def store(self, key: bytes, value: bytes, current: Current | None, lease: int = 0) -> Written:
        """Store ``value`` under ``key``, which is ``current``, attached to ``lease`` (0: none).

        The lease must exist.
        """
        if current is None:
            revision, version = self.take_revision(), 1
            create_revision = revision
            self.key_count += 1
        else:
            revision, version = self.take_revision(), current.version + 1
            create_revision = current.create_revision
            self._superseded.append((key, current.rev_key))
        at = self._record(encode_stored(key, value, create_revision, version, lease))
        if lease or (current is not None and current.lease):
            self._move(key, current, at, lease)
        self._set_current(key, Current(at, create_revision, version, lease))
        return Written(revision, version)

    def remove(self, key: bytes, current: Current) -> None:
        """Remove ``key``, which is ``current``."""
        self.take_revision()
        at = self._record(encode_tombstone(key))
        self._superseded.append((key, current.rev_key))
        # With the key gone from CUR, history alone knows that and since when it does not exist.
        self._superseded.append((key, at))
        if current.lease:
            self._move(key, current, at, 0)
        self._set_current(key, None)
        self.key_count -= 1

    def _record_of(self, current: Current) -> bytes:
        record = self._record_at.get(current.rev_key)
        if record is None:
            record = self._reader.get(Table.REV, current.rev_key)
            assert record is not None, "CUR names a record that REV does not have"
        return record

    def _record(self, record: bytes) -> bytes:
        """Add a record to REV, under the revision that the command has taken."""
        at = rev_key(self.revision, self.changes)
        self.changes += 1
        self.records.append((at, record))
        self._record_at[at] = record
        self.logical_bytes += REV_KEY_BYTES + len(record)
        return at

    def _set_current(self, key: bytes, current: Current | None) -> None:
        if self._savepoint is not None:
            self._savepoint.replaced_keys.append((key, self._current.get(key)))
        self._current[key] = current
        self._changed.add(key)

    # ---- leases -----------------------------------------------------------------------------

    def lease(self, lease: int) -> Lease | None:
        """A lease that has not ended, whether it is over by log time or not; None: no such."""
        data = self.get(Table.LEASE, encode_number(lease)) if 0 < lease < 1 << 64 else None
        return None if data is None else decode_lease(data)

    def add_lease(
        self, ttl_ms: int, keys_max: int, *, is_private: bool = False, lock: bytes = b""
    ) -> int:
        """Make a lease from now on; its id.

        That is the revision that made it. Only a transaction makes more than one: the next have
        their number above it, in the bits that no revision reaches in a lifetime.
        """
        lease = self.take_revision() + (self._leases_made << _SECOND_LEASE_SHIFT)
        self._leases_made += 1
        assert self.lease(lease) is None, "the id of a new lease is new"
        ttl_ms = min(ttl_ms, TIME_MS_MAX)
        made = Lease(ttl_ms, self.after(ttl_ms), keys_max, is_private=is_private, lock=lock)
        self.set(Table.LEASE, encode_number(lease), encode_lease(made))
        self.set(Table.DEADLINE, deadline_key(made.ends_at_ms, lease), b"")
        self.lease_count += 1
        return lease

    def renew_lease(self, lease: int, known: Lease) -> None:
        """Let ``lease``, which is ``known``, live for its whole ttl again."""
        ends_at_ms = self.after(known.ttl_ms)
        if ends_at_ms != known.ends_at_ms:
            renewed = msgspec.structs.replace(known, ends_at_ms=ends_at_ms)
            self.set(Table.DEADLINE, deadline_key(known.ends_at_ms, lease), None)
            self.set(Table.LEASE, encode_number(lease), encode_lease(renewed))
            self.set(Table.DEADLINE, deadline_key(ends_at_ms, lease), b"")

    def drop_lease(self, lease: int, known: Lease) -> None:
        """Remove ``lease``, which is ``known``; the caller sees to its keys and its lock."""
        self.take_revision()
        self.set(Table.LEASE, encode_number(lease), None)
        self.set(Table.DEADLINE, deadline_key(known.ends_at_ms, lease), None)
        self.lease_count -= 1

    def attached(self, lease: int) -> list[bytes]:
        """The keys of ``lease``, the one written longest ago first."""
        start, end = encode_number(lease), encode_number(lease + 1)
        return [key for _, key in self.scan(Table.ATTACHED, start, end)]

    def _move(self, key: bytes, current: Current | None, at: bytes, lease: int) -> None:
        """``key``, which was ``current``, is at ``at`` now and belongs to ``lease``."""
        before = 0 if current is None else current.lease
        if current is not None and before:
            self.set(Table.ATTACHED, encode_number(before) + current.rev_key, None)
        if lease:
            self.set(Table.ATTACHED, encode_number(lease) + at, key)
        if lease != before:
            if before:
                self._count_key(before, -1)
            if lease:
                self._count_key(lease, 1)

    def _count_key(self, lease: int, more: int) -> None:
        known = self.lease(lease)
        if known is None:
            return  # it is ending, and its keys go one by one
        if known.is_private and known.key_count + more == 0:
            self.drop_lease(lease, known)
            return
        counted = msgspec.structs.replace(known, key_count=known.key_count + more)
        self.set(Table.LEASE, encode_number(lease), encode_lease(counted))

    # ---- the other tables -------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key`` in a table after REV, or None."""
        known = self._known[table]
        if key in known:
            return known[key]
        value = known[key] = self._reader.get(table, key)
        return value

    def set(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Store ``value`` under ``key`` in a table after REV; None: remove it."""
        before = self.get(table, key)
        if self._savepoint is not None:
            self._savepoint.replaced.append((table, key, before))
        self._known[table][key] = value
        self._unwritten[table].add(key)
        if before is not None:
            self.logical_bytes -= len(key) + len(before)
        if value is not None:
            self.logical_bytes += len(key) + len(value)
        self.note(table, key, value)

    def scan(
        self, table: Table, start: bytes, end: bytes | None, count_max: int | None = None
    ) -> list[Pair]:
        """The first ``count_max`` (None: all) pairs of a range of a table after REV."""
        self._write_table(table)
        return list(islice(self._reader.scan(table, start, end), count_max))

    def note(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Let the chain hash cover a change that is not in ``records``."""
        size = _NO_CHANGE if value is None else len(value)
        self.mutations.append(_MUTATION.pack(table, len(key), size) + key + (value or b""))

    # ---- the engine -------------------------------------------------------------------------

    def forget_record(self, at: bytes, key: bytes, record: bytes) -> None:
        """Remove one record of REV and of the history. After `write`; not undone by a savepoint."""
        self._writer.delete(Table.REV, at)
        self._writer.hist_delete(key, at)
        self._record_at.pop(at, None)
        self.logical_bytes -= REV_KEY_BYTES + len(record)
        self.note(Table.REV, at, None)

    def write(self) -> EngineWriter:
        """Write all changes so far; the writer, which now sees them.

        At the end of the slice the caller adds META in the same transaction.
        """
        assert self._savepoint is None, "what is written cannot be taken back"
        writer = self._writer
        stored: list[Pair] = []
        for key in sorted(self._changed):
            current = self._current[key]
            if current is None:
                writer.delete(Table.CUR, key)
            else:
                stored.append((key, encode_current(current)))
        self._changed.clear()
        if stored:
            writer.putmulti(Table.CUR, stored)
        if self._written_count < len(self.records):
            records = self.records[self._written_count :] if self._written_count else self.records
            writer.append(Table.REV, records)
            self._written_count = len(self.records)
        if self._superseded:
            writer.hist_add(self._superseded)
            self._superseded = []
        if self.mutations:
            for table in _SIDE_TABLES:
                self._write_table(table)
        return writer

    def _write_table(self, table: Table) -> None:
        unwritten = self._unwritten[table]
        if not unwritten:
            return
        assert self._savepoint is None, "what is written cannot be taken back"
        known = self._known[table]
        pairs: list[Pair] = []
        for key in sorted(unwritten):
            value = known[key]
            if value is None:
                self._writer.delete(table, key)
            else:
                pairs.append((key, value))
        unwritten.clear()
        if pairs:
            self._writer.putmulti(table, pairs)

    def meta(self, applied_index: int, chain_hash: bytes) -> Meta:
        """The record of META after the slice."""
        return Meta(
            applied_index,
            self.revision,
            self.key_count,
            self.logical_bytes,
            chain_hash,
            self.log_time_ms,
            self.compacted_revision,
            self.swept,
            self.lease_count,
            self.lock_count,
            self.once_count,
            self.once_bytes,
        )
