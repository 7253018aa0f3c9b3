"""The frames and records of the write-ahead log: bytes <-> values. Pure.

One WAL write is one *frame*: a fixed header and a payload, the msgpack of one *record*. The
writer is `raftkv.storage.wal`, the reader `raftkv.storage.recovery`; docs/file-formats.md is the
same in prose.

A frame proves itself (its CRC covers header and payload) and its place (it repeats the CRC of
the frame before it, and sequence numbers have no gaps). Nothing is inferred from zero bytes:
a value may consist of nothing else.

Frames start at multiples of 512 bytes, so that no sector holds bytes of two frames: whatever a
power loss does to the sectors of the write in flight, frames that were durable before keep
theirs (reference/faults.md 4, row 21). Drives with larger physical sectors must not damage bytes
outside the range they are writing, which is what SQLite calls powersafe overwrite.

Source: node design, rule 7; hashicorp/raft-wal, README, 'System Assumptions'.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import google_crc32c
import msgspec

from raftkv.raft.messages import ConfState, Entry, EntryId, HardState, Index, NodeId

SECTOR_BYTES: Final = 512

# Three letters and the format's version.
_MAGIC: Final = b"RKW\x01"
# magic, payload length, segment salt, sequence, durable sequence, CRC of the frame before.
_FIELDS: Final = struct.Struct("<4sIQQQI")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _FIELDS.size + _CRC.size


class SnapshotRef(msgspec.Struct, frozen=True, array_like=True):
    """What the log says of a snapshot file (`raftkv.storage.snapshots`) that it stands on."""

    last: EntryId  # the log goes on after this entry
    config_index: Index  # of the entry that holds ``conf``
    conf: ConfState  # as of ``last``
    chain_hash: bytes  # of the state machine as of ``last``
    name: str  # of the file


class SegmentStart(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first record of every segment: what a reader must know if it begins here."""

    number: int  # the same as in the file name
    size_bytes: int  # of the file, from its creation to its end
    member_id: NodeId  # whose log this is
    last: EntryId  # the log's last entry before this segment
    hard_state: HardState  # as of then
    snapshot: SnapshotRef | None = None  # the newest one, as of then


class Append(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """One write of the node: what changed since the one before.

    The first of ``entries`` replaces everything from its index on (paper 5.3).
    """

    hard_state: HardState | None  # None: as before
    entries: Sequence[Entry]


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A snapshot file that is complete and durable; the newest one is what the log stands on."""

    snapshot: SnapshotRef
    # False: made from this log, which goes on as it was. True: received from a leader; everything
    # in the log before this record is void, and it goes on after ``snapshot.last``.
    installs: bool
    hard_state: HardState  # what a snapshot holds is committed
    entries: Sequence[Entry]  # as in `Append`, after ``snapshot.last``


WalRecord = SegmentStart | Append | Snapshot

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[WalRecord] = msgspec.msgpack.Decoder(WalRecord)


def encode_record(record: WalRecord) -> bytes:
    """A record as the payload of a frame."""
    return _ENCODER.encode(record)


def decode_record(payload: bytes) -> WalRecord:
    """The record of a payload. Raises `ValueError` for anything else.

    That is msgspec's own errors, and `UnicodeDecodeError` where a text is not UTF-8.
    """
    return _DECODER.decode(payload)


class Frame(NamedTuple):
    """A frame as it stands in a segment."""

    offset: int
    sequence: int  # 1 for the first frame of a log, without gaps over all segments
    salt: int  # random, the same for all frames of a segment
    durable_sequence: int  # the last frame that was known durable when this one was written
    previous_crc: int  # of the frame before; 0 for the first one
    crc: int
    payload: bytes

    @property
    def end(self) -> int:
        """Where the next frame starts."""
        return self.offset + frame_bytes(len(self.payload))


def frame_bytes(payload_bytes: int) -> int:
    """The room that a frame with a payload of this size takes."""
    used = HEADER_BYTES + payload_bytes
    return used + -used % SECTOR_BYTES


def encode_frame(
    payload: bytes, *, salt: int, sequence: int, durable_sequence: int, previous_crc: int
) -> tuple[list[bytes], int]:
    """The parts of a frame, in order and padded to whole sectors, and its CRC."""
    fields = _FIELDS.pack(_MAGIC, len(payload), salt, sequence, durable_sequence, previous_crc)
    crc = google_crc32c.extend(google_crc32c.value(fields), payload)
    padding = bytes(frame_bytes(len(payload)) - HEADER_BYTES - len(payload))
    return [fields + _CRC.pack(crc), payload, padding], crc


def decode_frame(data: bytes, offset: int) -> Frame | None:
    """The frame at ``offset``, or None if no valid one starts there.

    Valid means undamaged; whether it belongs there is for the caller to say.
    """
    payload_at = offset + HEADER_BYTES
    if payload_at > len(data) or not data.startswith(_MAGIC, offset):
        return None
    fields = data[offset : offset + _FIELDS.size]
    _, payload_bytes, salt, sequence, durable_sequence, previous_crc = _FIELDS.unpack(fields)
    if payload_at + payload_bytes > len(data):
        return None
    payload = data[payload_at : payload_at + payload_bytes]
    crc = google_crc32c.extend(google_crc32c.value(fields), payload)
    if crc != _CRC.unpack_from(data, offset + _FIELDS.size)[0]:
        return None
    return Frame(offset, sequence, salt, durable_sequence, previous_crc, crc, payload)


def find_later_frame(data: bytes, offset: int, *, sequence: int, salt: int) -> Frame | None:
    """The first valid frame behind ``offset`` of this salt with a higher ``sequence``, or None.

    Looks at every place where a frame may start: the length of what lies before is not believed.
    """
    for candidate in range(offset + SECTOR_BYTES, len(data), SECTOR_BYTES):
        if data.startswith(_MAGIC, candidate):
            frame = decode_frame(data, candidate)
            if frame is not None and frame.salt == salt and frame.sequence > sequence:
                return frame
    return None
