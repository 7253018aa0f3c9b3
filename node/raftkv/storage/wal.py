"""The write-ahead log: the durable truth of a node, one write at a time.

Owned by the node class, made by `raftkv.storage.recovery`. `append` is a disk task: it hands
header, payload and fdatasync to the disk as one submission, and what gathers meanwhile becomes
the next write (group commit without timers: node design, rule 4).

Invariants: at most one append is under way, so no segment is written to while its fdatasync runs
(rule 5); a segment under its final name has a durable first frame; there is always exactly one
active segment, except inside `_roll`, where recovery finishes what a crash cut short. After a
failed operation the log must not be used again: what is on disk is unknown, the process ends.

Source: node design, rules 4, 5 and 7; docs/file-formats.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raftkv.raft.messages import Entry, EntryId, HardState, NodeId
from raftkv.storage.disk import Close, DiskTask, Fdatasync, FsyncDir, Handle, Pwrite, Rename
from raftkv.storage.durable_file import replace_file
from raftkv.storage.identity import Rng, random_nonzero
from raftkv.storage.layout import WAL, SegmentState, segment_name
from raftkv.storage.record import (
    SECTOR_BYTES,
    Append,
    SegmentStart,
    encode_frame,
    encode_record,
    frame_bytes,
)

# How far zeros are written ahead of the frames. A frame that lands on blocks that were written
# before costs no journal commit for them: measured on ext4, a 17 kB write and its fdatasync take
# 0.095 ms on average instead of 0.150 ms; zeros for a whole segment at once would stall a slow
# disk for half a second.
ZERO_AHEAD_BYTES: Final = 256 << 10

# Files are made in whole pages, however small `segment_bytes` is.
_PAGE_BYTES: Final = 4096

# A segment's first frame is some hundred bytes of numbers.
_START_FRAME_BYTES: Final = SECTOR_BYTES


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
    ) -> None:
        self.segment_count = segment.number
        self.bytes_written = 0  # in frames, since the process started
        self._rng = rng
        self._member_id = member_id
        self._segment_bytes = segment_bytes
        self._segment = segment
        self._tail = tail
        # Stays set for good when an append fails.
        self._is_writing = False

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> DiskTask[None]:
        """Write what changed; it is durable when the task ends.

        The first entry replaces everything from its index on; ``hard_state`` None means as
        before. The caller starts no append before the last one ended, and none at all after
        one that raised `DiskError`.
        """
        assert not self._is_writing, "one WAL write at a time"
        self._check(hard_state, entries)
        self._is_writing = True
        payload = encode_record(Append(hard_state, entries))
        if self._segment.end + frame_bytes(len(payload)) > self._segment.size_bytes:
            yield from self._roll(frame_bytes(len(payload)))
        yield from self._write(payload)
        if hard_state is not None:
            self._tail.hard_state = hard_state
        if entries:
            self._tail.last = entries[-1].id
        self._is_writing = False

    def _check(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Refuse what recovery would have to call damage: a bug of the caller."""
        last_index, durable = self._tail.last.index, self._tail.hard_state
        if entries:
            assert entries[0].index <= last_index + 1, "a gap in the log"
            assert entries[0].index > durable.commit, "a committed entry is never replaced"
            assert entries[-1].index - entries[0].index == len(entries) - 1, "a gap in the entries"
            last_index = entries[-1].index
        if hard_state is not None:
            assert hard_state.term >= durable.term, "the term never goes back"
            assert hard_state.commit <= last_index, "committed beyond the log"

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
        self.bytes_written += end - segment.end
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
        self.segment_count += 1
        self.bytes_written += self._segment.end
        yield (Close(full.handle), *seal(full.number))


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
    size_bytes = max(segment_bytes, _START_FRAME_BYTES + next_frame_bytes)
    size_bytes += -size_bytes % _PAGE_BYTES
    payload = encode_record(SegmentStart(number, size_bytes, member_id, tail.last, tail.hard_state))
    assert frame_bytes(len(payload)) == _START_FRAME_BYTES
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
    end = _START_FRAME_BYTES
    return ActiveSegment(number, handle, salt, size_bytes, end=end, zeroed_end=end)


def seal(number: int) -> tuple[Rename, FsyncDir]:
    """Rename a full segment, durably."""
    active = segment_name(number, SegmentState.ACTIVE)
    sealed = segment_name(number, SegmentState.SEALED)
    return Rename(f"{WAL}/{active}", f"{WAL}/{sealed}"), FsyncDir(WAL)
