"""Server-Sent Events of watches: the bytes, and how they are put together. Pure.

Called by `raftkv.server.watches` and its streams. An event is encoded once, whoever it is sent to:

    event: put
    data: {"key":"a","key_encoding":"utf-8","value":"1",...,"mod_revision":7,...}
    id: 9f86d081884c7d65:7

All events of one revision are sent together and only the last has an ``id``: a client that
was cut off amid a revision asks for all of it again. The id names the *epoch* too, which differs
between clusters, so that a revision of a restored store is not taken for one of the old.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from raftkv.kv.changes import Change
from raftkv.server.http.render import ItemBody, item_body
from raftkv.server.http.texts import text_of

_EPOCH_DIGITS: Final = 16
_ENCODER: Final = msgspec.json.Encoder()


class _DeletedBody(msgspec.Struct, omit_defaults=True):
    key: str
    key_encoding: str
    mod_revision: int  # that removed it
    prev: ItemBody | msgspec.UnsetType | None = msgspec.UNSET  # unset: not asked for


class _Revision(msgspec.Struct):
    revision: int


class _Oldest(msgspec.Struct):
    oldest_revision: int


class Part(NamedTuple):
    """Bytes of a stream, as they are and as a chunk of HTTP/1.1: made once, sent to many."""

    raw: bytes
    chunk: bytes


class Told(NamedTuple):
    """An encoded change, without its end: whether it has an id depends on what follows."""

    revision: int
    body: bytes


def epoch_of(cluster_id: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the cluster's id."""
    return hashlib.sha256(cluster_id.encode()).hexdigest()[:_EPOCH_DIGITS]


def part_of(raw: bytes) -> Part:
    """``raw``, which is not empty, ready to be sent."""
    return Part(raw, b"%x\r\n%b\r\n" % (len(raw), raw))


def encode_change(change: Change, *, with_previous: bool) -> Told:
    """The event of one change."""
    prev: ItemBody | msgspec.UnsetType | None = msgspec.UNSET
    if with_previous:
        prev = None if change.previous is None else item_body(change.previous)
    if change.item is None:
        deleted = _DeletedBody(*text_of(change.key), change.revision, prev)
        return Told(change.revision, b"event: delete\ndata: " + _ENCODER.encode(deleted) + b"\n")
    data = _ENCODER.encode(item_body(change.item))
    if prev is not msgspec.UNSET:
        data = b'%b,"prev":%b}' % (data[:-1], _ENCODER.encode(prev))
    return Told(change.revision, b"event: put\ndata: " + data + b"\n")


class Encoder:
    """Events with the ids of one epoch."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._id = b"id: " + epoch.encode("ascii") + b":%d\n\n"

    def events(self, told: Iterable[Told]) -> bytes:
        """Changes in ascending order, whole revisions."""
        return b"".join(self._with_ids(told))

    def progress(self, revision: int) -> bytes:
        """Everything up to ``revision`` was sent."""
        return self._about(b"progress", revision)

    def bye(self, revision: int) -> bytes:
        """Go on elsewhere: this node is leaving."""
        return self._about(b"bye", revision)

    def compacted(self, oldest_revision: int) -> bytes:
        """What should come next is forgotten. Without an id: the client cannot go on."""
        data = _ENCODER.encode(_Oldest(oldest_revision))
        return b"event: compacted\ndata: %b\n\n" % data

    def _about(self, name: bytes, revision: int) -> bytes:
        data = _ENCODER.encode(_Revision(revision))
        return b"event: %b\ndata: %b\n%b" % (name, data, self._id % revision)

    def _with_ids(self, told: Iterable[Told]) -> Iterator[bytes]:
        last: Told | None = None
        for each in told:
            if last is not None:
                yield b"\n" if last.revision == each.revision else self._id % last.revision
            yield each.body
            last = each
        if last is not None:
            yield self._id % last.revision
