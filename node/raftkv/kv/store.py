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
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain, islice
from typing import Final

import msgspec

from raftkv.kv.commands import Expire, LeaderCommand, Sweep, decode_batch
from raftkv.kv.engine import Engine, EngineReader, StoreError, Table
from raftkv.kv.execute import execute
from raftkv.kv.history import RevisionCompacted, check_not_compacted, is_swept
from raftkv.kv.outcomes import Item, LockGrant, Outcome, encode_outcomes
from raftkv.kv.records import (
    CHAIN_HASH_BYTES,
    HASHES_KEY,
    META_KEY,
    Meta,
    current_rev_key,
    decode_hashes,
    decode_item,
    decode_lease,
    decode_meta,
    decode_number,
    encode_hashes,
    encode_meta,
    encode_number,
    rev_key_last,
)
from raftkv.kv.slice import Slice
from raftkv.raft.messages import Entry, EntryType

__all__ = ["AppliedEntry", "ApplyError", "RevisionCompacted", "Store", "StoreError"]

#: At the multiples of this index the chain hash is kept for comparing with peers (rule 23).
HASH_INTERVAL: Final = 1024
_HASHES_KEPT: Final = 8
# A slice that has touched more ends: about 2 ms of work, but for the entry that went beyond.
SLICE_BYTES_MAX: Final = 4 << 20
SLICE_RECORDS_MAX: Final = 1024
#: Leases end together as long as they have fewer keys than this, which all go in one turn.
EXPIRED_KEYS: Final = 1000
#: Records that one proposed `Sweep` may look at: short enough for one turn of the loop (rule 26).
SWEEP_RECORDS: Final = 200

# Index, term and type of an entry, bytes of its data and of its outcomes.
_LINK: Final = struct.Struct(">QQBII")


class ApplyError(StoreError):
    """An entry cannot be applied. It is the same on all replicas: a bug, or damage to the log."""


class AppliedEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry that was applied."""

    index: int
    term: int
    outcomes: tuple[Outcome, ...] | None  # one per command; None: the entry held no commands
    grants: tuple[LockGrant, ...] = ()  # locks that went to waiters, by whatever command


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
            hashes = reader.get(Table.META, HASHES_KEY)
        self._meta = Meta() if data is None else decode_meta(data)
        self._hashes = () if hashes is None else decode_hashes(hashes)

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
        """What a quota is measured by: the same on all replicas (rule 19).

        Bytes of all records of keys with their history, of leases, locks and idempotency records.
        """
        return self._meta.logical_bytes

    @property
    def log_time_ms(self) -> int:
        """Milliseconds that entries say have passed (rule 21)."""
        return self._meta.log_time_ms

    @property
    def compacted_revision(self) -> int:
        """The oldest revision that can be read; 0: all can."""
        return self._meta.compacted_revision

    @property
    def lease_count(self) -> int:
        """How many leases there are, with those of locks and of single keys."""
        return self._meta.lease_count

    @property
    def lock_count(self) -> int:
        """How many locks are held."""
        return self._meta.lock_count

    @property
    def once_count(self) -> int:
        """How many idempotency records there are (rule 22)."""
        return self._meta.once_count

    @property
    def once_bytes(self) -> int:
        """Bytes of the idempotency records, which are part of `logical_bytes` (rule 22)."""
        return self._meta.once_bytes

    @property
    def hashes(self) -> tuple[tuple[int, bytes], ...]:
        """Index and chain hash at the last multiples of `HASH_INTERVAL`, ascending (rule 23)."""
        return self._hashes

    @property
    def is_time_needed(self) -> bool:
        """Whether anything ends by log time, so that the leader must let it advance."""
        # Who waits for a lock waits for one that is held, which has a lease.
        return self._meta.lease_count > 0 or self._meta.once_count > 0

    def due(self, now_ms: int, limit: int) -> list[LeaderCommand]:
        """What the leader should propose for log time ``now_ms``: at most ``limit`` commands.

        ``now_ms`` is what `log_time_ms` will be when they are applied. The same again until then,
        so the caller remembers what is under way.
        """
        meta = self._meta
        is_room_left = not is_swept(meta.swept, meta.compacted_revision)
        if limit <= 0 or not (is_room_left or self.is_time_needed):
            return []
        end = encode_number(now_ms + 1)
        wanted: list[LeaderCommand] = []
        with self.engine.read() as reader:
            if is_room_left or next(reader.scan(Table.ONCE_END, b"", end), None) is not None:
                wanted.append(Sweep(SWEEP_RECORDS))
            ended = islice(reader.scan(Table.DEADLINE, b"", end), limit - len(wanted))
            key_count = 0
            for place, _ in ended:
                if key_count >= EXPIRED_KEYS:
                    break
                wanted.append(Expire(decode_number(place[8:])))
                record = reader.get(Table.LEASE, place[8:])
                assert record is not None, "DEADLINE names a lease that does not exist"
                key_count += decode_lease(record).key_count
        return wanted

    def apply(self, entries: Sequence[Entry]) -> list[AppliedEntry]:
        """Apply one slice: consecutive entries, the first of them right after `applied_index`.

        All effects, the applied index, revision, hash and counts become visible together, in one
        engine transaction. It runs on the event loop (rule 26), so it ends after the entry that
        has it touch more than it should, if there are more; the answer has as many entries as
        were applied.

        Raises:
            ApplyError: an entry cannot be decoded.
        """
        if not entries:
            return []
        applied = []
        with self.engine.write() as writer:
            slice_ = Slice(writer, self._meta)
            index, chain_hash = self._meta.applied_index, self._meta.chain_hash
            hashes, touched_bytes = self._hashes, 0
            for entry in entries:
                index += 1
                assert entry.index == index, f"entry {entry.index} is applied as entry {index}"
                grant_count = len(slice_.grants)
                outcomes, chain_hash, size_bytes = _apply_entry(slice_, entry, chain_hash)
                grants = tuple(slice_.grants[grant_count:])
                applied.append(AppliedEntry(index, entry.term, outcomes, grants))
                if index % HASH_INTERVAL == 0:
                    hashes = (*hashes, (index, chain_hash))[-_HASHES_KEPT:]
                touched_bytes += size_bytes
                if touched_bytes > SLICE_BYTES_MAX or len(slice_.records) > SLICE_RECORDS_MAX:
                    break
            slice_.write()
            meta = slice_.meta(index, chain_hash)
            writer.put(Table.META, META_KEY, encode_meta(meta))
            if hashes is not self._hashes:
                writer.put(Table.META, HASHES_KEY, encode_hashes(hashes))
        # Only now, since leaving the transaction may fail too.
        self._meta, self._hashes = meta, hashes
        return applied

    def get(self, key: bytes) -> Item | None:
        """The item under ``key`` now, or None."""
        with self.engine.read() as reader:
            return _get(reader, key)

    def get_each(self, keys: Iterable[bytes], bytes_max: int) -> list[Item | None]:
        """The items under ``keys`` now, in one transaction.

        No more of them than up to the one whose value takes all of them beyond ``bytes_max``.
        """
        items: list[Item | None] = []
        with self.engine.read() as reader:
            for key in keys:
                item = _get(reader, key)
                items.append(item)
                if item is not None:
                    bytes_max -= len(item.value)
                    if bytes_max < 0:
                        break
        return items

    def get_at(self, key: bytes, revision: int) -> Item | None:
        """The item under ``key`` as it was at ``revision``, or None.

        Raises:
            RevisionCompacted: there is no telling any more.
        """
        last = rev_key_last(revision)
        with self.engine.read() as reader:
            check_not_compacted(reader, revision)
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


def _get(reader: EngineReader, key: bytes) -> Item | None:
    current = reader.get(Table.CUR, key)
    if current is None:
        return None
    at = current_rev_key(current)
    record = reader.get(Table.REV, at)
    assert record is not None, "CUR names a record that REV does not have"
    return decode_item(at, record)


def _apply_entry(
    slice_: Slice, entry: Entry, chain_hash: bytes
) -> tuple[tuple[Outcome, ...] | None, bytes, int]:
    """The outcomes of an entry, the chain hash after it, and the bytes that went into that."""
    outcomes: tuple[Outcome, ...] | None = None
    encoded_outcomes = b""
    record_count, mutation_count = len(slice_.records), len(slice_.mutations)
    if entry.type == EntryType.NORMAL:
        try:
            commands = decode_batch(entry.data)
        except ValueError as error:
            raise ApplyError(f"entry {entry.index} cannot be decoded: {error}") from error
        outcomes = tuple([execute(slice_, command) for command in commands])
        encoded_outcomes = encode_outcomes(outcomes)
    link = _LINK.pack(entry.index, entry.term, entry.type, len(entry.data), len(encoded_outcomes))
    mutations = chain.from_iterable(slice_.records[record_count:])
    others = slice_.mutations[mutation_count:]
    touched = b"".join((chain_hash, link, entry.data, encoded_outcomes, *mutations, *others))
    chain_hash = blake2b(touched, digest_size=CHAIN_HASH_BYTES).digest()
    return outcomes, chain_hash, len(touched)
