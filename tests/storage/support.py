"""What the storage tests share: a log in small, and a list model of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import BinaryIO

from raftkv.raft.messages import ConfState, Entry, EntryId, EntryType, HardState, Index
from raftkv.storage.disk import Disk, DiskTask, run_task
from raftkv.storage.identity import Identity, adopt_cluster
from raftkv.storage.layout import WAL
from raftkv.storage.record import Frame, decode_frame
from raftkv.storage.recovery import Recovered, open_storage
from raftkv.storage.snapshots import (
    SnapshotInfo,
    SnapshotMeta,
    SnapshotReceiver,
    load,
    open_snapshot,
    read_chunk,
    write_snapshot,
)
from tests.simulation.disk import SimDisk

# Room for seven frames of one sector behind a segment's first.
SEGMENT_BYTES = 4096


def make_entries(first_index: int, count: int, *, term: int = 1, size: int = 10) -> list[Entry]:
    """Entries with distinguishable content."""
    return [
        Entry(term, index, EntryType.NORMAL, f"{term}.{index};".encode().ljust(size, b"\xa5"))
        for index in range(first_index, first_index + count)
    ]


@dataclass(frozen=True)
class LogState:
    """What a log holds: the list model of `Wal`."""

    hard_state: HardState = field(default_factory=HardState)
    entries: tuple[Entry, ...] = ()
    base: EntryId = field(default_factory=lambda: EntryId(0, 0))
    config_index: Index = 0
    conf: ConfState = field(default_factory=ConfState)

    @property
    def last_index(self) -> Index:
        """Of the log."""
        return self.base.index + len(self.entries)

    def append(self, hard_state: HardState | None, entries: list[Entry]) -> "LogState":
        """The state after this write."""
        kept = entries[0].index - 1 - self.base.index if entries else len(self.entries)
        return replace(
            self,
            hard_state=hard_state or self.hard_state,
            entries=(*self.entries[:kept], *entries),
        )

    def stand_on(self, meta: SnapshotMeta, *, installs: bool) -> "LogState":
        """The state after a snapshot was named."""
        kept = () if installs else self.entries[meta.last.index - self.base.index :]
        hard_state = self.hard_state
        commit = max(hard_state.commit, meta.last.index)
        return LogState(
            HardState(hard_state.term, hard_state.vote, commit),
            kept,
            meta.last,
            meta.config_index,
            meta.conf,
        )


def state_of(recovered: Recovered) -> LogState:
    """What was recovered, as the model sees it."""
    return LogState(
        recovered.hard_state,
        tuple(recovered.entries),
        recovered.base,
        recovered.base_config_index,
        recovered.base_conf,
    )


# ---- snapshots -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """An engine's copy of itself."""

    content: bytes

    def write_to(self, file: BinaryIO) -> None:
        """In two parts, as a library may."""
        half = len(self.content) // 2
        file.write(self.content[:half])
        file.write(self.content[half:])


@dataclass
class BlobReader:
    """An engine that is built."""

    content: bytes | None = None

    def read_from(self, file: BinaryIO, size: int) -> None:
        """All at once."""
        self.content = file.read(size)


def blob_of(last: EntryId, size: int = 3000) -> Blob:
    """What the state machine is as of this entry."""
    return Blob(f"state {last.term}.{last.index};".encode().ljust(size, b"\x5a"))


def meta_of(last: EntryId, *, cluster_id: str = "c1", size: int = 3000) -> SnapshotMeta:
    """A snapshot's description; all of it follows from the entry."""
    conf = ConfState(voters=(5, 1000 + last.index))
    chain_hash = last.index.to_bytes(32, "big")
    return SnapshotMeta(cluster_id, last, last.index // 2, conf, chain_hash, last.index * 3, size)


def make_snapshot(last: EntryId, size: int = 3000) -> DiskTask[SnapshotInfo]:
    """Write the snapshot of this entry."""
    return write_snapshot(meta_of(last, size=size), blob_of(last, size))


def load_blob(disk: Disk, name: str) -> bytes:
    """The blob in a snapshot, verified."""
    reader = BlobReader()
    run_task(disk, load(name, reader))
    assert reader.content is not None
    return reader.content


@dataclass(frozen=True)
class Sent:
    """A snapshot on its way from a leader: what is offered, and the file."""

    info: SnapshotInfo
    content: bytes


def sent_snapshot(last: EntryId, *, cluster_id: str = "c1", size: int = 3000) -> Sent:
    """The snapshot of this entry, as another node made it."""
    leader = SimDisk()
    open_on(leader, seed=77)
    meta = meta_of(last, cluster_id=cluster_id, size=size)
    info = run_task(leader, write_snapshot(meta, blob_of(last, size)))
    handle = run_task(leader, open_snapshot(info.name))
    return Sent(info, run_task(leader, read_chunk(handle, 0, info.size_bytes)))


def receive(sent: Sent, piece_bytes: int = 40_000) -> DiskTask[SnapshotInfo]:
    """Take a snapshot in."""
    receiver = SnapshotReceiver(sent.info)
    yield from receiver.begin()
    while receiver.received_bytes < sent.info.size_bytes:
        offset = receiver.received_bytes
        yield from receiver.write(offset, sent.content[offset : offset + piece_bytes])
    return (yield from receiver.finish())


# ---- processes -----------------------------------------------------------------------------


def open_on(disk: SimDisk, *, seed: int = 0, segment_bytes: int = SEGMENT_BYTES) -> Recovered:
    """Start a process on ``disk``."""
    return run_task(disk, open_storage(Random(seed), segment_bytes=segment_bytes))


def found_on(disk: SimDisk, *, segment_bytes: int = SEGMENT_BYTES) -> Recovered:
    """Start a process on an empty ``disk`` and let it found a cluster."""
    recovered = open_on(disk, segment_bytes=segment_bytes)
    recovered.identity = run_task(disk, adopt_cluster(recovered.identity, "c1", None))
    return recovered


def restart(disk: SimDisk) -> Recovered:
    """End the process and start another one."""
    disk.kill()
    return open_on(disk)


def frames_of(content: bytes) -> Iterator[Frame]:
    """The frames at the start of a segment."""
    offset = 0
    while (frame := decode_frame(content, offset)) is not None:
        yield frame
        offset = frame.end


def segment_path(name: str) -> str:
    """A segment's path from its file name."""
    return f"{WAL}/{name}"


@dataclass
class SampleLog:
    """A disk with a log of three segments, and what it holds before and after its last write."""

    disk: SimDisk
    identity: Identity
    before_last: LogState
    state: LogState


def sample_log() -> SampleLog:
    """Some 18 writes: votes, commits, batches, an overwritten suffix."""
    disk = SimDisk()
    recovered = found_on(disk)
    states = [LogState()]
    writes: list[tuple[HardState | None, list[Entry]]] = [
        (HardState(1, 7, 0), []),
        *((HardState(1, 7, index - 1), make_entries(index, 1)) for index in range(1, 10)),
        (HardState(2, None, 9), make_entries(10, 3)),
        (HardState(3, 9, 9), make_entries(11, 2, term=3)),  # replaces 11 and 12
        *((None, make_entries(index, 1, term=3)) for index in range(13, 19)),
    ]
    for hard_state, entries in writes:
        run_task(disk, recovered.wal.append(hard_state, entries))
        states.append(states[-1].append(hard_state, entries))
    disk.kill()
    return SampleLog(disk, recovered.identity, states[-2], states[-1])
