"""Snapshot files: the state machine as of one entry, whole and verified, or not there.

A snapshot replaces the log up to its last entry: it is made (or received from the leader) here,
then named in the log (`raftkv.storage.wal.Wal.append_snapshot`), and only then may what it
replaces be removed. The blob inside is an engine's copy of itself and opaque to storage.

    header block     magic, CRC32C, what the snapshot is (`SnapshotMeta`), the blob's size
    blob             as `BlobSource` wrote it
    trailer          blake2b-256 of header and blob, with a CRC32C of its own

Everything is a disk task for the bulk lane; hashing happens in its thread too, a piece per
submission. A crash at any operation leaves the old file, the new file, or a `*.tmp` that the next
start removes. Source: node design, rules 10 and 11; docs/file-formats.md.
"""

import errno
import hashlib
import struct
from collections.abc import Callable
from typing import BinaryIO, Final

import google_crc32c
import msgspec

from raftkv.raft.messages import ConfState, EntryId, Index
from raftkv.storage.disk import (
    Allocate,
    BlobSink,
    BlobSource,
    Close,
    DiskError,
    DiskTask,
    Fdatasync,
    FreeBytes,
    FsyncDir,
    Handle,
    Listdir,
    Open,
    Pread,
    Pwrite,
    ReadInto,
    Rename,
    Truncate,
    Unlink,
    WriteFrom,
)
from raftkv.storage.errors import (
    CorruptionError,
    SnapshotMissingError,
    SnapshotRefusedError,
)
from raftkv.storage.layout import (
    SNAPSHOTS,
    TEMPORARY_SUFFIX,
    parse_snapshot_name,
    snapshot_name,
)

#: Before the blob; whole pages. Room for a configuration that names a thousand removed members.
HEADER_BYTES: Final = 64 << 10
_HEADER_MAGIC: Final = b"RKS\x01"
_HEADER_FIELDS: Final = struct.Struct("<4sI")  # magic, payload length; then the block's CRC
_TRAILER_MAGIC: Final = b"RKT\x01"
_TRAILER_FIELDS: Final = struct.Struct("<4sQ32s")  # magic, blob size, digest
_CRC: Final = struct.Struct("<I")
_PAYLOAD_AT: Final = _HEADER_FIELDS.size + _CRC.size
TRAILER_BYTES: Final = _TRAILER_FIELDS.size + _CRC.size
DIGEST_BYTES: Final = 32

# Far above any file system; a peer may announce anything.
_BLOB_BYTES_MAX: Final = 1 << 60
# Read and hashed at once: a millisecond of one core, and memory.
_PIECE_BYTES: Final = 1 << 20
# What a receiver writes between two syncs, so that the log never waits behind much.
_SYNC_BYTES: Final = 8 << 20
# A half received file is not in the way of a snapshot of the same entry that is made here.
_RECEIVING_SUFFIX: Final = ".receiving" + TEMPORARY_SUFFIX
# "There is no room" in all its forms: heals, and leaves nothing in doubt.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot is."""

    cluster_id: str
    last: EntryId  # all entries up to this one are in it
    config_index: Index  # of the entry that holds ``conf``
    conf: ConfState  # as of ``last``
    chain_hash: bytes  # of the state machine as of ``last`` (rule 23)
    revision: int  # of the store
    state_bytes: int  # of storage the engine uses: about what the blob takes
    # Of the state machine's records in the blob; 0: written before versions said so.
    record_format: int = 0


class SnapshotInfo(msgspec.Struct, frozen=True, array_like=True):
    """A complete snapshot file; also what a leader offers to a follower."""

    name: str  # in the directory `SNAPSHOTS`
    size_bytes: int  # of the whole file
    digest: bytes  # blake2b-256 of header and blob
    meta: SnapshotMeta

    @property
    def blob_bytes(self) -> int:
        """The size of the engine's copy."""
        return self.size_bytes - HEADER_BYTES - TRAILER_BYTES


class _Header(msgspec.Struct, frozen=True, array_like=True):
    blob_bytes: int
    meta: SnapshotMeta


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Header)


# ---- bytes <-> values ----------------------------------------------------------------------


