"""One slice of apply: what commands do to keys, gathered and written to the engine at the end.

Owns the meaning of every command. Called by `raftkv.kv.store` inside one engine transaction. A
command sees the effects of all before it, whether they are in the engine or still in the slice;
the changes then go out with one `putmulti` per table (node design, rules 26 and 27).

Deterministic: depends on the tables, the slice's start and the commands alone (rule 19).
"""

import re
from itertools import islice
from typing import Final

from raftkv.kv.commands import (
    Append,
    Command,
    Condition,
    Delete,
    DeleteRange,
    Increment,
    Put,
    ReturnPrevious,
)
from raftkv.kv.engine import EngineReader, EngineWriter, Pair, StoreError, Table
from raftkv.kv.outcomes import (
    ConditionFailed,
    CounterOverflow,
    Deleted,
    Incremented,
    Item,
    NotACounter,
    Outcome,
    Returned,
    TooLarge,
    TooManyKeys,
    Written,
)
from raftkv.kv.records import (
    REV_KEY_BYTES,
    Current,
    Meta,
    decode_current,
    decode_item,
    decode_value,
    encode_current,
    encode_stored,
    encode_tombstone,
    rev_key,
)

_COUNTER: Final = re.compile(rb"-?[0-9]{1,19}\Z")
_COUNTER_MIN: Final = -(2**63)
_COUNTER_MAX: Final = 2**63 - 1


