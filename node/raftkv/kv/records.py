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

FORMAT: Final = 1

META_KEY: Final = b"state"

CHAIN_HASH_BYTES: Final = 32

REV_KEY_BYTES: Final = 10
_REV_KEY: Final = struct.Struct(">QH")
_META: Final = struct.Struct(f">QQQQ{CHAIN_HASH_BYTES}s")
_CUR: Final = struct.Struct(f">{REV_KEY_BYTES}sQQQ")
_REV: Final = struct.Struct(">BQQQH")

_TOMBSTONE: Final = 0
_STORED: Final = 1


class Meta(msgspec.Struct, frozen=True, gc=False):
    """The one record of META: what the state machine is, as a whole."""

    applied_index: int = 0  # the last entry whose effects are in the tables
    revision: int = 0  # of the last command that changed something
    key_count: int = 0  # keys that exist now: the entries of CUR
    logical_bytes: int = 0  # keys and values of REV together: what a quota is measured against
    chain_hash: bytes = bytes(CHAIN_HASH_BYTES)  # over everything applied so far (rule 23)


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


def encode_meta(meta: Meta) -> bytes:
    """The value of META's record."""
    return _META.pack(
        meta.applied_index, meta.revision, meta.key_count, meta.logical_bytes, meta.chain_hash
    )


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


def decode_value(data: bytes) -> bytes:
    """The value alone, of a REV record that stored one."""
    return data[_REV.size + int.from_bytes(data[_REV.size - 2 : _REV.size], "big") :]