def encode_header(meta: SnapshotMeta, blob_bytes: int) -> bytes:
    """The header block. Raises `SnapshotRefusedError` if ``meta`` is too large for it."""
    payload = _ENCODER.encode(_Header(blob_bytes, meta))
    room = HEADER_BYTES - _PAYLOAD_AT
    if len(payload) > room:
        raise SnapshotRefusedError(
            f"the snapshot's description takes {len(payload)} bytes, and {room} are the most"
        )
    fields = _HEADER_FIELDS.pack(_HEADER_MAGIC, len(payload))
    rest = payload.ljust(room, b"\0")
    return fields + _CRC.pack(google_crc32c.extend(google_crc32c.value(fields), rest)) + rest


def decode_header(block: bytes) -> tuple[SnapshotMeta, int]:
    """What `encode_header` was given. Raises `ValueError` with the reason for anything else."""
    if len(block) < HEADER_BYTES:
        raise ValueError("the file ends within its header")
    magic, payload_bytes = _HEADER_FIELDS.unpack_from(block)
    if magic != _HEADER_MAGIC:
        raise ValueError("not a snapshot of this version of raftkv")
    fields, rest = block[: _HEADER_FIELDS.size], block[_PAYLOAD_AT:HEADER_BYTES]
    crc = google_crc32c.extend(google_crc32c.value(fields), rest)
    if crc != _CRC.unpack_from(block, _HEADER_FIELDS.size)[0]:
        raise ValueError("the header's checksum does not match")
    try:
        header = _DECODER.decode(rest[:payload_bytes])
    except ValueError as error:
        raise ValueError(f"the header cannot be decoded: {error}") from None
    if not 0 <= header.blob_bytes <= _BLOB_BYTES_MAX:
        raise ValueError(f"the header announces a blob of {header.blob_bytes} bytes")
    return header.meta, header.blob_bytes


def encode_trailer(blob_bytes: int, digest: bytes) -> bytes:
    """The trailer."""
    fields = _TRAILER_FIELDS.pack(_TRAILER_MAGIC, blob_bytes, digest)
    return fields + _CRC.pack(google_crc32c.value(fields))


def decode_trailer(block: bytes, blob_bytes: int) -> bytes:
    """The digest. Raises `ValueError` with the reason if it is no trailer of such a blob."""
    if len(block) != TRAILER_BYTES:
        raise ValueError("the file ends before its trailer does")
    magic, written_blob_bytes, digest = _TRAILER_FIELDS.unpack_from(block)
    (crc,) = _CRC.unpack_from(block, _TRAILER_FIELDS.size)
    if google_crc32c.value(block[: _TRAILER_FIELDS.size]) != crc or magic != _TRAILER_MAGIC:
        raise ValueError("the trailer's checksum does not match")
    if written_blob_bytes != blob_bytes:
        raise ValueError("header and trailer belong to different snapshots")
    assert isinstance(digest, bytes)
    return digest


def describe_file(meta: SnapshotMeta, blob_bytes: int, tail: bytes) -> SnapshotInfo:
    """The file with this header; ``tail`` is what was read where its trailer should be.

    Read a byte more than `TRAILER_BYTES`. Raises `ValueError` if the trailer is not there, or is
    not the end.
    """
    if len(tail) > TRAILER_BYTES:
        raise ValueError("the file goes on behind its trailer")
    digest = decode_trailer(tail, blob_bytes)
    size_bytes = HEADER_BYTES + blob_bytes + TRAILER_BYTES
    return SnapshotInfo(snapshot_name(meta.last), size_bytes, digest, meta)


