"""The replicated log as one node has it: one index space, from a compacted prefix to the newest.

Owned by `raftkv.raft.raft.Raft`, which alone decides when to call the mutating methods; the log
asserts that the call is legal. It does no I/O: the host is handed what must be written
(`begin_write`) and says when it is durable (`write_done`).

      base        applied  applying     commit     last
    ───┼─────────────┼────────┼───────────┼──────────┼
    compacted        │  handed to the host │ may still be truncated
                                 durable: anywhere from applying to last

Invariants:
  1. base.index <= applied <= applying <= min(commit, durable) and max(commit, durable) <= last;
     but while an installed snapshot is not on disk (`is_installing`) ``durable`` is 0
  2. entry ``i`` is ``_entries[i - base.index - 1]``, up to ``last_index``; terms never descend
  3. an entry at or below ``commit`` is never removed but by `compact`, or by `install`, whose
     snapshot holds it in applied form
  4. ``durable`` covers only entries that are on disk as they are here. A write in flight stops
     counting for every entry that is truncated meanwhile, also if an equal one is appended
     again: the completion is for what was written, not for the name (reference/faults.md 2,
     rule 16, the ABA race).
  5. ``conf_state`` is the newest CONFIG entry of the log, else the one at its base
"""

from collections.abc import Sequence

from raftkv.raft.configurations import Configurations
from raftkv.raft.messages import ConfState, Entry, EntryId, Index, SnapshotBase, Term

# What an entry costs in a message beside its data: a bound for the limits, not an exact count.
ENTRY_OVERHEAD_BYTES = 24


def _data_bytes(entries: Sequence[Entry]) -> int:
    return sum(len(entry.data) for entry in entries)


