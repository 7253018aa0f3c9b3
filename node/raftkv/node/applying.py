"""Committed entries on their way into the state machine, slice by slice.

Owned by the node class, which says when it is their turn. A slice is short, as it runs on the event
loop (rule 26); what is left over waits for the next turn.
"""

from typing import TYPE_CHECKING

from raftkv.kv.commands import count_commands
from raftkv.node.requests import Requests
from raftkv.node.snapshots import Snapshots
from raftkv.raft import Entry, EntryType, Role

if TYPE_CHECKING:
    from raftkv.node.node import Core


class Applying:
    """See the module docstring."""

    def __init__(self, slice_commands_max: int, requests: Requests, snapshots: Snapshots) -> None:
        self._slice_commands_max = slice_commands_max
        self._requests = requests
        self._snapshots = snapshots
        self._waiting: list[Entry] = []  # handed out by the core
        self._was_put_off = False  # since the last time that nothing was left

    @property
    def has_any(self) -> bool:
        """Whether entries wait to be applied."""
        return bool(self._waiting)

    def add(self, entries: list[Entry]) -> None:
        """The core handed these out."""
        self._waiting += entries

    def clear(self) -> None:
        """A snapshot takes the place of what is not applied."""
        self._waiting.clear()
        self._was_put_off = False

    def puts_off(self, role: Role, *, is_writing: bool) -> bool:
        """Whether to apply only after the write to the log that is under way.

        On a follower the leader waits for the answer that the end of the write brings, and few
        wait for it to apply. Once for all that has gathered until nothing is left to apply.
        """
        if (
            not self._waiting
            or self._was_put_off
            or not is_writing
            or role is Role.LEADER
            or self._requests.reads
            or self._requests.locks
        ):
            return False
        self._was_put_off = True
        return True

    def slice(self, core: "Core") -> None:
        """Apply the next entries, as many as fit into one slice, and answer who waits for them."""
        if not self._waiting:
            return
        entries = self._next_slice()
        applied_entries = core.store.apply(entries)
        for applied in applied_entries:
            self._requests.settle_entry(applied)
        entries = entries[: len(applied_entries)]
        del self._waiting[: len(entries)]
        self._was_put_off = self._was_put_off and bool(self._waiting)
        core.raft.applied(core.store.applied_index)
        self._requests.upkeep.applied(core.store)
        size_bytes = sum(len(entry.data) for entry in entries)
        self._snapshots.applied(core, core.store.applied_index, size_bytes)

    def _next_slice(self) -> list[Entry]:
        commands, end = 0, 0
        while end < len(self._waiting) and commands < self._slice_commands_max:
            entry = self._waiting[end]
            commands += count_commands(entry.data) if entry.type is EntryType.NORMAL else 1
            end += 1
        return self._waiting[:end]