class Checksum:
    """Verifies the bytes of a snapshot file as they pass, in any pieces."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._hashed_bytes = 0
        self._held = b""  # what may be the trailer

    def update(self, data: bytes) -> None:
        """The next bytes."""
        held = self._held + data
        self._hash.update(held[:-TRAILER_BYTES])
        self._hashed_bytes += max(0, len(held) - TRAILER_BYTES)
        self._held = held[-TRAILER_BYTES:]

    def verify(self) -> bytes:
        """The file is complete: its digest. Raises `ValueError` if it is not what was written."""
        digest = decode_trailer(self._held, self._hashed_bytes - HEADER_BYTES)
        if digest != self._hash.digest():
            raise ValueError("the content's hash does not match")
        return digest


# ---- making one ----------------------------------------------------------------------------


def write_snapshot(
    meta: SnapshotMeta, source: BlobSource, *, keep_free_bytes: int = 0
) -> DiskTask[SnapshotInfo]:
    """Make the snapshot file of ``meta``; durable under its name when the task ends.

    Replaces a file of the same entry. ``keep_free_bytes`` must remain free beside it, for the
    log. Raises `SnapshotRefusedError` if there is no room or ``source`` fails.
    """
    encode_header(meta, _BLOB_BYTES_MAX)  # too large? found out before the long work
    name = snapshot_name(meta.last)
    path = f"{SNAPSHOTS}/{name}"
    temporary = path + TEMPORARY_SUFFIX
    yield from _require_room(
        HEADER_BYTES + meta.state_bytes + TRAILER_BYTES, keep_free_bytes=keep_free_bytes
    )
    handle: Handle | None = None
    try:
        (opened,) = yield (Open(temporary, create=True),)
        assert isinstance(opened, int)
        handle = opened
        _, blob_bytes = yield (Truncate(handle, 0), WriteFrom(handle, HEADER_BYTES, source))
        assert isinstance(blob_bytes, int)
        yield (Pwrite(handle, 0, [encode_header(meta, blob_bytes)]),)
        trailer_at = HEADER_BYTES + blob_bytes
        digest = yield from _digest(handle, trailer_at)
        yield (Pwrite(handle, trailer_at, [encode_trailer(blob_bytes, digest)]),)
    except DiskError as error:
        if error.errno not in _NO_ROOM and not _source_failed(error):
            raise
        if handle is not None:
            yield (Close(handle), Unlink(temporary))
        raise SnapshotRefusedError(f"the snapshot {name} was not made: {error.reason}") from error
    yield (Fdatasync(handle), Close(handle), Rename(temporary, path), FsyncDir(SNAPSHOTS))
    return SnapshotInfo(name, trailer_at + TRAILER_BYTES, digest, meta)


def _source_failed(error: DiskError) -> bool:
    return isinstance(error.op, WriteFrom) and error.errno is None


def _require_room(size_bytes: int, *, keep_free_bytes: int) -> DiskTask[None]:
    (free_bytes,) = yield (FreeBytes(SNAPSHOTS),)
    assert isinstance(free_bytes, int)
    if free_bytes < size_bytes + keep_free_bytes:
        raise SnapshotRefusedError(
            f"a snapshot of {size_bytes} bytes does not fit: {free_bytes} bytes are free, "
            f"and {keep_free_bytes} must remain"
        )


class _Hasher:
    """A `BlobSink` that hashes, in the disk's thread."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def read_from(self, file: BinaryIO, size: int) -> None:
        """See `BlobSink`."""
        while size > 0 and (data := file.read(size)):
            self._hash.update(data)
            size -= len(data)

    def digest(self) -> bytes:
        """Of all that was read."""
        return self._hash.digest()


def _digest(handle: Handle, size: int) -> DiskTask[bytes]:
    """The digest of the file's first ``size`` bytes."""
    hasher = _Hasher()
    for offset in range(0, size, _PIECE_BYTES):
        yield (ReadInto(handle, offset, min(_PIECE_BYTES, size - offset), hasher),)
    return hasher.digest()


# ---- reading one ---------------------------------------------------------------------------


def open_snapshot(name: str) -> DiskTask[Handle]:
    """Open the file for `read_chunk`; it stays readable after its removal, until it is closed.

    Raises `SnapshotMissingError` if it is not there.
    """
    path = f"{SNAPSHOTS}/{name}"
    try:
        (handle,) = yield (Open(path, read_only=True),)
    except DiskError as error:
        if error.errno != errno.ENOENT:
            raise
        raise SnapshotMissingError(path) from None
    assert isinstance(handle, int)
    return handle


