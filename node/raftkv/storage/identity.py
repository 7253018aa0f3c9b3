"""Who this node is: a random id made together with the disk, and the cluster it belongs to.

Written once on an empty volume and once more when the node founds or joins a cluster. A node
whose volume is lost gets a new id with the new one, so that it can never vote twice (node
design, rule 15; Raft thesis 3.8; reference/faults.md 2, rules 4 and 5).

The file: one line with format version and CRC32C, then the values as JSON, for a person to read.
"""

from typing import Protocol

import google_crc32c
import msgspec

from raftkv.raft.messages import ConfState, NodeId
from raftkv.storage.disk import Close, DiskTask
from raftkv.storage.durable_file import read_file, replace_file
from raftkv.storage.errors import CorruptionError
from raftkv.storage.layout import IDENTITY, ROOT

_HEADER = b"raftkv identity 1 crc32c "
# Far above what a configuration takes; a larger file is not an identity.
_SIZE_BYTES_MAX = 16 << 20


class Rng(Protocol):
    """What is needed of the injected source of randomness."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This node, for as long as its disk lives."""

    member_id: NodeId  # random, never 0, never anybody else's
    cluster_id: str | None = None  # None: belongs to no cluster yet, and never votes
    # The configuration this node founded its cluster with; None if it did not found it. Kept so
    # that a founder killed before its first entry goes on with the same list.
    founding: ConfState | None = None


def random_nonzero(rng: Rng) -> int:
    """64 random bits, at least one of them set: 0 stands for 'nobody' in many places."""
    while True:
        value = rng.getrandbits(64)
        if value:
            return value


def create_identity(rng: Rng) -> Identity:
    """A new identity, for an empty volume; the caller writes it before anybody hears of it."""
    return Identity(member_id=random_nonzero(rng))


def adopt_cluster(
    identity: Identity, cluster_id: str, founding: ConfState | None
) -> DiskTask[Identity]:
    """Bind the node to a cluster, once and for good; durable when the task ends.

    ``founding``: see `Identity`. The caller answers nobody in the cluster's name before.
    """
    assert identity.cluster_id is None, "a member never changes its cluster"
    assert cluster_id, "a cluster has an id"
    adopted = msgspec.structs.replace(identity, cluster_id=cluster_id, founding=founding)
    yield from write_identity(adopted)
    return adopted


def write_identity(identity: Identity) -> DiskTask[None]:
    """Replace the identity file; durable when the task ends."""
    handle = yield from replace_file(ROOT, IDENTITY, [encode_identity(identity)])
    yield (Close(handle),)


def read_identity() -> DiskTask[Identity]:
    """Read the identity file. Raises `CorruptionError`; the caller made sure that it exists."""
    return decode_identity((yield from read_file(f"{ROOT}/{IDENTITY}", _SIZE_BYTES_MAX)))


def encode_identity(identity: Identity) -> bytes:
    """The content of the identity file."""
    body = msgspec.json.encode(identity) + b"\n"
    return b"%s%08x\n%s" % (_HEADER, google_crc32c.value(body), body)


def decode_identity(content: bytes) -> Identity:
    """The identity in the content of its file. Raises `CorruptionError`."""
    header, _, body = content.partition(b"\n")
    if not header.startswith(_HEADER):
        raise CorruptionError(IDENTITY, "not an identity file of this version of raftkv")
    if header != b"%s%08x" % (_HEADER, google_crc32c.value(body)):
        raise CorruptionError(IDENTITY, "the checksum does not match")
    try:
        identity = msgspec.json.decode(body, type=Identity)
    except ValueError as error:
        raise CorruptionError(IDENTITY, f"cannot be decoded: {error}") from None
    if not 0 < identity.member_id < 1 << 64:
        raise CorruptionError(IDENTITY, "the member id is not a non-zero 64-bit number")
    return identity
