"""The write-ahead log: the durable truth of a node, one write at a time.

Owned by the node class, made by `raftkv.storage.recovery`. `append` is a disk task: it hands
header, payload and fdatasync to the disk as one submission, and what gathers meanwhile becomes
the next write (group commit without timers: node design, rule 4).

Invariants: at most one append is under way, so no segment is written to while its fdatasync runs
(rule 5); a segment under its final name has a durable first frame; there is always exactly one
active segment, except inside `_roll`, where recovery finishes what a crash cut short. Sealed
segments go, oldest first, once a snapshot that the log names holds all that counts in them. After
a failed operation the log must not be used again: what is on disk is unknown, the process ends.

Source: node design, rules 4, 5, 7 and 10; docs/file-formats.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from raftkv.raft.messages import Entry, EntryId, HardState, Index, NodeId
from raftkv.storage.disk import (
    Close,
    DiskTask,
    Fdatasync,
    FsyncDir,
    Handle,
    Pwrite,
    Rename,
    Unlink,
)
from raftkv.storage.durable_file import replace_file
from raftkv.storage.identity import Rng, random_nonzero
from raftkv.storage.layout import WAL, SegmentState, segment_name
from raftkv.storage.record import (
    Append,
    SegmentStart,
    Snapshot,
    SnapshotRef,
    encode_frame,
    encode_record,
    frame_bytes,
)
from raftkv.storage.snapshots import SnapshotInfo

# How far zeros are written ahead of the frames. A frame that lands on blocks that were written
# before costs no journal commit for them: measured on ext4, a 17 kB write and its fdatasync take
# 0.095 ms on average instead of 0.150 ms; zeros for a whole segment at once would stall a slow
# disk for half a second.
ZERO_AHEAD_BYTES: Final = 256 << 10

# Files are made in whole pages, however small `segment_bytes` is.
_PAGE_BYTES: Final = 4096
_SIZE_BYTES_MAX: Final = (1 << 63) - 1


@dataclass(slots=True)
class SealedSegment:
    """A full segment."""

    number: int
    last_index: Index  # of the log where the segment ends: what counts in it is not beyond


@dataclass(slots=True)
class ActiveSegment:
    """The segment that is written to."""

    number: int
    handle: Handle
    salt: int
    size_bytes: int
    end: int  # where the next frame goes
    zeroed_end: int  # up to here blocks have been written before; never below ``end``


@dataclass(slots=True)
class LogTail:
    """What the next frame continues; all of it is durable."""

    sequence: int  # of the last frame; 0 if there is none
    crc: int  # of the last frame; 0 if there is none
    last: EntryId  # of the log
    hard_state: HardState
    snapshot: SnapshotRef | None = None  # the newest one

    @property
    def base_index(self) -> Index:
        """Up to here the newest snapshot holds everything; 0 if there is none."""
        return 0 if self.snapshot is None else self.snapshot.last.index

    def with_base(self, hard_state: HardState) -> HardState:
        """``hard_state``, not committing less than the newest snapshot holds."""
        if hard_state.commit >= self.base_index:
            return hard_state
        return msgspec.structs.replace(hard_state, commit=self.base_index)


class Wal:
    """The log of one member, open for writing."""

    def __init__(
        self,
        *,
        rng: Rng,
        member_id: NodeId,
        segment_bytes: int,
        segment: ActiveSegment,
        tail: LogTail,
        sealed: Sequence[SealedSegment] = (),
        bytes_since_snapshot: int = 0,
    ) -> None:
        self.bytes_written = 0  # in frames, since the process started
        self.bytes_since_snapshot = bytes_since_snapshot  # in frames after the newest one's record
        self._rng = rng
        self._member_id = member_id
        self._segment_bytes = segment_bytes
        self._segment = segment
        self._tail = tail
        self._sealed = deque(sealed)  # oldest first
        # Both stay set for good when an operation fails.
        self._is_writing = False
        self._is_dropping = False

    @property
    def segment_count(self) -> int:
        """How many segments there are."""
        return len(self._sealed) + 1

    @property
    def base_index(self) -> Index:
        """The last entry of the newest snapshot that the log names; 0 if it names none."""
        return self._tail.base_index

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> DiskTask[None]:
        """Write what changed; it is durable when the task ends.

        The first entry replaces everything from its index on; ``hard_state`` None means as
        before. The caller starts no append before the last one ended, and none at all after
        one that raised `DiskError`.
        """
        assert not self._is_writing, "one WAL write at a time"
        tail = self._tail
        if hard_state is not None:
            hard_state = tail.with_base(hard_state)
        _check(tail.hard_state, tail.last.index, hard_state, entries)
        self._is_writing = True
        yield from self._write_record(Append(hard_state, entries))
        if hard_state is not None:
            tail.hard_state = hard_state
        if entries:
            tail.last = entries[-1].id
        self._is_writing = False

    def append_snapshot(
        self,
        snapshot: SnapshotInfo,
        *,
        installs: bool,
        hard_state: HardState | None = None,
        entries: Sequence[Entry] = (),
    ) -> DiskTask[None]:
        """Name a snapshot file, which is durable already; the record is when the task ends.

        ``installs`` False: it was made here, of applied entries; the log goes on as it was, and
        the caller may now remove what came before (`drop_before`, `remove_older_than`). True: it
        was received, of an entry that this log does not hold; the log is then empty but for
        ``entries``, which follow the snapshot, and ``hard_state`` (None: as before) is as of
        then. What a snapshot holds is committed, whatever ``hard_state`` says. One write at a
        time, as in `append`.
        """
        assert not self._is_writing, "one WAL write at a time"
        tail, meta = self._tail, snapshot.meta
        ref = SnapshotRef(meta.last, meta.config_index, meta.conf, meta.chain_hash, snapshot.name)
        assert meta.last.index >= tail.base_index, "snapshots go forward"
        if installs:
            assert meta.last.index > tail.hard_state.commit, "it holds nothing new"
        else:
            assert meta.last.index <= tail.last.index, "the log does not hold its last entry"
            assert not entries, "entries come with an installed snapshot only"
        after = LogTail(
            sequence=0,
            crc=0,
            last=meta.last if installs else tail.last,
            hard_state=tail.hard_state,
            snapshot=ref,
        )
        after.hard_state = after.with_base(hard_state or tail.hard_state)
        _check(after.with_base(tail.hard_state), after.last.index, after.hard_state, entries)
        self._is_writing = True
        yield from self._write_record(Snapshot(ref, installs, after.hard_state, entries))
        tail.snapshot, tail.hard_state = ref, after.hard_state
        tail.last = entries[-1].id if entries else after.last
        if installs:
            void(self._sealed, ref.last.index)
        self.bytes_since_snapshot = 0
        self._is_writing = False

    def drop_before(self, index: Index) -> DiskTask[int]:
        """Remove the sealed segments of which nothing counts beyond ``index``; how many.

        Never more than the newest snapshot holds, and nothing without one; oldest first, each
        durably, so that a crash leaves no gap. May run beside an append, in the other lane.
        """
        assert not self._is_dropping, "one at a time"
        if self._tail.snapshot is None:
            return 0  # also a segment that holds terms and votes only is needed
        self._is_dropping = True
        count = 0
        while self._sealed and self._sealed[0].last_index <= min(index, self.base_index):
            name = segment_name(self._sealed[0].number, SegmentState.SEALED)
            yield (Unlink(f"{WAL}/{name}"), FsyncDir(WAL))
            self._sealed.popleft()
            count += 1
        self._is_dropping = False
        return count

    def _write_record(self, record: Append | Snapshot) -> DiskTask[None]:
        payload = encode_record(record)
        if self._segment.end + frame_bytes(len(payload)) > self._segment.size_bytes:
            yield from self._roll(frame_bytes(len(payload)))
        yield from self._write(payload)

    def _write(self, payload: bytes) -> DiskTask[None]:
        segment, tail = self._segment, self._tail
        frame, crc = encode_frame(
            payload,
            salt=segment.salt,
            sequence=tail.sequence + 1,
            durable_sequence=tail.sequence,
            previous_crc=tail.crc,
        )
        end = segment.end + frame_bytes(len(payload))
        if end > segment.zeroed_end:
            segment.zeroed_end = min(end + ZERO_AHEAD_BYTES, segment.size_bytes)
            frame.append(bytes(segment.zeroed_end - end))
        yield (Pwrite(segment.handle, segment.end, frame), Fdatasync(segment.handle))
        self._count(end - segment.end)
        segment.end = end
        tail.sequence += 1
        tail.crc = crc

    def _roll(self, next_frame_bytes: int) -> DiskTask[None]:
        """Go on in a new segment. The old one is sealed only once the new one is durable."""
        full = self._segment
        self._segment = yield from create_segment(
            number=full.number + 1,
            rng=self._rng,
            member_id=self._member_id,
            segment_bytes=self._segment_bytes,
            next_frame_bytes=next_frame_bytes,
            tail=self._tail,
        )
        self._count(self._segment.end)
        yield (Close(full.handle), *seal(full.number))
        self._sealed.append(SealedSegment(full.number, self._tail.last.index))

    def _count(self, size_bytes: int) -> None:
        self.bytes_written += size_bytes
        self.bytes_since_snapshot += size_bytes


def _check(
    before: HardState, last_index: Index, hard_state: HardState | None, entries: Sequence[Entry]
) -> None:
    """Refuse what recovery would have to call damage: a bug of the caller."""
    if entries:
        assert entries[0].index <= last_index + 1, "a gap in the log"
        assert entries[0].index > before.commit, "a committed entry is never replaced"
        assert entries[-1].index - entries[0].index == len(entries) - 1, "a gap in the entries"
        last_index = entries[-1].index
    if hard_state is not None:
        assert hard_state.term >= before.term, "the term never goes back"
        assert hard_state.commit <= last_index, "committed beyond the log"


def void(sealed: Sequence[SealedSegment], base_index: Index) -> None:
    """A snapshot of ``base_index`` was installed: nothing counts in what lies before it."""
    for segment in sealed:
        segment.last_index = min(segment.last_index, base_index)


def create_segment(
    *,
    number: int,
    rng: Rng,
    member_id: NodeId,
    segment_bytes: int,
    next_frame_bytes: int,
    tail: LogTail,
) -> DiskTask[ActiveSegment]:
    """Make a segment that continues ``tail``, which moves to the segment's first frame."""
    salt = random_nonzero(rng)

    def encoded_start(size_bytes: int) -> bytes:
        start = SegmentStart(
            number, size_bytes, member_id, tail.last, tail.hard_state, tail.snapshot
        )
        return encode_record(start)

    # The record names the file's size, which must have room for it.
    start_bytes_max = frame_bytes(len(encoded_start(_SIZE_BYTES_MAX)))
    size_bytes = max(segment_bytes, start_bytes_max + next_frame_bytes)
    size_bytes += -size_bytes % _PAGE_BYTES
    payload = encoded_start(size_bytes)
    frame, crc = encode_frame(
        payload,
        salt=salt,
        sequence=tail.sequence + 1,
        durable_sequence=tail.sequence,
        previous_crc=tail.crc,
    )
    name = segment_name(number, SegmentState.ACTIVE)
    handle = yield from replace_file(WAL, name, frame, size_bytes=size_bytes)
    tail.sequence += 1
    tail.crc = crc
    end = frame_bytes(len(payload))
    return ActiveSegment(number, handle, salt, size_bytes, end=end, zeroed_end=end)


def seal(number: int) -> tuple[Rename, FsyncDir]:
    """Rename a full segment, durably."""
    active = segment_name(number, SegmentState.ACTIVE)
    sealed = segment_name(number, SegmentState.SEALED)
    return Rename(f"{WAL}/{active}", f"{WAL}/{sealed}"), FsyncDir(WAL)
