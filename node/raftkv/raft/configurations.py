"""The configurations that a log holds, so that the latest one is always at hand.

Owned by `raftkv.raft.log.RaftLog`, which tells it of every appended, dropped and compacted entry.
A configuration is in force from the moment it is appended, committed or not, and goes when its
entry is truncated (paper 6: "a server always uses the latest configuration in its log").

Invariant: ``_history`` is never empty and ascends by index; its first element is the
configuration at or below the log's base.
"""

from collections.abc import Iterable

from raftkv.raft.messages import (
    ConfState,
    Entry,
    EntryType,
    Index,
    decode_conf_state,
)


class Configurations:
    """The history of configurations within one log."""

    __slots__ = ("_history",)

    def __init__(self, index: Index, conf: ConfState) -> None:
        """``conf`` is in force at the log's base, ``index`` that of the entry that held it."""
        self._history: list[tuple[Index, ConfState]] = [(index, conf)]

    @property
    def latest(self) -> ConfState:
        """The configuration in force."""
        return self._history[-1][1]

    @property
    def latest_index(self) -> Index:
        """The index of the entry that holds it, in the log or compacted."""
        return self._history[-1][0]

    def at(self, index: Index) -> tuple[Index, ConfState]:
        """The configuration in force at ``index``, not below the base, and its entry's index."""
        return next(
            (known for known in reversed(self._history) if known[0] <= index), self._history[0]
        )

    def up_to(self, index: Index) -> list[ConfState]:
        """Those in force at or before ``index``, as far as the log remembers, oldest first."""
        return [conf for known, conf in self._history if known <= index]

    def since(self, index: Index) -> list[ConfState]:
        """The one in force at ``index``, not below the base, and all after it, oldest first."""
        first, _ = self.at(index)
        return [conf for known, conf in self._history if known >= first]

    def append(self, entries: Iterable[Entry]) -> None:
        """Take note of the configurations among newly appended entries."""
        for entry in entries:
            if entry.type is EntryType.CONFIG:
                self._history.append((entry.index, decode_conf_state(entry.data)))

    def truncate(self, first: Index) -> None:
        """Forget what entries from ``first`` on brought; never the one at the base."""
        while len(self._history) > 1 and self._history[-1][0] >= first:
            self._history.pop()

    def compact(self, base: Index) -> None:
        """The log begins after ``base`` now: keep the configuration in force there."""
        kept = sum(index <= base for index, _ in self._history)
        self._history = self._history[kept - 1 :]
