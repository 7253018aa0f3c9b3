"""The bytes of the store's tables: one codec per record, nothing else.

Called by `raftkv.kv.store` and `raftkv.kv.slice`. All integers are big-endian, so that bytes sort
as numbers do. Changing a layout means raising `FORMAT`: an environment of another format is not
opened but rebuilt from snapshot and log. Source: docs/state-machine.md.

Fixed layouts use struct: packing one costs half of a msgpack array and every field has one place.
"""

import struct
from typing import Final

import msgspec

from raftkv.kv.outcomes import Item

FORMAT: Final = 3

META_KEY: Final = b"state"
HASHES_KEY: Final = b"hashes"

CHAIN_HASH_BYTES: Final = 32

REV_KEY_BYTES: Final = 10
_REV_KEY: Final = struct.Struct(">QH")
_META: Final = struct.Struct(f">QQQQ{CHAIN_HASH_BYTES}sQQ{REV_KEY_BYTES}sQQQQ")
_CUR: Final = struct.Struct(f">{REV_KEY_BYTES}sQQQ")
_REV: Final = struct.Struct(">BQQQH")
_LEASE: Final = struct.Struct(">QQHHB")
_ONCE: Final = struct.Struct(">Q16s")
_HASH: Final = struct.Struct(f">Q{CHAIN_HASH_BYTES}s")
# Times and ids of eight bytes, in the keys of tables that are ordered by them.
_NUMBER: Final = struct.Struct(">Q")
_TWO_NUMBERS: Final = struct.Struct(">QQ")

_TOMBSTONE: Final = 0
_STORED: Final = 1


class Meta(msgspec.Struct, frozen=True, gc=False):
    """The one record of META: what the state machine is, as a whole."""

    applied_index: int = 0  # the last entry whose effects are in the tables
    revision: int = 0  # of the last command that changed something
    key_count: int = 0  # keys that exist now: the entries of CUR
    # Keys and values of REV, leases, locks and idempotency records: what a quota is measured by.
    logical_bytes: int = 0
    chain_hash: bytes = bytes(CHAIN_HASH_BYTES)  # over everything applied so far (rule 23)
    log_time_ms: int = 0  # advanced by entries only (rule 21)
    compacted_revision: int = 0  # the oldest one that can be read; 0: all can
    swept: bytes = bytes(REV_KEY_BYTES)  # up to here, what compaction makes useless is gone
    lease_count: int = 0
    lock_count: int = 0  # locks that are held
    once_count: int = 0  # idempotency records
    once_bytes: int = 0  # of all keys and values of these; part of logical_bytes


class Current(msgspec.Struct, frozen=True, gc=False):
    """A record of CUR: the latest state of a key that exists."""

    rev_key: bytes  # its record in REV
    create_revision: int
    version: int
    lease: int

    @property
    def mod_revision(self) -> int:
        """The revision that wrote the key last."""
        return int.from_bytes(self.rev_key[:8], "big")


def rev_key(revision: int, sub_revision: int) -> bytes:
    """The key of REV: a revision, and the place of one change among those that share it."""
    return _REV_KEY.pack(revision, sub_revision)


def rev_key_last(revision: int) -> bytes:
    """The greatest key that a record of ``revision`` can have."""
    return _REV_KEY.pack(revision, 0xFFFF)


def revision_of(at: bytes) -> int:
    """The revision that a key of REV names."""
    return int.from_bytes(at[:8], "big")


def rev_key_before(at: bytes) -> bytes:
    """The greatest key of REV less than ``at``, which is not the least one."""
    return (int.from_bytes(at, "big") - 1).to_bytes(REV_KEY_BYTES, "big")


def encode_meta(meta: Meta) -> bytes:
    """The value of META's record."""
    return _META.pack(*msgspec.structs.astuple(meta))


def decode_meta(data: bytes) -> Meta:
    """Inverse of `encode_meta`. Raises ``struct.error`` on anything else."""
    return Meta(*_META.unpack(data))


def encode_current(current: Current) -> bytes:
    """The value of a CUR record."""
    return _CUR.pack(current.rev_key, current.create_revision, current.version, current.lease)


def decode_current(data: bytes) -> Current:
    """Inverse of `encode_current`. Raises ``struct.error`` on anything else."""
    return Current(*_CUR.unpack(data))


def current_rev_key(data: bytes) -> bytes:
    """The `Current.rev_key` of an encoded CUR record: all that a plain read needs of it."""
    return data[:REV_KEY_BYTES]


def encode_stored(
    key: bytes, value: bytes, create_revision: int, version: int, lease: int
) -> bytes:
    """The value of a REV record that stored ``value`` under ``key``."""
    return b"".join((_REV.pack(_STORED, create_revision, version, lease, len(key)), key, value))


def encode_tombstone(key: bytes) -> bytes:
    """The value of a REV record that removed ``key``."""
    return _REV.pack(_TOMBSTONE, 0, 0, 0, len(key)) + key


