"""Reads many keys at one revision, a bounded piece at a time.

Called by `raftkv.node.queries`. A cursor pins a revision and a place, never a transaction: each
piece opens one of its own and looks at no more than ``scan_max`` keys, so that it is short
whatever the range holds; the caller goes on at `Page.resume` (node design, rule 24).

The keys that existed at an earlier revision are among those that exist now and those with a
history, so both tables are merged then; the present needs CUR alone.
"""

import heapq
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import msgspec

from raftkv.kv.engine import Engine, EngineReader, Table
from raftkv.kv.history import check_not_compacted
from raftkv.kv.outcomes import Item
from raftkv.kv.records import current_rev_key, decode_current, decode_item, rev_key_last


class Range(msgspec.Struct, frozen=True):
    """Query: the items with ``start`` <= key < ``end`` (None: no end), as of one revision."""

    start: bytes = b""
    end: bytes | None = None
    revision: int = 0  # 0: now
    is_descending: bool = False
    limit: int = 1000  # of items and prefixes together
    bytes_max: int = 1 << 20  # of keys and values; the first item is given whatever its size
    scan_max: int = 500  # keys to look at: what bounds the time
    with_values: bool = True
    count_only: bool = False  # give no items; ``limit`` and ``delimiter`` do not count
    # Keys that hold the delimiter behind the first ``prefix_bytes`` are given as one prefix.
    delimiter: bytes = b""
    prefix_bytes: int = 0


class Page(msgspec.Struct, frozen=True):
    """A piece of a range, as it was at ``revision``."""

    revision: int
    items: tuple[Item, ...] = ()
    prefixes: tuple[bytes, ...] = ()
    count: int = 0  # keys counted, when counting; else items and prefixes
    # Where to go on: the new ``start``, or the new ``end`` of a descending range. None: complete.
    resume: bytes | None = None


def end_of_prefix(prefix: bytes) -> bytes | None:
    """The least key beyond all that begin with ``prefix``; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None


def read_range(engine: Engine, store_revision: int, wanted: Range) -> Page:
    """One piece of ``wanted``, from its beginning (its end, if it descends).

    Raises:
        RevisionCompacted: the revision is too old.
    """
    revision = wanted.revision or store_revision
    with engine.read() as reader:
        if revision < store_revision:
            check_not_compacted(reader, revision)
        return _Piece(reader, wanted, revision, is_past=revision < store_revision).read()


class _Piece:
    """What one transaction finds of a range."""

    def __init__(
        self, reader: EngineReader, wanted: Range, revision: int, *, is_past: bool
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._revision = revision
        self._is_past = is_past
        self._start, self._end = wanted.start, wanted.end  # what is left of the range
        self._items: list[Item] = []
        self._prefixes: list[bytes] = []
        self._count = 0
        self._bytes = 0

    def read(self) -> Page:
        scans_left = self._wanted.scan_max
        while self._end is None or self._start < self._end:
            for key, current in self._keys():
                if scans_left == 0 or not self._take(key, current):
                    return self._page(self._end if self._wanted.is_descending else key)
                scans_left -= 1
                if self._is_prefix_done(key):
                    break  # and look for the next key behind all that begin with the prefix
            else:
                break
        return self._page(None)

    def _page(self, resume: bytes | None) -> Page:
        return Page(self._revision, tuple(self._items), tuple(self._prefixes), self._count, resume)

    def _keys(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The keys left, in order, each with its record of CUR; None if it has a history only."""
        place = (self._start, self._end)
        is_reverse = self._wanted.is_descending
        present = self._reader.scan(Table.CUR, *place, reverse=is_reverse)
        if not self._is_past:
            yield from present
            return
        past = ((key, None) for key in self._reader.hist_keys(*place, reverse=is_reverse))
        merged = heapq.merge(present, past, key=itemgetter(0), reverse=is_reverse)
        # Of a key in both, the record of CUR comes first.
        for _, of_key in groupby(merged, key=itemgetter(0)):
            yield next(of_key)

    def _take(self, key: bytes, current: bytes | None) -> bool:
        """Add ``key`` if it existed; False if there is no room for it."""
        wanted = self._wanted
        if not self._is_past and wanted.count_only:
            self._count += 1
            self._pass(key)
            return True
        item = self._item(key, current)
        if item is not None:
            prefix = self._common_prefix(key)
            size = len(key) + len(item.value) if prefix is None else len(prefix)
            is_full = self._count == wanted.limit or self._bytes + size > wanted.bytes_max
            if is_full and self._count and not wanted.count_only:
                return False
            self._count += 1
            self._bytes += size
            if prefix is not None:
                self._prefixes.append(prefix)
            elif not wanted.count_only:
                self._items.append(item)
        self._pass(key)
        return True

    def _pass(self, key: bytes) -> None:
        if self._wanted.is_descending:
            self._end = key

    def _is_prefix_done(self, key: bytes) -> bool:
        """Whether ``key`` was given as a prefix; then what is left begins beyond that."""
        if not self._prefixes or not key.startswith(self._prefixes[-1]):
            return False
        prefix = self._prefixes[-1]
        beyond = end_of_prefix(prefix)
        if self._wanted.is_descending:
            self._end = prefix
        elif beyond is None:
            self._end = self._start
        else:
            self._start = beyond
        return True

    def _common_prefix(self, key: bytes) -> bytes | None:
        delimiter = self._wanted.delimiter
        if not delimiter or self._wanted.count_only:
            return None
        at = key.find(delimiter, self._wanted.prefix_bytes)
        return None if at < 0 else key[: at + len(delimiter)]

    def _item(self, key: bytes, current: bytes | None) -> Item | None:
        last = rev_key_last(self._revision)
        at: bytes | None
        if current is not None and current_rev_key(current) <= last:
            at = current_rev_key(current)
            if not self._wanted.with_values:
                known = decode_current(current)
                version, lease = known.version, known.lease
                return Item(key, b"", known.create_revision, known.mod_revision, version, lease)
        else:
            at = self._reader.hist_floor(key, last)
            if at is None:
                return None
        record = self._reader.get(Table.REV, at)
        assert record is not None, "a table names a record that REV does not have"
        item = decode_item(at, record)
        if item is None or self._wanted.with_values:
            return item
        return msgspec.structs.replace(item, value=b"")
