"""How long entries wait for the disk and for a quorum, seen from outside of the node.

The driver shows it the node's positions after every turn. The node class reads no clock but the
loop's, which uvloop keeps in milliseconds: too coarse for a disk that takes half of one. One entry
holds all commands of a turn, so what is measured is per entry, not per command.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from raftkv.raft import Positions

# Entries that are timed at once; those beyond (a disk or a quorum that does not answer) are not.
_TIMED_MAX: Final = 1024

Observe = Callable[[float], None]


class LogTimes:
    """Fills two histograms: the wait for a write to begin, and from proposal to commit."""

    def __init__(
        self,
        queued: Observe,
        committed: Observe,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``committed`` is told of entries that this node proposed as leader, ``queued`` of all."""
        self._queued = queued
        self._committed = committed
        self._clock = clock
        self._last_index: int | None = None  # None: not seen yet
        # Last index of a turn's entries, and when that turn ended.
        self._unwritten: deque[tuple[int, float]] = deque()
        self._uncommitted: deque[tuple[int, float]] = deque()

    def turn(self, positions: Positions | None) -> None:
        """To be called after every turn; None before recovery."""
        if positions is None:
            return
        is_leader, last_index, handed_out_index, commit_index = positions
        unwritten, uncommitted = self._unwritten, self._uncommitted
        if not is_leader:
            uncommitted.clear()  # whether they are committed, and when, is another's business
        if last_index == self._last_index and not unwritten and not uncommitted:
            return
        now = self._clock()
        if self._last_index is None:
            self._last_index = last_index  # what recovery found was proposed long ago
        elif last_index > self._last_index:
            if len(unwritten) < _TIMED_MAX:
                unwritten.append((last_index, now))
            if is_leader and len(uncommitted) < _TIMED_MAX:
                uncommitted.append((last_index, now))
        elif last_index < self._last_index:
            # Entries were overwritten: the same indexes now name others.
            unwritten.clear()
            uncommitted.clear()
        self._last_index = last_index
        while unwritten and unwritten[0][0] <= handed_out_index:
            self._queued(now - unwritten.popleft()[1])
        while uncommitted and uncommitted[0][0] <= commit_index:
            self._committed(now - uncommitted.popleft()[1])
