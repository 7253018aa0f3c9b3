"""The peer protocol's bytes: what a connection says first, and how frames are cut from a stream.

Owns the encodings only; `raftkv.server.transport` owns the sockets. Pure.

A connection is opened by the node that has something to say. Both ends see:

    preamble   "RAFTKV", protocol version (u16)             from the connecting end, once
    frame      length (u32), CRC32C of these four bytes (u32), CRC32C of the body (u32),
               body (MessagePack, ``length`` bytes)

All integers are little-endian. The first frame is an `Opening`, its answer a `Reply`; then
`PeerFrame`s follow. A frame without a body is a sign of life, from the connecting end.

What does not fit is never interpreted: a wrong first byte, length, checksum or shape ends the
connection with a reason that is counted (reference/faults.md, section 4 rows 8 and 9, section 6
row 27). The length has a checksum of its own: a bit of it that turned would have the receiver wait
for megabytes that take an hour to gather, on a connection that looks alive. The sender connects
anew and what was lost is for Raft to repeat.
"""

import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import google_crc32c
import msgspec

from raftkv.node.messages import PeerFrame
from raftkv.raft.messages import NodeId

PROTOCOL_VERSION: Final = 2
MAGIC: Final = b"RAFTKV"
PREAMBLE: Final = MAGIC + struct.pack("<H", PROTOCOL_VERSION)

# The core keeps an Append near a megabyte; only one huge entry could come close to this.
BODY_BYTES_MAX: Final = 64 << 20
# Before a peer has said who it is, it may not make us buffer more than this.
OPENING_BYTES_MAX: Final = 4 << 10

_HEADER: Final = struct.Struct("<III")
_LENGTH: Final = struct.Struct("<I")
_CHECKSUMS: Final = struct.Struct("<II")


class Refused(StrEnum):
    """Why a connection was not accepted or was cut: a closed set, used as a metric's label."""

    NOT_RAFTKV = "not_raftkv"  # HTTP, TLS, noise
    VERSION = "version"
    OVERSIZED = "oversized"
    CHECKSUM = "checksum"
    MALFORMED = "malformed"
    STARTING = "starting"  # recovery has not told yet who this node is
    WRONG_RECEIVER = "wrong_receiver"  # another node was meant; addresses are crossed or reused
    WRONG_CLUSTER = "wrong_cluster"
    WRONG_SENDER = "wrong_sender"  # a frame in another name than the connection's
    SILENT = "silent"
    TOO_MANY = "too_many"
    TLS = "tls"  # no certificate of the peers' authority, or no TLS at all
    WRONG_CERTIFICATE = "wrong_certificate"  # of the authority, but not of the member it claims


class ProtocolError(Exception):
    """The other end's bytes are not what the protocol allows."""

    def __init__(self, reason: Refused) -> None:
        super().__init__(reason.value)
        self.reason = reason


# ---- the first words of a connection --------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """'I am ``sender`` of this cluster, and this is for ``receiver``', says the opening end."""

    cluster_id: str
    sender: NodeId
    receiver: NodeId
    channel: int  # a `Channel`


class Probe(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ask a node who it is. Answered by one `ProbeReply`; the connection then ends."""

    sender: NodeId


Opening = Hello | Probe


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Go ahead."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """No; the connection ends."""

    reason: str  # a `Refused`
    detail: str  # for a person


class ProbeReply(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """What cluster formation needs to know of a node (`raftkv.server.formation`)."""

    name: str
    member_id: NodeId
    cluster_id: str | None
    state: str
    peer_url: str
    client_url: str
    peers_digest: str | None  # of its own --peers list; None: started without
    # Whether its configuration lists the asking member; None: it knows no configuration.
    lists_sender: bool | None


Reply = Welcome | Refusal | ProbeReply

_encode = msgspec.msgpack.Encoder().encode
_decode_frame = msgspec.msgpack.Decoder(PeerFrame).decode
_opening_decoder: Final[msgspec.msgpack.Decoder[Opening]] = msgspec.msgpack.Decoder(Opening)
_reply_decoder: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)


def encode(value: PeerFrame | Opening | Reply) -> tuple[bytes, bytes]:
    """A frame as header and body: two parts, so that a large body is not copied."""
    body = _encode(value)
    return _header_of(body), body


def _header_of(body: bytes) -> bytes:
    length = _LENGTH.pack(len(body))
    return length + _CHECKSUMS.pack(google_crc32c.value(length), google_crc32c.value(body))


SIGN_OF_LIFE: Final = _header_of(b"")


def decode_opening(body: bytes) -> Opening:
    """Raises ProtocolError."""
    try:
        return _opening_decoder.decode(body)
    except ValueError:
        raise ProtocolError(Refused.MALFORMED) from None


def decode_reply(body: bytes) -> Reply:
    """Raises ProtocolError."""
    try:
        return _reply_decoder.decode(body)
    except ValueError:
        raise ProtocolError(Refused.MALFORMED) from None


def decode_peer_frame(body: bytes) -> PeerFrame:
    """Raises ProtocolError."""
    try:
        return _decode_frame(body)
    except ValueError:
        raise ProtocolError(Refused.MALFORMED) from None


# ---- cutting a stream into frames -----------------------------------------------------------


class FrameReader:
    """Collects a connection's bytes and hands out the frames that are complete.

    Bytes may come in pieces of any size. After a ProtocolError the stream is lost: close it.
    """

    __slots__ = ("_has_preamble", "_incomplete", "_needed", "body_bytes_max")

    def __init__(self, *, expects_preamble: bool) -> None:
        self._has_preamble = not expects_preamble
        # The beginning of a frame, and how long it must be before it is worth another look.
        self._incomplete = bytearray()
        self._needed = 0
        #: The longest body accepted; the owner raises it when it knows the other end.
        self.body_bytes_max = OPENING_BYTES_MAX

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that ``data`` completes, empty ones left out. Raises ProtocolError.

        To be consumed to the end; ``body_bytes_max`` may be changed between two bodies.
        """
        if self._incomplete:
            self._incomplete += data
            if len(self._incomplete) < self._needed:
                return
            data = bytes(self._incomplete)
            self._incomplete.clear()
        self._needed = 0
        offset, size, header_bytes = 0, len(data), _HEADER.size
        if not self._has_preamble:
            if not self._check_preamble(data):
                self._incomplete += data
                return
            offset = len(PREAMBLE)
        while size - offset >= header_bytes:
            length, length_crc, crc = _HEADER.unpack_from(data, offset)
            if google_crc32c.value(data[offset : offset + _LENGTH.size]) != length_crc:
                raise ProtocolError(Refused.CHECKSUM)
            if length > self.body_bytes_max:
                raise ProtocolError(Refused.OVERSIZED)
            end = offset + header_bytes + length
            if end > size:
                self._needed = end - offset
                break
            body = data[offset + header_bytes : end]
            if google_crc32c.value(body) != crc:
                raise ProtocolError(Refused.CHECKSUM)
            offset = end
            if body:
                yield body
        if offset < size:
            self._incomplete += data[offset:]

    def _check_preamble(self, data: bytes) -> bool:
        """Whether it is complete. Raises at the first byte that cannot be right."""
        if data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise ProtocolError(Refused.NOT_RAFTKV)
        if len(data) < len(PREAMBLE):
            return False
        if data[: len(PREAMBLE)] != PREAMBLE:
            raise ProtocolError(Refused.VERSION)
        self._has_preamble = True
        return True
