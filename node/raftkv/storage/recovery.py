"""From a data directory to a node's state: verify everything, believe nothing twice.

Called once, before the node votes, acknowledges or counts its own log. It refuses rather than
guesses: only the end of the last segment may be cut, and only if nothing shows that it was ever
durable (node design, rule 7). What it read may be page cache that never reached the disk, so it
writes identity and last segment anew and syncs them before anybody relies on them (rule 6).

The algorithm is numbered in docs/file-formats.md; the numbers here refer to it. Every disk
operation is a crash point in tests: running it again gives the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from raftkv.raft.messages import ConfState, Entry, EntryId, HardState
from raftkv.storage.disk import DiskTask, FsyncDir, Listdir, Mkdir, Unlink
from raftkv.storage.durable_file import read_file, replace_file
from raftkv.storage.errors import CommittedEntriesLostError, CorruptionError, UnexpectedFileError
from raftkv.storage.identity import (
    Identity,
    Rng,
    create_identity,
    read_identity,
    write_identity,
)
from raftkv.storage.layout import (
    IDENTITY,
    ROOT,
    TEMPORARY_SUFFIX,
    WAL,
    SegmentState,
    parse_segment_name,
    refuse_foreign,
    segment_name,
)
from raftkv.storage.record import (
    Append,
    Frame,
    SegmentStart,
    decode_frame,
    decode_record,
    find_later_frame,
)
from raftkv.storage.wal import ActiveSegment, LogTail, Wal, create_segment, seal


@dataclass(slots=True)
class Recovered:
    """What the disk holds, and the log open for writing."""

    identity: Identity
    hard_state: HardState
    base: EntryId  # the log starts after this entry
    base_conf: ConfState  # the configuration as of ``base``
    entries: list[Entry]  # from base.index + 1 on, without gaps
    wal: Wal
    torn_bytes_cut: int  # size of the unfinished write at the log's end; 0 after a clean stop


def open_storage(rng: Rng, *, segment_bytes: int) -> DiskTask[Recovered]:
    """Recover the data directory, or set up an empty one.

    Raises a `StorageError` if it must not be used, and has changed nothing then.
    """
    names = [name for name, _ in (yield from _list(ROOT))]
    refuse_foreign(names)
    if IDENTITY in names:
        identity = yield from read_identity()
    else:
        identity = create_identity(rng)
    wal_names = (yield from _list(WAL)) if WAL in names else []
    segments = _order_segments(wal_names)
    replay = _Replay(identity)
    content = b""
    for segment in segments:
        content = yield from read_file(segment.path, segment.size_bytes)
        replay.read(segment, content)
    replay.finish(segments, content)

    # The directory is sound: from here on it is changed.
    yield from write_identity(identity)
    if segments:
        yield from _remove_temporary_files(wal_names)
        active = yield from _make_durable(segments, replay, content)
    else:
        yield (Mkdir(WAL), FsyncDir(ROOT))
        active = yield from create_segment(
            number=1,
            rng=rng,
            member_id=identity.member_id,
            segment_bytes=segment_bytes,
            next_frame_bytes=0,
            tail=replay.tail,
        )
    return Recovered(
        identity=identity,
        hard_state=replay.tail.hard_state,
        base=EntryId(0, 0),
        base_conf=ConfState(),
        entries=replay.entries,
        wal=Wal(
            rng=rng,
            member_id=identity.member_id,
            segment_bytes=segment_bytes,
            segment=active,
            tail=replay.tail,
        ),
        torn_bytes_cut=replay.torn_bytes,
    )


def _list(path: str) -> DiskTask[list[tuple[str, int]]]:
    (names,) = yield (Listdir(path),)
    assert isinstance(names, list)
    return names


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment file, as the directory lists it."""

    number: int
    state: SegmentState
    size_bytes: int

    @property
    def path(self) -> str:
        return f"{WAL}/{segment_name(self.number, self.state)}"


def _order_segments(names: list[tuple[str, int]]) -> list[_Segment]:
    """The segments by number: 1, 2, ... without gaps, all sealed but the last (step 4)."""
    segments: dict[int, _Segment] = {}
    for name, size_bytes in names:
        if name.endswith(TEMPORARY_SUFFIX):
            continue
        parsed = parse_segment_name(name)
        if parsed is None or size_bytes < 0:
            raise UnexpectedFileError(f"{WAL}/{name}")
        segment = _Segment(*parsed, size_bytes)
        if segment.number in segments:
            raise CorruptionError(segment.path, "the segment exists twice, sealed and active")
        segments[segment.number] = segment
    for number in range(1, max(segments, default=0)):
        if number not in segments:
            raise CorruptionError(WAL, f"segment {number} is missing")
    ordered = [segments[number] for number in sorted(segments)]
    if ordered and ordered[-1].state is SegmentState.SEALED:
        raise CorruptionError(
            WAL, f"segment {ordered[-1].number} is sealed, and the one after it is missing"
        )
    # The last but one may still be active: a crash interrupted the roll. `finish` looks closer.
    for segment in ordered[:-2]:
        if segment.state is SegmentState.ACTIVE:
            raise CorruptionError(segment.path, "the segment is not sealed, but later ones exist")
    return ordered


