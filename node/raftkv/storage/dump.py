"""What lies in a data directory, as it is: for a person who wants to know, damaged or not.

Only reads, takes no lock, and may look at the directory of a running node, whose files come and
go meanwhile and whose last write may be half done. It goes on behind damage where recovery would
refuse, and says all it finds; whether a node may start here is recovery's decision alone.

`read_listing` and `read_segment` are disk tasks; `SegmentReader` is pure. Used by `raftkv wal
dump`. Source: docs/file-formats.md.
"""

import errno
from collections.abc import Iterator

import msgspec

from raftkv.storage.disk import DiskError, DiskTask, Listdir
from raftkv.storage.durable_file import read_file
from raftkv.storage.errors import CorruptionError, SnapshotMissingError
from raftkv.storage.identity import Identity, read_identity
from raftkv.storage.layout import (
    IDENTITY,
    ROOT,
    SNAPSHOTS,
    WAL,
    SegmentFile,
    SegmentState,
    parse_segment_name,
    parse_snapshot_name,
)
from raftkv.storage.record import (
    SECTOR_BYTES,
    Frame,
    SegmentStart,
    Snapshot,
    SnapshotRef,
    WalRecord,
    decode_frame,
    decode_record,
    find_later_frame,
)
from raftkv.storage.snapshots import SnapshotInfo, verify_snapshot


class Damage(msgspec.Struct, frozen=True):
    """Something is not as it was written, and where."""

    path: str
    reason: str
    offset: int | None = None
    sequence: int | None = None  # of the frame that should be there


class Tail(msgspec.Struct, frozen=True):
    """Bytes behind the last frame that are no frame: a write cut short, or under way."""

    path: str
    offset: int
    size_bytes: int


class Record(msgspec.Struct, frozen=True):
    """A frame of the log, sound in itself, and what is in it."""

    path: str
    frame: Frame
    record: WalRecord


Finding = Record | Damage | Tail


class Listing(msgspec.Struct, frozen=True):
    """The files of a data directory, in the order they are to be looked at."""

    identity: Identity | Damage | None
    segments: tuple[SegmentFile, ...]
    snapshots: tuple[str, ...]  # names
    others: tuple[str, ...]  # paths of temporary and unknown files among them


def read_listing() -> DiskTask[Listing]:
    """What there is. Raises `DiskError` if it cannot be read at all."""
    names = [name for name, _ in (yield from _list(ROOT))]
    identity: Identity | Damage | None = None
    if IDENTITY in names:
        try:
            identity = yield from read_identity()
        except CorruptionError as error:
            identity = Damage(IDENTITY, error.reason)
    segments: list[SegmentFile] = []
    snapshots: list[str] = []
    others: list[str] = []
    for name, size_bytes in (yield from _list(WAL)) if WAL in names else []:
        parsed = parse_segment_name(name)
        if parsed is None or size_bytes < 0:
            others.append(f"{WAL}/{name}")
        else:
            segments.append(SegmentFile(*parsed, size_bytes))
    for name, size_bytes in (yield from _list(SNAPSHOTS)) if SNAPSHOTS in names else []:
        if parse_snapshot_name(name) is None or size_bytes < 0:
            others.append(f"{SNAPSHOTS}/{name}")
        else:
            snapshots.append(name)
    segments.sort(key=lambda segment: (segment.number, segment.state is SegmentState.ACTIVE))
    return Listing(identity, tuple(segments), tuple(snapshots), tuple(others))


def _list(path: str) -> DiskTask[list[tuple[str, int]]]:
    (names,) = yield (Listdir(path),)
    assert isinstance(names, list)
    return names


def read_segment(segment: SegmentFile) -> DiskTask[bytes | None]:
    """Its content; None if it is gone. One that was sealed meanwhile is found."""
    sealed = msgspec.structs.replace(segment, state=SegmentState.SEALED)
    for path in (segment.path, sealed.path):
        try:
            return (yield from read_file(path, segment.size_bytes))
        except DiskError as error:
            if error.errno != errno.ENOENT:
                raise
    return None


