"""Names in the data directory, and when a directory is not ours. Pure.

    identity              who this node is (`raftkv.storage.identity`)
    lock                  held with flock while a process works here (`raftkv.storage.os_disk`)
    wal/NNNNNNNN.sealed   a full segment of the write-ahead log
    wal/NNNNNNNN.active   the last one, which is written to; there is always exactly one
    snapshots/<index>-<term>.snapshot   the state machine as of that entry (`.snapshots`)
    *.tmp                 a file being made; worthless after a crash

What else lies beside them (the state machine's environment, the file system's `lost+found`) is
not storage's business, once the identity shows that the directory is ours.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from raftkv.raft.messages import EntryId
from raftkv.storage.errors import ForeignDirectoryError

ROOT = "."
IDENTITY = "identity"
LOCK = "lock"
WAL = "wal"
SNAPSHOTS = "snapshots"
TEMPORARY_SUFFIX = ".tmp"

# What a directory may hold before the node first starts in it: our own leftovers of a start
# that was cut short, and what file systems and storage drivers put into a fresh volume.
_HARMLESS = frozenset({LOCK, IDENTITY + TEMPORARY_SUFFIX, "lost+found", ".snapshot"})


class SegmentState(StrEnum):
    """The last part of a segment's file name."""

    SEALED = "sealed"
    ACTIVE = "active"


_SEGMENT_NAME = re.compile(r"([0-9]{8,})\.(sealed|active)")


def segment_name(number: int, state: SegmentState) -> str:
    """The file name, inside `WAL`, of the segment with this number; the first one is 1."""
    return f"{number:08d}.{state}"


def parse_segment_name(name: str) -> tuple[int, SegmentState] | None:
    """Number and state of a segment file; None if ``name`` is not one."""
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None:
        return None
    number, state = int(match[1]), SegmentState(match[2])
    return (number, state) if segment_name(number, state) == name else None


class SegmentFile(msgspec.Struct, frozen=True):
    """A segment, as the directory lists it."""

    number: int
    state: SegmentState
    size_bytes: int

    @property
    def path(self) -> str:
        """Below the data directory."""
        return f"{WAL}/{segment_name(self.number, self.state)}"


_SNAPSHOT_NAME = re.compile(r"([0-9]{20,})-([0-9]+)\.snapshot")


def snapshot_name(last: EntryId) -> str:
    """The file name, inside `SNAPSHOTS`, of the snapshot that ends with this entry."""
    return f"{last.index:020d}-{last.term}.snapshot"


def parse_snapshot_name(name: str) -> EntryId | None:
    """The entry that a snapshot file ends with; None if ``name`` is not one's."""
    match = _SNAPSHOT_NAME.fullmatch(name)
    if match is None:
        return None
    last = EntryId(term=int(match[2]), index=int(match[1]))
    return last if snapshot_name(last) == name else None


def refuse_foreign(names: Iterable[str]) -> None:
    """Raise `ForeignDirectoryError` if a directory with these names is neither ours nor empty.

    To be called before anything is changed in it.
    """
    found = set(names)
    if IDENTITY in found:
        return
    foreign = sorted(found - _HARMLESS)
    if foreign:
        raise ForeignDirectoryError(foreign)
