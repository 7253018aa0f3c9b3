"""What the state machine asks of an ordered store: tables, one writer, snapshots to read.

`LmdbEngine` (production) and `MemoryEngine` (simulation) implement it; a hypothesis test holds
them equal. Table keys are 1 to 511 bytes (LMDB's limit), order is bytewise. Calls are
synchronous and short: apply runs on the event loop in slices (node design, rule 26).

An engine knows nothing of commands or revisions; what its bytes mean is in `raftkv.kv.records`.

An engine never syncs: the write-ahead log is the durable truth, and what an engine holds after a
power loss is discarded (rule 9). Any `EngineError` at apply stops the node (rule 19).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import BinaryIO, Final, Protocol

KEY_BYTES_MAX: Final = 511  # LMDB's limit, which is also the limit of clients' keys

Pair = tuple[bytes, bytes]


class Table(IntEnum):
    """The tables that hold one value under a key (node design, rule 24).

    Beside them there is the *history*: many equally long values under one key, sorted. It has
    methods of its own, because a key of 511 bytes leaves no room for a revision behind it.
    """

    META = 0  # applied index, revision, chain hash, counts; chain hashes of earlier indexes
    CUR = 1  # key -> where its latest record is, and metadata
    REV = 2  # revision (8 bytes) + sub-revision (2 bytes) -> key, metadata, value
    LEASE = 3  # id -> ttl, end, count of keys, lock
    ATTACHED = 4  # lease id + the key's place in REV -> key
    DEADLINE = 5  # end of log time + lease id -> nothing
    LOCK = 6  # name -> token, owner, queue
    ONCE = 7  # idempotency key -> end, fingerprint, outcome
    ONCE_END = 8  # end of log time + idempotency key -> nothing


class StoreError(Exception):
    """The state machine cannot go on; the node must stop, or it would diverge (rule 19)."""


class EngineError(StoreError):
    """The engine failed, in a way that says nothing about the command that met it."""


class EngineReader(Protocol):
    """A consistent view of everything."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        ...

    def scan(
        self, table: Table, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[Pair]:
        """Pairs with ``start`` <= key < ``end`` (None: no end), ascending unless ``reverse``.

        An empty ``start`` means the first key. Valid only inside the transaction it came from,
        and only until that transaction writes.
        """
        ...

    def hist_floor(self, key: bytes, value: bytes) -> bytes | None:
        """The greatest value in the history of ``key`` that is <= ``value``, or None."""
        ...

    def hist_keys(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        """The keys that have a history, as `scan` gives those of a table."""
        ...


class EngineWriter(EngineReader, Protocol):
    """The one write transaction: sees its own writes, and nothing is seen outside until commit."""

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``, replacing what was there."""
        ...

    def putmulti(self, table: Table, pairs: Sequence[Pair]) -> None:
        """`put` all pairs in one call; fastest when they are sorted."""
        ...

    def append(self, table: Table, pairs: Sequence[Pair]) -> None:
        """Store pairs whose keys ascend and are greater than all that ``table`` holds.

        Leaves no room between them for others, as `putmulti` does.

        Raises:
            EngineError: The keys are not as said; the transaction must not be committed.
        """
        ...

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        ...

    def hist_add(self, pairs: Sequence[Pair]) -> None:
        """Add to the history of each key one value, 10 bytes long; no matter if it is there."""
        ...

    def hist_delete(self, key: bytes, value: bytes) -> bool:
        """Remove one value from the history of ``key``; whether it was there."""
        ...


class EngineCopy(Protocol):
    """The state of one moment, for a snapshot: what `Engine.begin_copy` pinned.

    The one exception to the rule that no read transaction outlives a slice (rule 24): until it
    is closed, no page of that state is reused, so the engine grows by what is written meanwhile.
    The engine may be closed or replaced in between; the copy still has its state (rule 10).
    """

    def write_to(self, file: BinaryIO) -> None:
        """Write the state at the position of ``file``: once, blocking, long, in any thread.

        A file with a descriptor (``fileno``) must be unbuffered: it is written behind its back.

        Raises:
            OSError: the file cannot be written.
            EngineError: the state cannot be read.
        """
        ...

    def close(self) -> None:
        """Let the state go. The caller's duty, in the engine's thread, not during `write_to`."""
        ...


class Engine(Protocol):
    """An open store. After an `EngineError` it may only be closed."""

    def write(self) -> AbstractContextManager[EngineWriter]:
        """The write transaction: commits on leaving, rolls back when an exception leaves it.

        At most one at a time. Leaving may raise `EngineError`; then nothing was committed.
        """
        ...

    def read(self) -> AbstractContextManager[EngineReader]:
        """A snapshot of the last commit. Must not outlive one slice (rule 24)."""
        ...

    def begin_copy(self) -> EngineCopy:
        """Pin the last commit, to be copied while later ones go on. The caller bounds how many."""
        ...

    def size_bytes(self) -> int:
        """Bytes of storage in use."""
        ...

    def close(self) -> None:
        """Release the store; what was committed stays as far as the process is concerned."""
        ...