def read_snapshot(name: str) -> DiskTask[SnapshotInfo | Damage | None]:
    """What the file is, all of it verified; None if it is gone."""
    try:
        return (yield from verify_snapshot(name))
    except SnapshotMissingError:
        return None
    except CorruptionError as error:
        return Damage(error.path, error.reason)


def find_missing(listing: Listing, newest: SnapshotRef | None) -> DiskTask[list[Damage]]:
    """Files that should be there; ``newest`` is the snapshot that the log stands on."""
    missing: list[Damage] = []
    if listing.segments and listing.segments[-1].state is SegmentState.SEALED:
        missing.append(Damage(WAL, f"the segment after {listing.segments[-1].path} is missing"))
    if newest is not None and newest.name not in listing.snapshots:
        # A running node may have made it since the directory was listed.
        found = yield from read_snapshot(newest.name)
        if found is None:
            missing.append(
                Damage(f"{SNAPSHOTS}/{newest.name}", "the snapshot that the log names is missing")
            )
    return missing


class SegmentReader:
    """Reads segments in order and remembers what the next frame must continue."""

    def __init__(self) -> None:
        self.newest: SnapshotRef | None = None  # what the log stands on
        self._before: Frame | None = None  # the last sound frame of the log
        self._number: int | None = None  # of the segment read last

    def read(self, segment: SegmentFile, content: bytes, *, is_last: bool) -> Iterator[Finding]:
        """All that is in the segment, in order."""
        path = segment.path
        if self._number is not None and segment.number != self._number + 1:
            yield Damage(path, f"it follows segment {self._number}")
            self._before = None
        self._number = segment.number
        frame = decode_frame(content, 0)
        if frame is None:
            yield Damage(path, "the first frame is damaged", 0)
            # Without it the segment's salt is not known: believe the next frame that is sound.
            frame = _any_frame_behind(content, 0)
        salt, end = (0 if frame is None else frame.salt), 0
        while frame is not None:
            yield from self._one(segment, frame)
            end = frame.end
            frame = decode_frame(content, end)
            if frame is None or frame.salt != salt:
                sequence = self._before.sequence + 1 if self._before else 1
                frame = find_later_frame(content, end, sequence=sequence, salt=salt)
                if frame is not None:
                    yield Damage(path, f"frame {frame.sequence} behind it is sound", end, sequence)
                    self._before = None
        rest = len(content[end:].rstrip(b"\0"))
        if rest and is_last:
            yield Tail(path, end, rest)

    def _one(self, segment: SegmentFile, frame: Frame) -> Iterator[Finding]:
        before, self._before = self._before, frame
        path, offset, sequence = segment.path, frame.offset, frame.sequence
        if before is not None and (
            (sequence, frame.previous_crc) != (before.sequence + 1, before.crc)
        ):
            reason = f"the frame does not continue frame {before.sequence}"
            yield Damage(path, reason, offset, sequence)
        try:
            record = decode_record(frame.payload)
        except ValueError as error:
            reason = f"no record that this version of raftkv knows: {error}"
            yield Damage(path, reason, offset, sequence)
            return
        if isinstance(record, SegmentStart) and record.number != segment.number:
            yield Damage(path, f"by its content this is segment {record.number}", offset, sequence)
        if isinstance(record, Snapshot) or (isinstance(record, SegmentStart) and record.snapshot):
            self.newest = record.snapshot
        yield Record(path, frame, record)


def _any_frame_behind(content: bytes, offset: int) -> Frame | None:
    """The first sound frame behind ``offset``, of whatever salt."""
    for candidate in range(offset + SECTOR_BYTES, len(content), SECTOR_BYTES):
        frame = decode_frame(content, candidate)
        if frame is not None:
            return frame
    return None
