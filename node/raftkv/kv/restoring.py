"""Turns the state of one cluster into the first state of another (`raftkv restore`, rule 20).

A pure function over the tables of a backup: nothing that clients of the old cluster hold may mean
anything in the new one. So the revision jumps ahead, beyond any that the old cluster can have
reached since, all history is compacted, and leases, locks and idempotency records are gone; keys
stay as they are, attached to no lease. Then no ETag and no fencing token is ever given twice.
"""

from itertools import islice
from typing import Final

import msgspec

from raftkv.kv.engine import Engine, Pair, StoreError, Table
from raftkv.kv.records import (
    CHAIN_HASH_BYTES,
    HASHES_KEY,
    META_KEY,
    decode_current,
    decode_meta,
    encode_current,
    encode_meta,
    without_lease,
)

#: What a restored cluster's revision is ahead of its backup's.
REVISION_JUMP: Final = 10**9
_PIECE: Final = 1000  # records that one transaction changes, so that it stays small
_NOT_KEPT: Final = tuple(table for table in Table if table > Table.REV)


def restore(engine: Engine, applied_index: int) -> int:
    """Make the state in ``engine`` that of a new cluster; its revision.

    Args:
        engine: holds what a backup held; nothing else uses it. After an error it is neither the one
            nor the other: begin again with a fresh copy of the backup.
        applied_index: the index that the new cluster's log begins after.

    Raises:
        StoreError: the engine fails, or holds no state at all.
    """
    with engine.read() as reader:
        data = reader.get(Table.META, META_KEY)
    if data is None:
        raise StoreError("there is no state to restore")
    meta = decode_meta(data)
    _detach_keys(engine)
    removed_bytes = sum(_clear(engine, table) for table in _NOT_KEPT)
    revision = meta.revision + REVISION_JUMP
    restored = msgspec.structs.replace(
        meta,
        applied_index=applied_index,
        revision=revision,
        logical_bytes=meta.logical_bytes - removed_bytes,
        chain_hash=bytes(CHAIN_HASH_BYTES),
        compacted_revision=revision,
        lease_count=0,
        lock_count=0,
        once_count=0,
        once_bytes=0,
    )
    with engine.write() as writer:
        writer.put(Table.META, META_KEY, encode_meta(restored))
        writer.delete(Table.META, HASHES_KEY)
    return revision


def _detach_keys(engine: Engine) -> None:
    """Let no key be attached to a lease. Its past may stay as it is: nobody can read it."""
    start = b""
    while True:
        with engine.read() as reader:
            piece = list(islice(reader.scan(Table.CUR, start, None), _PIECE))
            currents = [(key, decode_current(data)) for key, data in piece]
            attached = [(key, current) for key, current in currents if current.lease]
            records: list[Pair] = []
            for _, current in attached:
                record = reader.get(Table.REV, current.rev_key)
                assert record is not None, "CUR names a record that REV does not have"
                records.append((current.rev_key, without_lease(record)))
        if attached:
            with engine.write() as writer:
                detached = [(key, msgspec.structs.replace(c, lease=0)) for key, c in attached]
                writer.putmulti(Table.CUR, [(key, encode_current(c)) for key, c in detached])
                writer.putmulti(Table.REV, records)
        if len(piece) < _PIECE:
            return
        start = piece[-1][0]


def _clear(engine: Engine, table: Table) -> int:
    """Remove all that ``table`` holds; bytes of keys and values."""
    removed_bytes = 0
    while True:
        with engine.read() as reader:
            piece = list(islice(reader.scan(table, b"", None), _PIECE))
        if not piece:
            return removed_bytes
        with engine.write() as writer:
            for key, value in piece:
                writer.delete(table, key)
                removed_bytes += len(key) + len(value)