class Slice:
    """The changes of a slice over the tables as they were before it."""

    def __init__(self, reader: EngineReader, meta: Meta) -> None:
        self._reader = reader
        self.revision = meta.revision  # the store's, after the commands so far
        self.key_count = meta.key_count  # likewise
        self.logical_bytes = meta.logical_bytes  # likewise
        # What CUR says of the keys that the slice has looked at; None: the key does not exist.
        self._current: dict[bytes, Current | None] = {}
        self._changed: set[bytes] = set()  # those of them that CUR must be told of
        # New records of REV, in the order of their keys, since revisions only grow.
        self.records: list[Pair] = []
        self._record_at: dict[bytes, bytes] = {}  # the same, to look one up
        self._changes = 0  # of the present command: records with its revision
        self._superseded: list[Pair] = []  # for the history: records that are no longer current

    def execute(self, command: Command) -> Outcome:
        """Apply one command. All its changes share one revision."""
        self._changes = 0
        match command:
            case Put():
                return self._put(command)
            case Delete():
                return self._delete(command)
            case Append():
                return self._append(command)
            case Increment():
                return self._increment(command)
            case DeleteRange():
                return self._delete_range(command)
            case ReturnPrevious():
                return self._return_previous(command)
            case _:
                raise StoreError(f"this version cannot apply {type(command).__name__}")

    def write_to(self, writer: EngineWriter) -> None:
        """Write all changes; the caller adds META in the same transaction."""
        stored: list[Pair] = []
        for key in sorted(self._changed):
            current = self._current[key]
            if current is None:
                writer.delete(Table.CUR, key)
            else:
                stored.append((key, encode_current(current)))
        if stored:
            writer.putmulti(Table.CUR, stored)
        if self.records:
            writer.putmulti(Table.REV, self.records)
        if self._superseded:
            writer.hist_add(self._superseded)

    # ---- commands ---------------------------------------------------------------------------

    def _put(self, command: Put) -> Outcome:
        current = self._look_up(command.key)
        if not _holds(command.condition, current):
            return self._condition_failed(current)
        return self._store(command.key, command.value, current)

    def _append(self, command: Append) -> Outcome:
        current = self._look_up(command.key)
        if not _holds(command.condition, current):
            return self._condition_failed(current)
        value = command.suffix if current is None else self._value(current) + command.suffix
        if len(value) > command.value_bytes_max:
            return TooLarge(self.revision, len(value))
        return self._store(command.key, value, current)

    def _delete(self, command: Delete) -> Outcome:
        key = command.key
        current = self._look_up(key)
        if not _holds(command.condition, current):
            return self._condition_failed(current)
        if current is None:
            return Deleted(self.revision, 0)
        self._remove(key, current)
        return Deleted(self.revision, 1)

    def _increment(self, command: Increment) -> Outcome:
        current = self._look_up(command.key)
        if not _holds(command.condition, current):
            return self._condition_failed(current)
        number = 0 if current is None else _counter(self._value(current))
        if number is None:
            return NotACounter(self.revision)
        total = number + command.by
        if not _COUNTER_MIN <= total <= _COUNTER_MAX:
            return CounterOverflow(self.revision, number)
        written = self._store(command.key, str(total).encode("ascii"), current)
        return Incremented(written.revision, written.version, total)

    def _delete_range(self, command: DeleteRange) -> Outcome:
        keys = self._existing(command.start, command.end, command.keys_max + 1)
        if len(keys) > command.keys_max:
            return TooManyKeys(self.revision)
        for key in keys:
            current = self._look_up(key)
            assert current is not None, "a key of the range does not exist"
            self._remove(key, current)
        return Deleted(self.revision, len(keys))

    def _existing(self, start: bytes, end: bytes | None, count_max: int) -> list[bytes]:
        """At least the first ``count_max`` keys of a range, if it has as many; else all."""
        here = {key for key in self._changed if start <= key and (end is None or key < end)}
        stored = (key for key, _ in self._reader.scan(Table.CUR, start, end) if key not in here)
        found = [key for key in here if self._current[key] is not None]
        return sorted([*found, *islice(stored, max(0, count_max - len(found)))])

    def _remove(self, key: bytes, current: Current) -> None:
        at = self._record(encode_tombstone(key))
        self._superseded.append((key, current.rev_key))
        # With the key gone from CUR, history alone knows that and since when it does not exist.
        self._superseded.append((key, at))
        self._set_current(key, None)
        self.key_count -= 1

    def _return_previous(self, wanted: ReturnPrevious) -> Outcome:
        previous = self._item(wanted.command.key)
        outcome = self.execute(wanted.command)
        if isinstance(outcome, Written | Deleted | Incremented):
            return Returned(outcome, previous)
        return outcome

    # ---- parts ------------------------------------------------------------------------------

    def _look_up(self, key: bytes) -> Current | None:
        known = self._current
        if key in known:
            return known[key]
        data = self._reader.get(Table.CUR, key)
        current = None if data is None else decode_current(data)
        known[key] = current
        return current

    def _value(self, current: Current) -> bytes:
        return decode_value(self._record_of(current))

    def _item(self, key: bytes) -> Item | None:
        current = self._look_up(key)
        return None if current is None else decode_item(current.rev_key, self._record_of(current))

    def _record_of(self, current: Current) -> bytes:
        record = self._record_at.get(current.rev_key)
        if record is None:
            record = self._reader.get(Table.REV, current.rev_key)
            assert record is not None, "CUR names a record that REV does not have"
        return record

    def _store(self, key: bytes, value: bytes, current: Current | None) -> Written:
        revision = self.revision + 1 if self._changes == 0 else self.revision
        if current is None:
            create_revision, version = revision, 1
            self.key_count += 1
        else:
            create_revision, version = current.create_revision, current.version + 1
            self._superseded.append((key, current.rev_key))
        at = self._record(encode_stored(key, value, create_revision, version, 0))
        self._set_current(key, Current(at, create_revision, version, 0))
        return Written(revision, version)

    def _record(self, record: bytes) -> bytes:
        """Add a record to REV; the first of a command takes the next revision for all of them."""
        if self._changes == 0:
            self.revision += 1
        at = rev_key(self.revision, self._changes)
        self._changes += 1
        self.records.append((at, record))
        self._record_at[at] = record
        self.logical_bytes += REV_KEY_BYTES + len(record)
        return at

    def _set_current(self, key: bytes, current: Current | None) -> None:
        self._current[key] = current
        self._changed.add(key)

    def _condition_failed(self, current: Current | None) -> ConditionFailed:
        return ConditionFailed(self.revision, 0 if current is None else current.mod_revision)


def _counter(value: bytes) -> int | None:
    """The decimal number that ``value`` is, if it has 64 bits with sign; else None."""
    if _COUNTER.match(value) is None:
        return None
    number = int(value)
    return number if _COUNTER_MIN <= number <= _COUNTER_MAX else None


def _holds(condition: Condition | None, current: Current | None) -> bool:
    """Whether ``condition`` is met. A key that does not exist has none of any revisions."""
    if condition is None:
        return True
    if condition.exists is not None and condition.exists != (current is not None):
        return False
    if condition.revisions is None:
        return True
    return current is not None and current.mod_revision in condition.revisions