def decode_item(rev_key: bytes, data: bytes) -> Item | None:
    """What the REV record ``rev_key`` -> ``data`` made of its key; None if it removed it."""
    kind, create_revision, version, lease, key_bytes = _REV.unpack_from(data)
    if kind == _TOMBSTONE:
        return None
    value_at = _REV.size + key_bytes
    return Item(
        data[_REV.size : value_at],
        data[value_at:],
        create_revision,
        int.from_bytes(rev_key[:8], "big"),
        version,
        lease,
    )


def without_lease(data: bytes) -> bytes:
    """A REV record that stored a value, attached to no lease."""
    kind, create_revision, version, _, key_bytes = _REV.unpack_from(data)
    return _REV.pack(kind, create_revision, version, 0, key_bytes) + data[_REV.size :]


def decode_key(data: bytes) -> bytes:
    """The key alone, of any REV record."""
    return data[_REV.size : _REV.size + int.from_bytes(data[_REV.size - 2 : _REV.size], "big")]


def is_tombstone(data: bytes) -> bool:
    """Whether a REV record removed its key."""
    return data[0] == _TOMBSTONE


def decode_value(data: bytes) -> bytes:
    """The value alone, of a REV record that stored one."""
    return data[_REV.size + int.from_bytes(data[_REV.size - 2 : _REV.size], "big") :]


# ---- leases, locks, idempotency records -----------------------------------------------------


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A record of LEASE."""

    ttl_ms: int
    ends_at_ms: int  # of log time; it is over from then on, and ends when that is applied
    keys_max: int
    key_count: int = 0  # its records of ATTACHED
    is_private: bool = False  # made for one key, ends with it
    lock: bytes = b""  # the name of the lock that is held by it; empty: none


class Waiter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One place in the queue for a lock."""

    ticket: int  # the revision that queued it
    owner: bytes
    ttl_ms: int
    until_ms: int  # of log time


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """A record of LOCK: one that is held."""

    token: int  # the revision of the grant, and the id of its lease
    owner: bytes
    ttl_ms: int
    ticket: int = 0  # by which it was granted; 0 when its owner asked again since
    waiters: tuple[Waiter, ...] = ()  # the next one first


class OnceRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of ONCE: what came of a request with an idempotency key."""

    ends_at_ms: int  # of log time: may be swept from then on
    fingerprint: bytes  # 16 bytes, of the request
    outcome: bytes  # encoded


_LOCK_ENCODER: Final = msgspec.msgpack.Encoder()
_LOCK_DECODER: Final = msgspec.msgpack.Decoder(Lock)


def encode_lease(lease: Lease) -> bytes:
    """The value of a LEASE record."""
    ttl_ms, ends_at_ms = lease.ttl_ms, lease.ends_at_ms
    fixed = _LEASE.pack(ttl_ms, ends_at_ms, lease.keys_max, lease.key_count, lease.is_private)
    return fixed + lease.lock


def decode_lease(data: bytes) -> Lease:
    """Inverse of `encode_lease`. Raises ``struct.error`` on anything else."""
    ttl_ms, ends_at_ms, keys_max, key_count, is_private = _LEASE.unpack_from(data)
    return Lease(ttl_ms, ends_at_ms, keys_max, key_count, bool(is_private), data[_LEASE.size :])


def encode_lock(lock: Lock) -> bytes:
    """The value of a LOCK record."""
    return _LOCK_ENCODER.encode(lock)


def decode_lock(data: bytes) -> Lock:
    """Inverse of `encode_lock`. Raises ``ValueError`` on anything else."""
    return _LOCK_DECODER.decode(data)


def encode_once(record: OnceRecord) -> bytes:
    """The value of a ONCE record."""
    return _ONCE.pack(record.ends_at_ms, record.fingerprint) + record.outcome


def decode_once(data: bytes) -> OnceRecord:
    """Inverse of `encode_once`. Raises ``struct.error`` on anything else."""
    ends_at_ms, fingerprint = _ONCE.unpack_from(data)
    return OnceRecord(ends_at_ms, fingerprint, data[_ONCE.size :])


def encode_number(number: int) -> bytes:
    """Eight bytes: the key of LEASE, and the bound of a table that is ordered by time."""
    return _NUMBER.pack(number)


def decode_number(data: bytes) -> int:
    """The number that ``data`` begins with."""
    return int.from_bytes(data[:8], "big")


def deadline_key(ends_at_ms: int, lease: int) -> bytes:
    """The key of DEADLINE; `decode_number` of its first and last eight bytes gives both back."""
    return _TWO_NUMBERS.pack(ends_at_ms, lease)


def encode_hashes(hashes: tuple[tuple[int, bytes], ...]) -> bytes:
    """The value of META's record of chain hashes at earlier indexes."""
    return b"".join(_HASH.pack(*pair) for pair in hashes)


def decode_hashes(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """Inverse of `encode_hashes`. Raises ``struct.error`` on anything else."""
    return tuple(_HASH.iter_unpack(data))