def read_chunk(handle: Handle, offset: int, size: int) -> DiskTask[bytes]:
    """Bytes of the file as they are, to be sent; fewer than ``size`` only at its end."""
    (data,) = yield (Pread(handle, offset, size),)
    assert isinstance(data, bytes)
    return data


def close_snapshot(handle: Handle) -> DiskTask[None]:
    """Close what `open_snapshot` opened."""
    yield (Close(handle),)


def read_info(name: str) -> DiskTask[SnapshotInfo]:
    """What the file says it is: header and trailer are verified, the blob is not.

    Raises `CorruptionError` with the place.
    """
    handle, info = yield from _open_sound(name, _inspect)
    yield (Close(handle),)
    return info


def verify_snapshot(name: str) -> DiskTask[SnapshotInfo]:
    """`read_info`, and all bytes are what they were when the file was made.

    Raises `CorruptionError`.
    """
    handle, info = yield from _open_sound(name, _verify)
    yield (Close(handle),)
    return info


def load(name: str, sink: BlobSink) -> DiskTask[SnapshotInfo]:
    """Verify the whole file, then let ``sink`` read the blob.

    Raises `CorruptionError`; ``sink`` has not been called then.
    """
    handle, info = yield from _open_sound(name, _verify)
    yield (ReadInto(handle, HEADER_BYTES, info.blob_bytes, sink), Close(handle))
    return info


def _open_sound(
    name: str, judge: Callable[[Handle, str], DiskTask[SnapshotInfo]]
) -> DiskTask[tuple[Handle, SnapshotInfo]]:
    """The file, open, and what ``judge`` found; its `ValueError` becomes `CorruptionError`."""
    handle = yield from open_snapshot(name)
    try:
        info = yield from judge(handle, name)
    except ValueError as error:
        yield (Close(handle),)
        raise CorruptionError(f"{SNAPSHOTS}/{name}", str(error)) from None
    return handle, info


def _inspect(handle: Handle, name: str) -> DiskTask[SnapshotInfo]:
    """Raises `ValueError` if header, trailer, size and name do not fit together."""
    (block,) = yield (Pread(handle, 0, HEADER_BYTES),)
    assert isinstance(block, bytes)
    meta, blob_bytes = decode_header(block)
    if snapshot_name(meta.last) != name:
        raise ValueError(f"by its content this is {snapshot_name(meta.last)}: a file was renamed")
    (block,) = yield (Pread(handle, HEADER_BYTES + blob_bytes, TRAILER_BYTES + 1),)
    assert isinstance(block, bytes)
    return describe_file(meta, blob_bytes, block)


def _verify(handle: Handle, name: str) -> DiskTask[SnapshotInfo]:
    """Raises `ValueError` if anything in the file is not as it was written."""
    info = yield from _inspect(handle, name)
    digest = yield from _digest(handle, HEADER_BYTES + info.blob_bytes)
    if digest != info.digest:
        raise ValueError("the content's hash does not match")
    return info


# ---- receiving one -------------------------------------------------------------------------


