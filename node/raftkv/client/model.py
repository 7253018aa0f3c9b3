"""What calls return: plain values, keys and values as bytes, times in seconds.

A revision counts the changes of the whole store; ``mod_revision`` of an item is its ETag.
"""

from typing import Literal

import msgspec

Consistency = Literal["linearizable", "bounded", "local"]
JsonObject = dict[str, object]

# The lease of a key that has none.
NO_LEASE = "0"


class Item(msgspec.Struct, frozen=True):
    """A key as a node served it."""

    key: bytes
    value: bytes  # empty when only keys were asked for
    create_revision: int
    mod_revision: int
    version: int  # changes since it was created, from 1
    revision: int  # the store's, when it was served
    lease: str = NO_LEASE
    # Of a bounded or local read: it shows at least all that was committed so long ago; None:
    # it was never stale, or nothing is known.
    age_seconds: float | None = None


class Written(msgspec.Struct, frozen=True):
    """A stored key: its new revision, and how often it was written since it was created."""

    revision: int
    version: int
    prev: Item | None = None  # as it was before, if asked for


class Deleted(msgspec.Struct, frozen=True):
    """How many keys were removed, and the store's revision."""

    deleted: int
    revision: int
    prev: Item | None = None  # as it was before, if asked for


class Page(msgspec.Struct, frozen=True):
    """Keys of a range, and how to go on."""

    items: tuple[Item, ...]
    prefixes: tuple[bytes, ...]  # instead of the keys that hold the delimiter
    revision: int  # of the store, the same for all pages of a cursor
    next_cursor: str | None  # None: there is no more


class Change(msgspec.Struct, frozen=True):
    """What a long poll saw: the key at ``revision``; ``item`` is None when it was removed."""

    item: Item | None
    revision: int


class Event(msgspec.Struct, frozen=True):
    """One key that changed at ``revision``."""

    kind: Literal["put", "delete"]
    key: bytes
    item: Item | None  # None: it was removed
    revision: int
    prev: Item | None = None  # as it was before, if asked for


class LeaseInfo(msgspec.Struct, frozen=True):
    """A lease as the cluster knows it."""

    id: str
    ttl_seconds: float
    remaining_seconds: float | None = None  # None: the node did not say
    keys: tuple[bytes, ...] = ()


class LockInfo(msgspec.Struct, frozen=True):
    """A lock that is held."""

    name: str  # bytes that are not UTF-8 as surrogates
    token: int  # a revision: grows with every new holder
    lease: str  # its end is the lock's
    ttl_seconds: float
    owner: str = ""
    remaining_seconds: float | None = None  # None: the node did not say
    waiters: tuple[str, ...] = ()  # their owners, the next one first


class Fence(msgspec.Struct, frozen=True):
    """Makes a write fail once the lock ``name`` is no longer held under ``token``."""

    name: str
    token: int


class Member(msgspec.Struct, frozen=True):
    """A member of the configuration, as one node sees it; None is what only the leader knows."""

    id: str
    name: str
    peer_url: str
    client_url: str
    role: str
    voter: bool
    match_index: int | None = None
    lag_entries: int | None = None
    last_contact_seconds: float | None = None
    rtt_seconds: float | None = None
    healthy: bool | None = None