class _Replay:
    """What the frames read so far add up to; segments are to be read in order (step 5)."""

    def __init__(self, identity: Identity) -> None:
        self.entries: list[Entry] = []
        self.tail = LogTail(sequence=0, crc=0, last=EntryId(0, 0), hard_state=HardState())
        self.torn_bytes = 0
        self.salt = 0  # of the segment read last
        self.end = 0  # where its valid frames end
        self._frame_count = 0  # how many they are
        self._path = ""  # of the segment read last
        self._identity = identity

    def read(self, segment: _Segment, content: bytes) -> None:
        """Verify and apply the frames of a segment, up to the first place without one."""
        frame = decode_frame(content, 0)
        if frame is None:
            reason = "the first frame is damaged, or a newer version of raftkv wrote it"
            raise CorruptionError(segment.path, reason, offset=0)
        if self._path and frame.sequence != self.tail.sequence + 1:
            reason = f"damaged or missing: {segment.path} starts with frame {frame.sequence}"
            raise CorruptionError(
                self._path, reason, offset=self.end, sequence=self.tail.sequence + 1
            )
        self._path = segment.path
        self.salt = frame.salt
        self.end = 0
        self._frame_count = 0
        while frame is not None and frame.salt == self.salt:
            self._apply(segment, frame)
            frame = decode_frame(content, self.end)

    def _apply(self, segment: _Segment, frame: Frame) -> None:
        def damage(reason: str) -> CorruptionError:
            return CorruptionError(
                segment.path, reason, offset=frame.offset, sequence=frame.sequence
            )

        if (frame.sequence, frame.previous_crc) != (self.tail.sequence + 1, self.tail.crc):
            raise damage(f"the frame does not continue frame {self.tail.sequence}")
        try:
            record = decode_record(frame.payload)
        except msgspec.MsgspecError as error:
            raise damage(f"no record that this version of raftkv knows: {error}") from None
        if isinstance(record, SegmentStart) is not (frame.offset == 0):
            raise damage("a segment has one start record, in its first frame")
        reason = (
            self._check_start(segment, record)
            if isinstance(record, SegmentStart)
            else self._append(record)
        )
        if reason is not None:
            raise damage(reason)
        self.tail.sequence = frame.sequence
        self.tail.crc = frame.crc
        self.end = frame.end
        self._frame_count += 1

    def _check_start(self, segment: _Segment, start: SegmentStart) -> str | None:
        """Why this is not the segment that belongs here, or None."""
        if start.number != segment.number:
            return f"by its content this is segment {start.number}: files were swapped or copied"
        if start.member_id != self._identity.member_id:
            return (
                f"the log of member {start.member_id:016x}, "
                f"in the directory of {self._identity.member_id:016x}"
            )
        if start.size_bytes != segment.size_bytes:
            return f"the file has {segment.size_bytes} bytes instead of {start.size_bytes}"
        if (start.last, start.hard_state) != (self.tail.last, self.tail.hard_state):
            return "the segment does not start with the state that the one before it ends with"
        return None

    def _append(self, record: Append) -> str | None:
        """Apply a write; why it cannot be, or None."""
        if record.entries:
            kept = record.entries[0].index - 1
            if not 0 <= kept <= len(self.entries):
                return f"entry {kept + 1} follows entry {len(self.entries)}"
            del self.entries[kept:]
            self.entries.extend(record.entries)
            self.tail.last = self.entries[-1].id
        if record.hard_state is not None:
            self.tail.hard_state = record.hard_state
        return None

    def finish(self, segments: Sequence[_Segment], content: bytes) -> None:
        """Judge the end of the log (steps 6 and 7); ``content`` is the last segment's."""
        if not segments:
            if self._identity.cluster_id is not None:
                raise CorruptionError(WAL, "the identity names a cluster, but the log is missing")
            return
        path = segments[-1].path
        sequence = self.tail.sequence + 1
        later = find_later_frame(content, self.end, sequence=sequence, salt=self.salt)
        if later is not None:
            reason = (
                f"the frame is damaged, but frame {later.sequence} behind it is not, and says "
                f"that all up to frame {later.durable_sequence} were durable"
            )
            raise CorruptionError(path, reason, offset=self.end, sequence=sequence)
        before = segments[-2] if len(segments) > 1 else None
        if before and before.state is SegmentState.ACTIVE and self._frame_count > 1:
            raise CorruptionError(before.path, "the segment is not sealed, but a later one is used")
        commit_index = self.tail.hard_state.commit
        if commit_index > self.tail.last.index:
            raise CommittedEntriesLostError(
                path, last_index=self.tail.last.index, commit_index=commit_index
            )
        if self._identity.cluster_id is None and self.entries:
            raise CorruptionError(IDENTITY, "the identity names no cluster, but the log is in use")
        self.torn_bytes = len(content[self.end :].rstrip(b"\0"))


def _remove_temporary_files(wal_names: list[tuple[str, int]]) -> DiskTask[None]:
    """Remove the segments that a crash left half made (step 8)."""
    leftovers = [name for name, _ in wal_names if name.endswith(TEMPORARY_SUFFIX)]
    if leftovers:
        yield tuple(Unlink(f"{WAL}/{name}") for name in leftovers)


def _make_durable(
    segments: Sequence[_Segment], replay: _Replay, content: bytes
) -> DiskTask[ActiveSegment]:
    """Write the last segment's valid frames anew, and finish an interrupted roll (step 9)."""
    last = segments[-1]
    handle = yield from replace_file(
        WAL,
        segment_name(last.number, last.state),
        [content[: replay.end]],
        size_bytes=last.size_bytes,
    )
    if len(segments) > 1 and segments[-2].state is SegmentState.ACTIVE:
        # Only now: the last segment's name may not have been durable either.
        yield seal(segments[-2].number)
    return ActiveSegment(
        number=last.number,
        handle=handle,
        salt=replay.salt,
        size_bytes=last.size_bytes,
        end=replay.end,
        zeroed_end=replay.end,
    )
