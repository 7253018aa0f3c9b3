"""What the storage tests share: a log in small, and a list model of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from raftkv.raft.messages import Entry, EntryType, HardState
from raftkv.storage.disk import run_task
from raftkv.storage.identity import Identity, adopt_cluster
from raftkv.storage.layout import WAL
from raftkv.storage.record import Frame, decode_frame
from raftkv.storage.recovery import Recovered, open_storage
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

    def append(self, hard_state: HardState | None, entries: list[Entry]) -> "LogState":
        """The state after this write."""
        kept = entries[0].index - 1 if entries else len(self.entries)
        return replace(
            self,
            hard_state=hard_state or self.hard_state,
            entries=(*self.entries[:kept], *entries),
        )


def state_of(recovered: Recovered) -> LogState:
    """What was recovered, as the model sees it."""
    return LogState(recovered.hard_state, tuple(recovered.entries))


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
