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
from typing import Final

from raftkv.raft.messages import ConfState, Entry, EntryId, HardState, Index
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
    SNAPSHOTS,
    TEMPORARY_SUFFIX,
    WAL,
    SegmentFile,
    SegmentState,
    parse_segment_name,
    parse_snapshot_name,
    refuse_foreign,
    segment_name,
    snapshot_name,
)
from raftkv.storage.record import (
    Frame,
    SegmentStart,
    Snapshot,
    SnapshotRef,
    decode_frame,
    decode_record,
    find_later_frame,
)
from raftkv.storage.snapshots import SnapshotInfo, read_info
from raftkv.storage.wal import (
    ActiveSegment,
    LogTail,
    SealedSegment,
    Wal,
    create_segment,
    seal,
    void,
)

# Of an entry that lay in a segment that is gone. No entry has it.
_UNKNOWN_TERM: Final = 0


@dataclass(slots=True)
class Recovered:
    """What the disk holds, and the log open for writing."""

    identity: Identity
    hard_state: HardState
    base: EntryId  # the log starts after this entry
    base_conf: ConfState  # the configuration as of ``base``
    base_config_index: Index  # of the entry that holds it
    # The file that holds the state as of ``base``; None if that is the empty state. Header and
    # trailer are verified; `raftkv.storage.snapshots.load` verifies the rest.
    snapshot: SnapshotInfo | None
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
    snapshot_names = (yield from _list(SNAPSHOTS)) if SNAPSHOTS in names else []
    _check_snapshot_names(snapshot_names)
    replay = _Replay(identity)
    content = b""
    for segment in segments:
        content = yield from read_file(segment.path, segment.size_bytes)
        replay.read(segment, content)
    replay.finish(segments, content)
    snapshot = yield from _find_snapshot(replay.tail.snapshot, snapshot_names, identity)

    # The directory is sound: from here on it is changed.
    yield from write_identity(identity)
    if SNAPSHOTS not in names:
        yield (Mkdir(SNAPSHOTS), FsyncDir(ROOT))
    yield from _remove(WAL, [name for name, _ in wal_names if name.endswith(TEMPORARY_SUFFIX)])
    if segments:
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
    # Only now: the record that names another one may not have been durable either.
    current = None if snapshot is None else snapshot.name
    yield from _remove(SNAPSHOTS, [name for name, _ in snapshot_names if name != current])
    return Recovered(
        identity=identity,
        hard_state=replay.tail.hard_state,
        base=replay.base,
        base_conf=ConfState() if snapshot is None else snapshot.meta.conf,
        base_config_index=0 if snapshot is None else snapshot.meta.config_index,
        snapshot=snapshot,
        entries=replay.entries,
        wal=Wal(
            rng=rng,
            member_id=identity.member_id,
            segment_bytes=segment_bytes,
            segment=active,
            tail=replay.tail,
            sealed=replay.sealed,
            bytes_since_snapshot=replay.bytes_since_snapshot,
        ),
        torn_bytes_cut=replay.torn_bytes,
    )


def _list(path: str) -> DiskTask[list[tuple[str, int]]]:
    (names,) = yield (Listdir(path),)
    assert isinstance(names, list)
    return names


def _order_segments(names: list[tuple[str, int]]) -> list[SegmentFile]:
    """The segments by number, without gaps, all sealed but the last (step 4)."""
    segments: dict[int, SegmentFile] = {}
    for name, size_bytes in names:
        if name.endswith(TEMPORARY_SUFFIX):
            continue
        parsed = parse_segment_name(name)
        if parsed is None or size_bytes < 0:
            raise UnexpectedFileError(f"{WAL}/{name}")
        segment = SegmentFile(*parsed, size_bytes)
        if segment.number in segments:
            raise CorruptionError(segment.path, "the segment exists twice, sealed and active")
        segments[segment.number] = segment
    for number in range(min(segments, default=0), max(segments, default=0)):
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


def _check_snapshot_names(names: list[tuple[str, int]]) -> None:
    for name, size_bytes in names:
        is_known = name.endswith(TEMPORARY_SUFFIX) or parse_snapshot_name(name) is not None
        if not is_known or size_bytes < 0:
            raise UnexpectedFileError(f"{SNAPSHOTS}/{name}")


