"""What changed after a revision, in order: what watches are made of.

Called by `raftkv.node.queries`. REV holds every change under its revision, so a piece of the feed
is one scan of it, bounded like every read (node design, rule 24), in a transaction of its own.
Whole revisions only: what changed together is told together. So a piece may be larger than its
bounds by one revision, which holds at most 10,000 changes.

Leases and locks take revisions that hold no change of a key; such a revision is passed silently.
"""

from typing import Final

import msgspec

from raftkv.kv.engine import Engine, EngineReader, Table
from raftkv.kv.history import check_not_compacted
from raftkv.kv.outcomes import Item
from raftkv.kv.records import (
    current_rev_key,
    decode_item,
    decode_key,
    rev_key,
    rev_key_before,
    rev_key_last,
    revision_of,
)

_REV_KEY_END: Final = b"\xff" * 10


class ChangesAfter(msgspec.Struct, frozen=True):
    """Query: the changes of keys with ``start`` <= key < ``end`` (None: no end) after a revision.

    Answered with `Changes`, which may end before the newest revision: ask again after its own.
    """

    revision: int
    start: bytes = b""
    end: bytes | None = None
    records_max: int = 500  # to look at, whether they are in the range or not
    bytes_max: int = 1 << 20  # of all records looked at, and of previous values
    with_previous: bool = False


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change of one key."""

    key: bytes
    revision: int
    item: Item | None  # as it was stored; None: the key was removed
    previous: Item | None = None  # as it was before, if asked for and if it existed


class Changes(msgspec.Struct, frozen=True):
    """All changes of the range after the revision asked for and up to ``revision``."""

    changes: tuple[Change, ...]  # ascending; those of one revision in the order they were made
    revision: int
    store_revision: int  # that of the store: there is more if it is greater


class LastChange(msgspec.Struct, frozen=True):
    """Query: when ``key`` changed last, also by being removed. Answered with `LastChanged`."""

    key: bytes


class LastChanged(msgspec.Struct, frozen=True):
    """The item now, and the revision that stored or removed it last.

    ``changed_at`` is 0 for a key that never existed, or that was removed before
    ``compacted_revision``.
    """

    item: Item | None
    changed_at: int
    revision: int  # the store's
    compacted_revision: int


def read_changes(engine: Engine, store_revision: int, wanted: ChangesAfter) -> Changes:
    """The changes after ``wanted.revision``, which the store has reached.

    Raises:
        RevisionCompacted: some of them are forgotten.
    """
    found: list[Change] = []
    records_left, bytes_left = wanted.records_max, wanted.bytes_max
    revision = wanted.revision
    with engine.read() as reader:
        check_not_compacted(reader, revision)
        for at, record in reader.scan(Table.REV, rev_key(revision + 1, 0), _REV_KEY_END):
            if revision_of(at) != revision:
                if records_left <= 0 or bytes_left <= 0:
                    return Changes(tuple(found), revision_of(at) - 1, store_revision)
                revision = revision_of(at)
            records_left -= 1
            bytes_left -= len(record)
            key = decode_key(record)
            if key < wanted.start or (wanted.end is not None and key >= wanted.end):
                continue
            before = _previous(reader, key, at) if wanted.with_previous else None
            bytes_left -= 0 if before is None else len(before.value)
            found.append(Change(key, revision, decode_item(at, record), before))
    return Changes(tuple(found), store_revision, store_revision)


def _previous(reader: EngineReader, key: bytes, at: bytes) -> Item | None:
    """What the change ``at`` superseded: a record of the history, as it no longer is current."""
    before = reader.hist_floor(key, rev_key_before(at))
    return None if before is None else _item(reader, before)


def last_change(
    engine: Engine, store_revision: int, compacted_revision: int, wanted: LastChange
) -> LastChanged:
    """When the key changed last."""
    with engine.read() as reader:
        current = reader.get(Table.CUR, wanted.key)
        if current is not None:
            at: bytes | None = current_rev_key(current)
        else:
            # Of a key that is gone, the tombstone is the last record.
            at = reader.hist_floor(wanted.key, rev_key_last(store_revision))
        item = None if current is None or at is None else _item(reader, at)
    changed_at = 0 if at is None else revision_of(at)
    return LastChanged(item, changed_at, store_revision, compacted_revision)


def _item(reader: EngineReader, at: bytes) -> Item | None:
    record = reader.get(Table.REV, at)
    assert record is not None, "a table names a record that REV does not have"
    return decode_item(at, record)
