"""Reads leases and locks, one or a bounded piece of all. Called by `raftkv.node.queries`.

Each call opens a transaction of its own and reads at most what it is asked for (rule 24).
"""

from itertools import islice
from typing import Final

import msgspec

from raftkv.kv.engine import KEY_BYTES_MAX, Engine, EngineReader, Table
from raftkv.kv.records import (
    Lease,
    Lock,
    decode_lease,
    decode_lock,
    decode_number,
    encode_number,
)

_LEASE_MAX: Final = 2**64 - 1


class HeldLock(msgspec.Struct, frozen=True):
    """A lock that is held, with the lease it is held by."""

    name: bytes
    lock: Lock
    lease: Lease


def find_lease(engine: Engine, lease: int) -> tuple[Lease, tuple[bytes, ...]] | None:
    """A lease and its keys, the one written longest ago first; None: there is no such lease."""
    if not 0 < lease < _LEASE_MAX:
        return None
    with engine.read() as reader:
        data = reader.get(Table.LEASE, encode_number(lease))
        if data is None:
            return None
        attached = reader.scan(Table.ATTACHED, encode_number(lease), encode_number(lease + 1))
        return decode_lease(data), tuple(key for _, key in attached)


def list_leases(engine: Engine, after: int, limit: int) -> list[tuple[int, Lease]]:
    """The first ``limit`` leases with ids greater than ``after``, in order."""
    if after >= _LEASE_MAX:
        return []
    start = encode_number(max(after + 1, 0))
    with engine.read() as reader:
        found = islice(reader.scan(Table.LEASE, start, None), max(limit, 0))
        return [(decode_number(key), decode_lease(data)) for key, data in found]


def find_lock(engine: Engine, name: bytes) -> HeldLock | None:
    """The lock ``name``; None: nobody holds it."""
    if not 0 < len(name) <= KEY_BYTES_MAX:
        return None
    with engine.read() as reader:
        data = reader.get(Table.LOCK, name)
        return None if data is None else _held(reader, name, data)


def list_locks(engine: Engine, after: bytes, limit: int) -> list[HeldLock]:
    """The first ``limit`` locks with names after ``after`` (b"": from the first), in order."""
    with engine.read() as reader:
        # LMDB seeks no key longer than it can hold: step over ``after`` itself instead.
        locks = reader.scan(Table.LOCK, after[:KEY_BYTES_MAX], None)
        found = list(islice((pair for pair in locks if pair[0] > after), max(limit, 0)))
        return [_held(reader, name, data) for name, data in found]


def _held(reader: EngineReader, name: bytes, data: bytes) -> HeldLock:
    lock = decode_lock(data)
    lease = reader.get(Table.LEASE, encode_number(lock.token))
    assert lease is not None, "a held lock has a lease"
    return HeldLock(name, lock, decode_lease(lease))