def _find_snapshot(
    ref: SnapshotRef | None, names: list[tuple[str, int]], identity: Identity
) -> DiskTask[SnapshotInfo | None]:
    """The file that the log stands on; it must be there and be what the log says (step 8)."""
    if ref is None:
        return None
    path = f"{SNAPSHOTS}/{ref.name}"
    if ref.name not in (name for name, _ in names):
        raise CorruptionError(
            path, f"the log starts after entry {ref.last.index}, and this snapshot is missing"
        )
    info = yield from read_info(ref.name)
    meta = info.meta
    found = SnapshotRef(meta.last, meta.config_index, meta.conf, meta.chain_hash, info.name)
    if found != ref:
        raise CorruptionError(path, "this is not the snapshot that the log names")
    if meta.cluster_id != identity.cluster_id:
        raise CorruptionError(path, f"this is a snapshot of cluster {meta.cluster_id!r:.100}")
    return info


class _Replay:
    """What the frames read so far add up to; segments are to be read in order (step 5)."""

    def __init__(self, identity: Identity) -> None:
        self.base = EntryId(0, 0)  # the entry before the first one
        self.entries: list[Entry] = []
        self.tail = LogTail(sequence=0, crc=0, last=EntryId(0, 0), hard_state=HardState())
        self.sealed: list[SealedSegment] = []
        self.bytes_since_snapshot = 0
        self.torn_bytes = 0
        self.salt = 0  # of the segment read last
        self.end = 0  # where its valid frames end
        self._frame_count = 0  # how many they are
        self._number = 0  # of the segment read last; 0: none was
        self._path = ""
        self._identity = identity

    def read(self, segment: SegmentFile, content: bytes) -> None:
        """Verify and apply the frames of a segment, up to the first place without one."""
        frame = decode_frame(content, 0)
        if frame is None:
            reason = "the first frame is damaged, or a newer version of raftkv wrote it"
            raise CorruptionError(segment.path, reason, offset=0)
        if not self._number and segment.number > 1:
            # Older segments went when a snapshot made them needless; `finish` makes sure of it.
            self.tail.sequence, self.tail.crc = frame.sequence - 1, frame.previous_crc
        if self._number and frame.sequence != self.tail.sequence + 1:
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
        self._number = segment.number

    def _apply(self, segment: SegmentFile, frame: Frame) -> None:
        def damage(reason: str) -> CorruptionError:
            return CorruptionError(
                segment.path, reason, offset=frame.offset, sequence=frame.sequence
            )

        if (frame.sequence, frame.previous_crc) != (self.tail.sequence + 1, self.tail.crc):
            raise damage(f"the frame does not continue frame {self.tail.sequence}")
        try:
            record = decode_record(frame.payload)
        except ValueError as error:
            raise damage(f"no record that this version of raftkv knows: {error}") from None
        if isinstance(record, SegmentStart) is not (frame.offset == 0):
            raise damage("a segment has one start record, in its first frame")
        if isinstance(record, SegmentStart):
            reason = self._start(segment, record)
        elif isinstance(record, Snapshot):
            reason = self._snapshot(record)
        else:
            reason = self._append(record.hard_state, record.entries)
        if reason is not None:
            raise damage(reason)
        self.tail.sequence = frame.sequence
        self.tail.crc = frame.crc
        self.end = frame.end
        self.bytes_since_snapshot += frame.end - frame.offset
        if isinstance(record, Snapshot):
            self.bytes_since_snapshot = 0
        self._frame_count += 1

    def _start(self, segment: SegmentFile, start: SegmentStart) -> str | None:
        """Go on in this segment; why it is not the one that belongs here, or None."""
        if start.number != segment.number:
            return f"by its content this is segment {start.number}: files were swapped or copied"
        if start.member_id != self._identity.member_id:
            return (
                f"the log of member {start.member_id:016x}, "
                f"in the directory of {self._identity.member_id:016x}"
            )
        if start.size_bytes != segment.size_bytes:
            return f"the file has {segment.size_bytes} bytes instead of {start.size_bytes}"
        tail = self.tail
        if self._number:
            self.sealed.append(SealedSegment(self._number, start.last.index))
        elif segment.number > 1:
            self.base = tail.last = start.last
            tail.hard_state, tail.snapshot = start.hard_state, start.snapshot
        found = (start.last, start.hard_state, start.snapshot)
        if found != (tail.last, tail.hard_state, tail.snapshot):
            return "the segment does not start with the state that the one before it ends with"
        return None

    def _append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> str | None:
        """Apply a write; why it cannot be, or None."""
        if entries:
            first_index = entries[0].index
            if not self.tail.base_index < first_index <= self.tail.last.index + 1:
                return f"entry {first_index} follows entry {self.tail.last.index}"
            if first_index <= self.tail.hard_state.commit:
                return f"entry {first_index} is written again, though it was committed"
            for index, entry in enumerate(entries, first_index):
                if entry.index != index:
                    return f"entry {entry.index} follows entry {index - 1}"
            if first_index <= self.base.index:
                # They replace entries of segments that are gone.
                self.base = self._entry_before(first_index)
            del self.entries[first_index - 1 - self.base.index :]
            self.entries.extend(entries)
            self.tail.last = self.entries[-1].id
        if hard_state is not None:
            if hard_state.commit < self.tail.base_index:
                return f"the snapshot of entry {self.tail.base_index} is not committed"
            self.tail.hard_state = hard_state
        return None

    def _entry_before(self, first_index: Index) -> EntryId:
        """The entry before ``first_index``, which lay in a segment that is gone."""
        snapshot = self.tail.snapshot
        if snapshot is not None and snapshot.last.index == first_index - 1:
            return snapshot.last
        return EntryId(_UNKNOWN_TERM, first_index - 1)

    def _snapshot(self, record: Snapshot) -> str | None:
        """Stand on this snapshot; why that cannot be, or None."""
        ref, tail = record.snapshot, self.tail
        if ref.name != snapshot_name(ref.last) or ref.last.index < tail.base_index:
            return f"the snapshot {ref.name!r:.100} follows that of entry {tail.base_index}"
        if record.installs:
            self.base = tail.last = ref.last
            self.entries.clear()
            void(self.sealed, ref.last.index)
        elif ref.last.index >= self.base.index:
            # Otherwise a later one made segments needless that this one does not cover.
            kept = ref.last.index - self.base.index
            held = self.entries[kept - 1].id if 0 < kept <= len(self.entries) else self.base
            if held != ref.last and held != EntryId(_UNKNOWN_TERM, ref.last.index):
                return f"the log does not hold entry {ref.last.index} of the snapshot"
            self.base = ref.last
            del self.entries[:kept]
        tail.snapshot = ref
        return self._append(record.hard_state, record.entries)

    def finish(self, segments: Sequence[SegmentFile], content: bytes) -> None:
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
        if segments[0].number > 1 and self.tail.snapshot is None:
            raise CorruptionError(WAL, f"segment {segments[0].number - 1} is missing")
        if self.base.index > self.tail.base_index:
            reason = (
                f"entries {self.tail.base_index + 1} to {self.base.index} are missing: they are "
                f"in no segment, and the newest snapshot is of entry {self.tail.base_index}"
            )
            raise CorruptionError(WAL, reason)
        before = segments[-2] if len(segments) > 1 else None
        if before and before.state is SegmentState.ACTIVE and self._frame_count > 1:
            raise CorruptionError(before.path, "the segment is not sealed, but a later one is used")
        commit_index = self.tail.hard_state.commit
        if commit_index > self.tail.last.index:
            raise CommittedEntriesLostError(
                path, last_index=self.tail.last.index, commit_index=commit_index
            )
        if self._identity.cluster_id is None and (self.entries or self.tail.snapshot):
            raise CorruptionError(IDENTITY, "the identity names no cluster, but the log is in use")
        self.torn_bytes = len(content[self.end :].rstrip(b"\0"))


def _remove(directory: str, names: list[str]) -> DiskTask[None]:
    """Remove files that nobody needs any more."""
    if names:
        yield tuple(Unlink(f"{directory}/{name}") for name in names)


def _make_durable(
    segments: Sequence[SegmentFile], replay: _Replay, content: bytes
) -> DiskTask[ActiveSegment]:
    """Write the last segment's valid frames anew, and finish an interrupted roll (step 10)."""
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
