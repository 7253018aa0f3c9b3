"""Do the revisions of a history bear witness to its order? O(n log n), all keys together.

Every write answers with the revision it took and every read with the store revision it was served
at, so the order the system claims can be checked against the order clients saw, without a search:

1. Real time: if A returned before B was called, A's revision is not above B's, and below it if B
   is a write. Per key the same holds for the mod revisions that answers show.
2. No two writes took the same revision.
3. A read's (mod revision, value) was written by exactly that write; if no acknowledged write has
   this revision, by one of unknown outcome, always the same one.
4. A read served at revision R shows the newest acknowledged write at or below R.

It trusts what `checker` does not, and finds what that cannot: an order across keys, a revision
given twice. It judges known outcomes only; those of unknown writes enter by rule 3.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from tests.linearizability.checker import Violation, group_by_key, window_around
from tests.linearizability.history import Certainty, Kind, Operation

_RULE = "revisions disagree"


def find_revision_violation(history: Iterable[Operation]) -> Violation | None:
    """The first contradiction between revisions and what clients saw; None: there is none."""
    by_key = group_by_key(history)
    everything = sorted(
        (operation for operations in by_key.values() for operation in operations),
        key=lambda operation: operation.call_ns,
    )
    violation = _find_repeated_revision(everything) or _find_disorder(
        everything, lambda operation: operation.revision, "the store revision went backwards"
    )
    if violation is not None:
        return violation
    for _, operations in sorted(by_key.items()):
        violation = (
            _find_disorder(operations, _shown_mod_revision, "the key's mod revision went backwards")
            or _KeyWitness(operations).find()
        )
        if violation is not None:
            return violation
    return None


def _violation(reason: str, culprits: Sequence[Operation], of: Sequence[Operation]) -> Violation:
    centre = culprits[-1]
    same_key = [operation for operation in of if operation.key == centre.key]
    return Violation(_RULE, centre.key, reason, tuple(culprits), window_around(same_key, centre))


def _shown_mod_revision(operation: Operation) -> int | None:
    """The key's mod revision just after the operation, as its answer shows it."""
    if operation.kind is not Kind.DELETE and operation.is_effective_write:
        return operation.revision
    return operation.mod_revision or None


def _find_disorder(
    operations: Sequence[Operation], revision_of: Callable[[Operation], int | None], reason: str
) -> Violation | None:
    """Rule 1. ``operations`` are in order of their calls."""
    returned = sorted(
        (operation for operation in operations if operation.return_ns is not None),
        key=lambda operation: operation.return_ns or 0,
    )
    highest: Operation | None = None  # of those returned before the call looked at
    highest_revision = 0
    place = 0
    for operation in operations:
        revision = revision_of(operation)
        if revision is None:
            continue
        while place < len(returned) and (returned[place].return_ns or 0) < operation.call_ns:
            earlier_revision = revision_of(returned[place])
            if earlier_revision is not None and earlier_revision > highest_revision:
                highest, highest_revision = returned[place], earlier_revision
            place += 1
        too_low = highest_revision - (0 if operation.is_effective_write else 1)
        if highest is not None and revision <= too_low:
            return _violation(reason, (highest, operation), operations)
    return None


def _find_repeated_revision(operations: Sequence[Operation]) -> Violation | None:
    """Rule 2."""
    taken: dict[int, Operation] = {}
    for operation in operations:
        if operation.is_effective_write and operation.revision is not None:
            first = taken.setdefault(operation.revision, operation)
            if first is not operation:
                return _violation("two writes took one revision", (first, operation), operations)
    return None


class _KeyWitness:
    """Rules 3 and 4 for one key."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        writes = {
            operation.revision: operation
            for operation in operations
            if operation.is_effective_write and operation.revision is not None
        }
        self._write_at = writes
        self._revisions = sorted(writes)
        self._unknown = [
            operation for operation in operations if operation.certainty is Certainty.UNKNOWN
        ]
        # What reads have shown of revisions that no acknowledged write took.
        self._shown: dict[int, Operation] = {}
        self._author: dict[int, int] = {}  # id of an unknown write: the revision it took

    def find(self) -> Violation | None:
        for operation in self._operations:
            if operation.kind is Kind.GET:
                reason = self._contradiction(operation)
                if reason is not None:
                    return _violation(*reason, self._operations)
        return None

    def _contradiction(self, read: Operation) -> tuple[str, tuple[Operation, ...]] | None:
        if read.value is not None and read.mod_revision is not None:
            origin = self._origin_contradiction(read, read.value, read.mod_revision)
            if origin is not None:
                return origin
        if read.revision is None:
            return None
        place = bisect_right(self._revisions, read.revision)
        newest = self._write_at[self._revisions[place - 1]] if place else None
        if read.value is None:
            return self._absence_contradiction(read, newest)
        if newest is not None and (newest.revision or 0) > (read.mod_revision or 0):
            return "a read does not show the newest write at its revision", (newest, read)
        return None

    def _origin_contradiction(
        self, read: Operation, value: str, revision: int
    ) -> tuple[str, tuple[Operation, ...]] | None:
        """Rule 3."""
        if read.revision is not None and revision > read.revision:
            return "a read shows a revision above the one it was served at", (read,)
        write = self._write_at.get(revision)
        if write is not None:
            if not _can_leave(write, value):
                return "the write of this revision stored another value", (write, read)
            return None
        earlier = self._shown.setdefault(revision, read)
        if earlier.value != value:
            return "two reads show different values of one revision", (earlier, read)
        authors = [
            write
            for write in self._unknown
            if _can_leave(write, value) and write.call_ns < (read.return_ns or write.call_ns)
        ]
        if not authors:
            return "no write stored this value at this revision", (read,)
        if len(authors) == 1 and self._author.setdefault(id(authors[0]), revision) != revision:
            return "one write took effect at two revisions", (authors[0], read)
        return None

    def _absence_contradiction(
        self, read: Operation, newest: Operation | None
    ) -> tuple[str, tuple[Operation, ...]] | None:
        """Rule 4 for a key that was not found."""
        if newest is None or newest.kind is Kind.DELETE:
            return None
        may_be_deleted = any(
            write.kind is Kind.DELETE and write.call_ns < (read.return_ns or write.call_ns)
            for write in self._unknown
        )
        return None if may_be_deleted else ("an acknowledged write is gone", (newest, read))


def _can_leave(write: Operation, value: str) -> bool:
    """Whether ``value`` can be the key's right after ``write``."""
    if write.kind is Kind.APPEND:
        return value.endswith(write.argument)
    return write.kind is not Kind.DELETE and value == write.argument