class SnapshotReceiver:
    """A snapshot file that arrives from a peer, piece by piece, in order.

    Owned by the node class; one task at a time. Within the process a transfer that broke off may
    go on where it stopped (`accepts`, `received_bytes`); after a restart it begins anew. After a
    `SnapshotRefusedError` nothing is left, and the receiver must not be used again.
    """

    def __init__(self, offer: SnapshotInfo, *, keep_free_bytes: int = 0) -> None:
        self.offer = offer
        self.received_bytes = 0  # from the start of the file; where the next piece belongs
        self._keep_free_bytes = keep_free_bytes
        self._path = f"{SNAPSHOTS}/{offer.name}"
        self._temporary = self._path + _RECEIVING_SUFFIX
        self._handle: Handle | None = None
        self._unsynced_bytes = 0

    def accepts(self, offer: SnapshotInfo) -> bool:
        """Whether what is offered now is the same file: the transfer may go on."""
        return offer == self.offer

    def begin(self) -> DiskTask[None]:
        """Make room for the file. Raises `SnapshotRefusedError` if the offer makes no sense."""
        offer = self.offer
        if snapshot_name(offer.meta.last) != offer.name or offer.blob_bytes < 0:
            raise SnapshotRefusedError(f"no snapshot can be {offer.name!r:.100} of that size")
        yield from _require_room(offer.size_bytes, keep_free_bytes=self._keep_free_bytes)
        try:
            (handle,) = yield (Open(self._temporary, create=True),)
            assert isinstance(handle, int)
            self._handle = handle
            yield (Truncate(handle, 0), Allocate(handle, offer.size_bytes))
        except DiskError as error:
            yield from self._refuse_if_no_room(error)
            raise

    def write(self, offset: int, data: bytes) -> DiskTask[int]:
        """Store a piece; returns `received_bytes`. A piece that was received before is ignored.

        Raises `SnapshotRefusedError` if pieces before it are missing, or it is too long.
        """
        assert self._handle is not None, "begin comes first"
        end = offset + len(data)
        if offset > self.received_bytes or end > self.offer.size_bytes:
            reason = f"bytes {offset} to {end} came after byte {self.received_bytes}"
            raise (yield from self._refused(reason))
        fresh = data[self.received_bytes - offset :]
        if fresh:
            try:
                yield (Pwrite(self._handle, self.received_bytes, [fresh]),)
                self._unsynced_bytes += len(fresh)
                if self._unsynced_bytes >= _SYNC_BYTES:
                    yield (Fdatasync(self._handle),)
                    self._unsynced_bytes = 0
            except DiskError as error:
                yield from self._refuse_if_no_room(error)
                raise
            self.received_bytes += len(fresh)
        return self.received_bytes

    def finish(self) -> DiskTask[SnapshotInfo]:
        """Verify the whole file; durable under its name when the task ends.

        Raises `SnapshotRefusedError` if it is not what was offered.
        """
        assert self._handle is not None, "begin comes first"
        offer, handle = self.offer, self._handle
        if self.received_bytes != offer.size_bytes:
            reason = f"{self.received_bytes} of {offer.size_bytes} bytes were received"
            raise (yield from self._refused(reason))
        try:
            info = yield from _verify(handle, offer.name)
        except ValueError as error:
            raise (yield from self._refused(str(error))) from None
        if info != offer:
            raise (yield from self._refused("it is not the one that was offered"))
        self._handle = None
        yield (
            Fdatasync(handle),
            Close(handle),
            Rename(self._temporary, self._path),
            FsyncDir(SNAPSHOTS),
        )
        return info

    def abandon(self) -> DiskTask[None]:
        """Forget what was received."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            yield (Close(handle), Unlink(self._temporary))

    def _refused(self, reason: str) -> DiskTask[SnapshotRefusedError]:
        """Clean up; the error to raise."""
        yield from self.abandon()
        return SnapshotRefusedError(f"the snapshot {self.offer.name} was not taken: {reason}")

    def _refuse_if_no_room(self, error: DiskError) -> DiskTask[None]:
        if error.errno in _NO_ROOM:
            raise (yield from self._refused(error.reason)) from error


# ---- removing them -------------------------------------------------------------------------


def remove(name: str) -> DiskTask[None]:
    """Remove a snapshot that the log does not name."""
    if (yield from _unlink(name)):
        yield (FsyncDir(SNAPSHOTS),)


def remove_older_than(name: str) -> DiskTask[int]:
    """Remove the snapshots of entries before that of ``name``; how many they were.

    To be called when the log names ``name``, durably. Who has one open can read on.
    """
    kept = parse_snapshot_name(name)
    assert kept is not None
    (listed,) = yield (Listdir(SNAPSHOTS),)
    assert isinstance(listed, list)
    older = [
        other
        for other, _ in listed
        if (last := parse_snapshot_name(other)) is not None and last.index < kept.index
    ]
    count = 0
    for other in older:
        count += yield from _unlink(other)
    if older:
        yield (FsyncDir(SNAPSHOTS),)
    return count


def _unlink(name: str) -> DiskTask[bool]:
    try:
        yield (Unlink(f"{SNAPSHOTS}/{name}"),)
    except DiskError as error:
        # Another of these tasks, for another snapshot, is under way and was faster.
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
