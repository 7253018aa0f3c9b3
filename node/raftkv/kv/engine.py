"""What the state machine asks of an ordered store: named tables, one writer, snapshots to read.

`LmdbEngine` (production) and `MemoryEngine` (simulation) implement it; a hypothesis test holds
them equal. Keys are 1 to 511 bytes in every table (LMDB's limit), order is bytewise. Calls are
synchronous and short: apply runs on the event loop in slices (node design, rule 26).

An engine never syncs: the write-ahead log is the durable truth, and what an engine holds after a
power loss is discarded (rule 9). Any `EngineError` at apply stops the node (rule 19).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol


class Table(Enum):
    """The tables of the store (node design, rule 24). The value is the table's name on disk."""

    META = b"meta"  # applied index, revision, chain hash, logical bytes ...
    CUR = b"cur"  # key -> its latest revision and metadata
    REV = b"rev"  # revision (8 bytes) + sub-revision (2 bytes) -> key, metadata, value
    HIST = b"hist"  # key + revision -> empty; written only when a key is overwritten or deleted


class EngineError(Exception):
    """The engine failed in a way that says nothing about the command: the node must stop."""


class EngineReader(Protocol):
    """A consistent view of all tables."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        ...

    def scan(
        self, table: Table, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start`` <= key < ``end`` (None: no end), ascending unless ``reverse``.

        Valid only inside the transaction it came from.
        """
        ...


class EngineWriter(EngineReader, Protocol):
    """The one write transaction: sees its own writes, and nothing is seen outside until commit."""

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``."""
        ...

    def putmulti(self, table: Table, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Store all pairs in one call."""
        ...

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        ...


class Engine(Protocol):
    """An open store."""

    def write(self) -> AbstractContextManager[EngineWriter]:
        """The write transaction: commits on leaving, rolls back when an exception leaves it."""
        ...

    def read(self) -> AbstractContextManager[EngineReader]:
        """A snapshot of the last commit. Must not outlive one slice (rule 24)."""
        ...

    def size_bytes(self) -> int:
        """Bytes of storage in use."""
        ...

    def close(self) -> None:
        """Release the store; what was committed stays."""
        ...
