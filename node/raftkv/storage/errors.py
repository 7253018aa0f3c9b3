"""Why a data directory cannot be used: each error is one clear sentence for a person.

    StorageError
    ├── CorruptionError          what was written is not what is read
    │   ├── CommittedEntriesLostError
    │   └── SnapshotMissingError
    ├── ForeignDirectoryError    files, but no identity: not ours; nothing was touched
    ├── UnexpectedFileError      something among our files that is not ours; nothing was touched
    ├── DirectoryLockedError     another process works in the directory
    └── DirectoryUnusableError   not a directory, not readable, not writable

All of them end the process with a non-zero exit before it answers anybody. `DiskError` (an
operation the system refused) is not among them: it lives in `raftkv.storage.disk`. Nor is
`SnapshotRefusedError`: the node goes on without that snapshot.
"""

from raftkv.raft.messages import Index

# A member that lost part of its log must not vote with the rest of it (Raft thesis 3.8); the
# cluster repairs it by taking it for a new member.
REJOIN_ADVICE = (
    "This member can no longer trust its disk and must rejoin as a new one: "
    "empty its data directory, start it again, remove the old member from the cluster "
    "and add the new one."
)


class StorageError(Exception):
    """The data directory cannot be used."""


class CorruptionError(StorageError):
    """A file is damaged, missing or not the one that belongs there.

    ``path`` is relative to the data directory; ``offset`` and ``sequence`` tell the place inside
    a WAL segment, where there is one.
    """

    def __init__(
        self, path: str, reason: str, *, offset: int | None = None, sequence: int | None = None
    ) -> None:
        place = path
        if offset is not None:
            place += f" at offset {offset}"
        if sequence is not None:
            place += f" (frame {sequence})"
        super().__init__(f"{place}: {reason}. {REJOIN_ADVICE}")
        self.path = path
        self.reason = reason
        self.offset = offset
        self.sequence = sequence


class CommittedEntriesLostError(CorruptionError):
    """The log that is left ends before an index that this member knew to be committed."""

    def __init__(self, path: str, *, last_index: Index, commit_index: Index) -> None:
        super().__init__(
            path, f"the log ends at index {last_index}, before the committed index {commit_index}"
        )


class SnapshotMissingError(CorruptionError):
    """A snapshot file that should be there is not."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "the snapshot is missing")


class ForeignDirectoryError(StorageError):
    """The directory holds files but no identity: it is not (or no longer) a data directory."""

    def __init__(self, names: list[str]) -> None:
        shown = ", ".join(repr(name) for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        super().__init__(
            f"the data directory has no identity file but holds {shown}{more}: it was not made "
            "by raftkv, or lost its identity. Nothing in it was changed; use an empty directory"
        )


class UnexpectedFileError(StorageError):
    """Something lies among log or snapshots that no raftkv puts there."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} in the data directory is not a file of raftkv. "
            "Nothing was changed; move it away and start again"
        )


class DirectoryLockedError(StorageError):
    """Another process has locked the data directory."""

    def __init__(self, root: str) -> None:
        super().__init__(
            f"the data directory {root} is in use by another process: "
            "two nodes must never share one"
        )


class DirectoryUnusableError(StorageError):
    """The path is not a directory, or cannot be created, read or written."""

    def __init__(self, root: str, reason: str) -> None:
        super().__init__(f"the data directory {root} cannot be used: {reason}")


class SnapshotRefusedError(Exception):
    """A snapshot was not made or not taken in: no room, or not what was announced.

    Nothing has changed and nothing is left behind; the node goes on.
    """