class RaftLog:
    """See the module docstring for the picture and the invariants."""

    __slots__ = (
        "_configurations",
        "_entries",
        "_uninstalled",
        "_writing",
        "applied",
        "applying",
        "base",
        "commit",
        "data_bytes",
        "durable",
        "last_index",
    )

    def __init__(  # noqa: PLR0917 - a log is what recovery found
        self,
        base: EntryId,
        base_conf: ConfState,
        entries: Sequence[Entry],
        commit: Index,
        applied: Index,
        base_config_index: Index | None = None,
    ) -> None:
        """A log as recovery found it: all ``entries`` are durable and follow ``base``."""
        config_index = base.index if base_config_index is None else base_config_index
        assert 0 <= config_index <= base.index, "the configuration is younger than the log's base"
        self.base = base
        self._entries: list[Entry] = list(entries)
        # The newest entry's index, the base's if there is none. Asked for all the time.
        self.last_index: Index = base.index + len(entries)
        self.data_bytes = _data_bytes(entries)  # of all entries in memory
        self._configurations = Configurations(config_index, base_conf)
        self._configurations.append(entries)
        self.durable: Index = self.last_index  # on disk up to here
        self.commit: Index = max(commit, applied, base.index)  # highest known committed
        self.applied: Index = applied  # the host's state machine is here
        self.applying: Index = applied  # handed to the host, maybe not applied yet
        # The last index that the write in flight makes durable; None when there is none.
        self._writing: Index | None = None
        # A snapshot that replaced the log and that no write has carried yet.
        self._uninstalled: SnapshotBase | None = None
        assert all(
            entry.index == index for index, entry in enumerate(self._entries, base.index + 1)
        ), "the recovered entries have a gap"
        assert base.index <= applied, "the state machine lacks entries that the log dropped"
        assert self.commit <= self.last_index, "the recovered log lacks committed entries"

    # ---- reading ----------------------------------------------------------------------------

    @property
    def first_index(self) -> Index:
        """The lowest index whose entry is here; ``last_index + 1`` if none is."""
        return self.base.index + 1

    @property
    def entry_count(self) -> int:
        """How many entries are here: those after the base."""
        return len(self._entries)

    @property
    def last_term(self) -> Term:
        """The newest entry's term, the base's if there is none."""
        return self._entries[-1].term if self._entries else self.base.term

    @property
    def last_id(self) -> EntryId:
        """What elections compare (paper 5.4.1)."""
        return EntryId(self.last_term, self.last_index)

    @property
    def conf_state(self) -> ConfState:
        """The configuration in force."""
        return self._configurations.latest

    @property
    def config_index(self) -> Index:
        """Where the configuration in force came from."""
        return self._configurations.latest_index

    def conf_at(self, index: Index) -> tuple[Index, ConfState]:
        """The index of the entry and the configuration that were in force at ``index``."""
        assert self.base.index <= index <= self.last_index
        return self._configurations.at(index)

    def configurations_to(self, index: Index) -> list[ConfState]:
        """The configurations at or before ``index`` that the log remembers, oldest first."""
        return self._configurations.up_to(index)

    def configurations_from(self, index: Index) -> list[ConfState]:
        """The configuration in force at ``index``, and all after it, oldest first."""
        return self._configurations.since(index)

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot that replaced the log is not on disk yet."""
        return self.durable < self.base.index

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended: the node belongs to no cluster yet."""
        return self.last_index == 0

    def term_of(self, index: Index) -> Term | None:
        """The term of the entry at ``index``; None if it is compacted or not there (yet)."""
        offset = index - self.base.index - 1
        if 0 <= offset < len(self._entries):
            return self._entries[offset].term
        return self.base.term if index == self.base.index else None

    def entries(self, first: Index, end: Index) -> tuple[Entry, ...]:
        """Entries from ``first`` up to, not including, ``end``; the caller checked the bounds."""
        assert self.first_index <= first <= end <= self.last_index + 1
        offset = self.base.index + 1
        return tuple(self._entries[first - offset : end - offset])

    def entries_within(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from ``first`` to ``last`` as far as they fit, but at least one if any."""
        offset = self.base.index + 1
        end = first
        size = 0
        while end <= last:
            size += len(self._entries[end - offset].data) + ENTRY_OVERHEAD_BYTES
            if size > bytes_max and end > first:
                break
            end += 1
        return tuple(self._entries[first - offset : end - offset])

    def is_up_to_date(self, candidate_last: EntryId) -> bool:
        """Whether a candidate with this last entry may get the vote (paper 5.4.1)."""
        return candidate_last >= self.last_id

    def highest_match(self, index: Index, term: Term) -> EntryId:
        """The highest entry that may agree with a log that has ``term`` at ``index``.

        That is the highest one at or below ``index`` whose term is not above ``term``: terms
        never descend, so nothing between can agree. Both sides use it to skip whole terms in
        one round trip instead of one entry (paper 5.3, last paragraphs). Never below the base.
        """
        index = min(index, self.last_index)
        own_term = self.term_of(index)
        while own_term is not None and own_term > term and index > self.base.index:
            index -= 1
            own_term = self.term_of(index)
        return EntryId(0, 0) if own_term is None else EntryId(own_term, index)

    def count_present(self, entries: Sequence[Entry]) -> int:
        """How many of ``entries`` are here already; their predecessor is known to match."""
        if entries and entries[0].index > self.last_index:
            return 0
        for position, entry in enumerate(entries):
            if self.term_of(entry.index) != entry.term:
                return position
        return len(entries)

    # ---- growing and shrinking --------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        assert not entries or entries[0].index == self.last_index + 1
        self._entries.extend(entries)
        self.last_index += len(entries)
        self.data_bytes += _data_bytes(entries)
        self._configurations.append(entries)

    def truncate(self, first: Index) -> None:
        """Remove the entries from ``first`` on: they conflict with the leader's (paper 5.3)."""
        assert first > self.commit, "a committed entry would be truncated"
        offset = first - self.base.index - 1
        self.data_bytes -= _data_bytes(self._entries[offset:])
        del self._entries[offset:]
        self.last_index = first - 1
        self._configurations.truncate(first)
        self.durable = min(self.durable, first - 1)
        if self._writing is not None:
            self._writing = min(self._writing, first - 1)

    def compact(self, index: Index) -> None:
        """Forget the entries up to ``index``, which the host holds in applied form."""
        assert self.base.index <= index <= min(self.applied, self.durable)
        term = self.term_of(index)
        assert term is not None
        offset = index - self.base.index
        self.data_bytes -= _data_bytes(self._entries[:offset])
        del self._entries[:offset]
        self.base = EntryId(term, index)
        self._configurations.compact(index)

    def install(self, snapshot: SnapshotBase) -> None:
        """Begin after ``snapshot`` instead: it holds more than is committed here (paper 7).

        Nothing of the new log is durable until the next write is done, nor is what the write in
        flight makes durable any part of it.
        """
        last = snapshot.last
        assert last.index > self.commit, "a snapshot never takes back what is committed"
        assert self.term_of(last.index) != last.term, "a prefix of the log needs no install"
        self.base = last
        self.last_index = last.index
        self._entries.clear()
        self.data_bytes = 0
        self._configurations = Configurations(snapshot.config_index, snapshot.conf)
        self.commit = self.applied = self.applying = last.index
        self.durable = 0
        if self._writing is not None:
            self._writing = 0
        self._uninstalled = snapshot

    # ---- durability -------------------------------------------------------------------------

    @property
    def handed_out(self) -> Index:
        """Up to here the log is durable, or will be by the write in flight."""
        return self.durable if self._writing is None else max(self.durable, self._writing)

    @property
    def has_unwritten(self) -> bool:
        """Whether there are entries that no write covers."""
        return self.last_index > self.durable

    def begin_write(self) -> tuple[SnapshotBase | None, tuple[Entry, ...]]:
        """What is not durable: a snapshot that replaces the log, and the entries after it.

        No other write may be in flight.
        """
        assert self._writing is None
        self._writing = self.last_index
        snapshot, self._uninstalled = self._uninstalled, None
        first = max(self.durable + 1, self.first_index)
        return snapshot, self.entries(first, self.last_index + 1)

    def write_done(self) -> None:
        """The write in flight is durable: so is what it wrote, as far as it is still here."""
        assert self._writing is not None
        self.durable = max(self.durable, self._writing)
        self._writing = None

    # ---- commit and apply -------------------------------------------------------------------

    def commit_to(self, index: Index) -> None:
        """Raise the commit index, never lower it."""
        assert index <= self.last_index, "a commit index beyond the log"
        self.commit = max(self.commit, index)

    @property
    def has_applicable(self) -> bool:
        """Whether `take_applicable` has something to give."""
        return self.applied == self.applying < self.commit and self.applying < self.durable

    def take_applicable(self, bytes_max: int) -> tuple[Entry, ...]:
        """The next committed and durable entries, once those handed out before are applied."""
        if not self.has_applicable:
            return ()
        last = min(self.commit, self.durable)
        entries = self.entries_within(self.applying + 1, last, bytes_max)
        self.applying = entries[-1].index
        return entries

    def applied_to(self, index: Index) -> None:
        """The host applied the entries up to ``index``."""
        if index < self.base.index:
            return  # it was handed out before a snapshot replaced the log
        assert self.applied <= index <= self.applying, "applied what was not handed out"
        self.applied = index
