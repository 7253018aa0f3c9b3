"""What a leader knows of one peer's log, and when it may send to it.

Owned by `raftkv.raft.roles.Leader`, one for each member of the configuration, itself included
(there only ``match`` counts). All transitions are methods here, so that no handler sets fields.

    PROBE      where the logs part is not known: one Append, then wait for its answer
    REPLICATE  the logs agree up to ``match``: a window of Appends is kept in flight
    SNAPSHOT   the peer needs entries that the log dropped: the hosts transfer a file, no Appends

In the first two states a peer that owes an answer for a heartbeat interval is sent an empty
Append. Its answer tells what was lost: a peer that has all that was sent accepts, any other
rejects.

Invariants: 0 <= match < next; only in REPLICATE something is in the window.
Source: thesis 10.2.2 (pipelining); the names are etcd's.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from raftkv.raft.messages import Index


class ProgressState(StrEnum):
    """How boldly the leader sends."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """The window of Appends that were sent and not answered, by the last index of each."""

    __slots__ = ("_lasts", "size_max")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._lasts: deque[Index] = deque()

    def __len__(self) -> int:
        return len(self._lasts)

    @property
    def is_full(self) -> bool:
        """Whether the next Append must wait for an answer."""
        return len(self._lasts) >= self.size_max

    def add(self, last: Index) -> None:
        """An Append that ends at ``last`` left. The caller checked `is_full`."""
        assert not self.is_full
        assert not self._lasts or self._lasts[-1] < last
        self._lasts.append(last)

    def free_to(self, match: Index) -> None:
        """Everything up to ``match`` is answered."""
        lasts = self._lasts
        while lasts and lasts[0] <= match:
            lasts.popleft()

    def clear(self) -> None:
        """What is in flight no longer matters."""
        self._lasts.clear()


@dataclass(slots=True)
class Progress:
    """One peer, as its leader sees it."""

    next: Index  # the first index of the next Append
    inflights: Inflights
    session: Index  # answers of another session are not about this membership
    is_learner: bool
    match: Index = 0  # the peer holds, durably, the leader's log up to here
    state: ProgressState = ProgressState.PROBE
    commit_sent: Index = 0  # the highest commit index an Append told the peer
    confirmed_round: int = 0  # the highest heartbeat round the peer echoed
    silent_ticks: int = 0  # since the peer's last message of this term, or since the election
    has_spoken: bool = False  # in this term and session
    # The index of the entry that removed the peer, which is served only to learn of it.
    leaves_at: Index | None = None
    leaving_ticks: int = 0  # since that entry was committed
    # SNAPSHOT: the last index of the one that the peer's host has, and the ticks since.
    snapshot_index: Index | None = None
    snapshot_ticks: int = 0
    _is_probe_sent: bool = field(default=False, init=False)  # PROBE: an Append is on its way
    _is_nudge_due: bool = field(default=False, init=False)  # an empty Append is to be sent
    _match_at_beat: Index = field(default=0, init=False)  # ``match`` at the last heartbeat

    @property
    def may_send_entries(self) -> bool:
        """Whether an Append with entries from ``next`` on may leave now."""
        if self.state is ProgressState.REPLICATE:
            return not self.inflights.is_full
        return self.state is ProgressState.PROBE and not self._is_probe_sent

    def is_heard(self, ticks_max: int) -> bool:
        """Whether the peer spoke within the last ``ticks_max`` ticks."""
        return self.has_spoken and self.silent_ticks < ticks_max

    def heard(self) -> None:
        """The peer spoke."""
        self.has_spoken = True
        self.silent_ticks = 0

    @property
    def is_nudge_due(self) -> bool:
        """Whether an empty Append must leave if no other does."""
        return self._is_nudge_due

    def sent(self, last: Index, commit: Index) -> None:
        """An Append left that ends at ``last`` (``next - 1`` if empty) and tells ``commit``."""
        self._is_nudge_due = False
        self.commit_sent = max(self.commit_sent, min(commit, last))
        if self.state is ProgressState.PROBE:
            self._is_probe_sent = True
        elif last >= self.next:
            self.inflights.add(last)
            self.next = last + 1

    def accepted(self, match: Index, base: Index = 0) -> bool:
        """The peer holds the log up to ``match``; ``base`` is the last entry that this one dropped.

        Returns whether that is news. Also an old answer is true: within a term a follower of
        this leader only appends.
        """
        if self.state is ProgressState.SNAPSHOT:
            return self._accepted_in_snapshot(match, base)
        if match < self.match or (match == self.match and self.state is ProgressState.REPLICATE):
            return False
        self.match = match
        if self.state is ProgressState.PROBE:
            self.state = ProgressState.REPLICATE
            self.next = match + 1
            self._is_nudge_due = False
        else:
            self.next = max(self.next, match + 1)
            self.inflights.free_to(match)
        return True

    def _accepted_in_snapshot(self, match: Index, base: Index) -> bool:
        is_news = match > self.match
        self.match = max(self.match, match)
        self.next = max(self.next, match + 1)
        has_arrived = self.snapshot_index is not None and match >= self.snapshot_index
        if self.match >= base:
            self.become_probe(self.match + 1)
            self.state = ProgressState.REPLICATE
        elif has_arrived:
            # Too old by now: the log was compacted beyond it. PROBE will ask for another.
            self.become_probe(self.match + 1)
        else:
            return is_news
        return True

    def rejected(self, rejected: Index, hint: Index) -> bool:
        """The peer lacks ``rejected``, and may agree up to ``hint``. Returns whether to act.

        False for an answer that later ones have overtaken.
        """
        if self.state is ProgressState.SNAPSHOT:
            return False
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            # Something sent in the pipeline was lost; up to ``match`` nothing can be.
            self.become_probe(self.match + 1)
            return True
        if rejected != self.next - 1 or rejected <= self.match:
            return False
        self.become_probe(max(min(rejected, hint + 1), self.match + 1))
        return True

    def become_probe(self, next_index: Index) -> None:
        """Start over from ``next_index`` with a single Append."""
        self.state = ProgressState.PROBE
        self.next = next_index
        self.inflights.clear()
        self._is_probe_sent = False
        self._is_nudge_due = False
        self.snapshot_index = None

    def become_snapshot(self) -> None:
        """The next entry is not in the log any more: wait for the hosts to transfer a snapshot."""
        assert self.state is ProgressState.PROBE
        self.state = ProgressState.SNAPSHOT
        self.inflights.clear()
        self._is_probe_sent = False
        self._is_nudge_due = False
        self.snapshot_index = None

    def snapshot_sent(self, index: Index) -> None:
        """The peer's host has a snapshot up to ``index``; its core is to answer."""
        if self.state is ProgressState.SNAPSHOT:
            self.snapshot_index = index
            self.snapshot_ticks = 0

    def snapshot_failed(self) -> None:
        """Nothing arrived. Another attempt begins a heartbeat interval later, not at once."""
        if self.state is ProgressState.SNAPSHOT:
            self.become_probe(self.match + 1)
            self._is_probe_sent = True

    def tick_snapshot(self, ticks_max: int) -> bool:
        """A tick passed. Returns whether the answer is overdue, so that an Append must ask."""
        if self.state is not ProgressState.SNAPSHOT or self.snapshot_index is None:
            return False
        self.snapshot_ticks += 1
        if self.snapshot_ticks < ticks_max:
            return False
        self.become_probe(max(self.snapshot_index, self.match) + 1)
        return True

    def heartbeat_interval_passed(self) -> bool:
        """Returns whether the peer owes an answer since the last call and must be nudged."""
        if self.state is ProgressState.PROBE:
            self._is_nudge_due = self._is_probe_sent
        else:  # in SNAPSHOT nothing is in the window
            self._is_nudge_due = len(self.inflights) > 0 and self.match == self._match_at_beat
        self._match_at_beat = self.match
        return self._is_nudge_due
