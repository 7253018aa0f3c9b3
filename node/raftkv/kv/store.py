"""The replicated state machine: applies committed entries, answers reads.

Owns the tables of an engine. Called by the node class with entries that are committed and locally
durable (node design, rule 8), and with reads whose index has been applied. Does no I/O beyond the
engine, and must not: apply depends on state and entry alone (rule 19).

Invariants: the tables hold the effects of exactly the entries up to ``applied_index``, because the
index is written in the transaction of the effects; two replicas with the same applied index have
the same tables and the same chain hash, however their entries were cut into slices (rule 23).
Source: Raft paper 5.3 (apply in log order), thesis 5.1 (memory or disk state machines).
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import Final

import msgspec

from raftkv.kv.commands import decode_batch
from raftkv.kv.engine import Engine, StoreError, Table
from raftkv.kv.outcomes import Item, Outcome, encode_outcomes
from raftkv.kv.records import (
    CHAIN_HASH_BYTES,
    META_KEY,
    Meta,
    current_rev_key,
    decode_item,
    decode_meta,
    encode_meta,
    rev_key_last,
)
from raftkv.kv.slice import Slice
from raftkv.raft.messages import Entry, EntryType

__all__ = ["AppliedEntry", "ApplyError", "Store", "StoreError"]

# Index, term and type of an entry, bytes of its data and of its outcomes.
_LINK: Final = struct.Struct(">QQBII")


class ApplyError(StoreError):
    """An entry cannot be applied. It is the same on all replicas: a bug, or damage to the log."""


class AppliedEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry that was applied."""

    index: int
    term: int
    outcomes: tuple[Outcome, ...] | None  # one per command; None: the entry held no commands


class Store:
    """The state machine in ``engine``, which it must be given alone and empty or as it left it.

    Any exception of a method leaves tables and properties as they were; the caller must stop.

    Raises:
        StoreError: from every method, when the engine fails.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.read() as reader:
            data = reader.get(Table.META, META_KEY)
        self._meta = Meta() if data is None else decode_meta(data)

    @property
    def applied_index(self) -> int:
        """The last entry whose effects are in the store; 0: none."""
        return self._meta.applied_index

    @property
    def revision(self) -> int:
        """The revision of the last command that changed something; 0: none did (rule 20)."""
        return self._meta.revision

    @property
    def chain_hash(self) -> bytes:
        """32 bytes over all that was applied: equal on all replicas at equal indexes (rule 23)."""
        return self._meta.chain_hash

    @property
    def key_count(self) -> int:
        """How many keys exist."""
        return self._meta.key_count

    @property
    def logical_bytes(self) -> int:
        """Bytes of all records of REV with their keys, history too: the same on all replicas."""
        return self._meta.logical_bytes

    def apply(self, entries: Sequence[Entry]) -> list[AppliedEntry]:
        """Apply one slice: consecutive entries, the first of them right after `applied_index`.

        All effects, the applied index, revision, hash and counts become visible together, in one
        engine transaction. The caller keeps a slice short: it runs on the event loop (rule 26).

        Raises:
            ApplyError: an entry cannot be decoded.
        """
        if not entries:
            return []
        applied = []
        with self.engine.write() as writer:
            slice_ = Slice(writer, self._meta)
            index, chain_hash = self._meta.applied_index, self._meta.chain_hash
            for entry in entries:
                index += 1
                assert entry.index == index, f"entry {entry.index} is applied as entry {index}"
                outcomes, chain_hash = _apply_entry(slice_, entry, chain_hash)
                applied.append(AppliedEntry(index, entry.term, outcomes))
            slice_.write_to(writer)
            meta = Meta(index, slice_.revision, slice_.key_count, slice_.logical_bytes, chain_hash)
            writer.put(Table.META, META_KEY, encode_meta(meta))
        # Only now, since leaving the transaction may fail too.
        self._meta = meta
        return applied

    def get(self, key: bytes) -> Item | None:
        """The item under ``key`` now, or None."""
        with self.engine.read() as reader:
            current = reader.get(Table.CUR, key)
            if current is None:
                return None
            at = current_rev_key(current)
            record = reader.get(Table.REV, at)
        assert record is not None, "CUR names a record that REV does not have"
        return decode_item(at, record)

    def get_at(self, key: bytes, revision: int) -> Item | None:
        """The item under ``key`` as it was at ``revision``, or None."""
        last = rev_key_last(revision)
        with self.engine.read() as reader:
            current = reader.get(Table.CUR, key)
            if current is not None and current_rev_key(current) <= last:
                at: bytes | None = current_rev_key(current)
            else:
                at = reader.hist_floor(key, last)
            if at is None:
                return None
            record = reader.get(Table.REV, at)
        assert record is not None, "history names a record that REV does not have"
        return decode_item(at, record)


def _apply_entry(
    slice_: Slice, entry: Entry, chain_hash: bytes
) -> tuple[tuple[Outcome, ...] | None, bytes]:
    """The outcomes of an entry, and the chain hash after it."""
    outcomes: tuple[Outcome, ...] | None = None
    encoded_outcomes = b""
    record_count = len(slice_.records)
    if entry.type == EntryType.NORMAL:
        try:
            commands = decode_batch(entry.data)
        except msgspec.DecodeError as error:
            raise ApplyError(f"entry {entry.index} cannot be decoded: {error}") from error
        outcomes = tuple(map(slice_.execute, commands))
        encoded_outcomes = encode_outcomes(outcomes)
    link = _LINK.pack(entry.index, entry.term, entry.type, len(entry.data), len(encoded_outcomes))
    mutations = chain.from_iterable(slice_.records[record_count:])
    parts = (chain_hash, link, entry.data, encoded_outcomes, *mutations)
    return outcomes, blake2b(b"".join(parts), digest_size=CHAIN_HASH_BYTES).digest()
