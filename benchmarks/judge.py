"""Whether a history is one that a linearizable store can have: a run that breaks it has no number.

Histories are those of one load generator: every value names its write, every write of the run is
in the history, and times are of one clock. The checks are necessary conditions, in one pass over
the history sorted by time, so that they cost little next to the run. Those of
`tests.linearizability` are complete and cost more.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

_FAULTS_MAX = 5


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request: what was asked, when, and what came of it.

    ``number`` names the write of a put, and what a get found: the write that its value names, or
    -1 for nothing. ``revision`` is that of the key after the operation; 0: none. ``outcome`` of a
    request that was not answered, or answered with an error that leaves it open, is "unknown".
    """

    kind: Literal["put", "get"]
    key: int
    number: int
    start: float
    end: float
    revision: int
    outcome: Literal["done", "refused", "unknown"]


def broken_promises(history: Sequence[Operation]) -> list[str]:
    """What contradicts linearizability or the order of revisions; empty: nothing."""
    done = [each for each in history if each.outcome == "done"]
    writes = [each for each in done if each.kind == "put"]
    faults = [*_doubled(writes), *_out_of_order(writes)]
    by_key: dict[int, list[Operation]] = {}
    for each in done:
        by_key.setdefault(each.key, []).append(each)
    started = {each.number: each for each in history if each.kind == "put"}
    for of_key in by_key.values():
        faults += _stale(of_key)
        faults += _from_nowhere(of_key, started)
    return faults[:_FAULTS_MAX]


def _doubled(writes: Sequence[Operation]) -> Iterable[str]:
    seen: dict[int, int] = {}
    for write in writes:
        if write.revision <= 0:
            yield f"write {write.number} was acknowledged without a revision"
        elif write.revision in seen:
            yield f"writes {seen[write.revision]} and {write.number} both got {write.revision}"
        seen[write.revision] = write.number


def _with_floor(operations: Sequence[Operation]) -> Iterable[tuple[Operation, int]]:
    """Each by its start, with the newest revision of those that ended before it; 0: none did."""
    ended = sorted(operations, key=lambda each: each.end)
    newest, place = 0, 0
    for each in sorted(operations, key=lambda each: each.start):
        while place < len(ended) and ended[place].end < each.start:
            newest = max(newest, ended[place].revision)
            place += 1
        yield each, newest


def _out_of_order(writes: Sequence[Operation]) -> Iterable[str]:
    """Revisions of the store grow with real time, over all keys."""
    for write, newest in _with_floor(writes):
        if 0 < write.revision <= newest:
            yield f"write {write.number} began after revision {newest} and got {write.revision}"


def _stale(of_key: Sequence[Operation]) -> Iterable[str]:
    """A read sees at least what was acknowledged or read before it began."""
    for each, newest in _with_floor(of_key):
        if each.kind == "get" and each.revision < newest:
            yield f"a read of key {each.key} saw {each.revision} after {newest}"


def _from_nowhere(of_key: Sequence[Operation], started: dict[int, Operation]) -> Iterable[str]:
    """A read sees what a write of its key put there that had begun, at the write's revision."""
    for read in of_key:
        if read.kind != "get" or read.number < 0:
            continue
        write = started.get(read.number)
        if write is None or write.key != read.key or write.start > read.end:
            yield f"a read of key {read.key} saw {read.number}, which nobody had written"
        elif write.outcome == "refused":
            yield f"a read of key {read.key} saw {read.number}, which was refused"
        elif write.outcome == "done" and write.revision != read.revision:
            yield (
                f"a read of key {read.key} saw write {read.number} at {read.revision}, "
                f"which was acknowledged at {write.revision}"
            )
