"""The settings of one consensus core, and the randomness it is lent."""

from dataclasses import dataclass
from typing import Protocol

from raftkv.raft.messages import NodeId


class Rng(Protocol):
    """A source of randomness, owned by the host; ``random.Random`` is one."""

    def randrange(self, start: int, stop: int, /) -> int:
        """An integer from ``start`` up to, not including, ``stop``."""
        ...


@dataclass(frozen=True, slots=True)
class Config:
    """Set once; times in calls of ``tick``, sizes in bytes of entry data."""

    id: NodeId
    # A follower campaigns after election_ticks .. election_ticks + election_jitter_ticks without
    # a leader, drawn anew for each term and campaign. election_ticks alone is also how long a
    # leader may go without hearing a quorum, and how long a follower stands by a silent leader.
    election_ticks: int
    election_jitter_ticks: int
    heartbeat_ticks: int
    append_bytes_max: int = 1 << 20  # of one Append; a single larger entry goes alone
    # Unanswered Appends to one peer (thesis 10.2.2). Shallow on purpose: what gathers behind a
    # full window travels in one larger Append.
    inflight_appends_max: int = 4
    uncommitted_bytes_max: int = 64 << 20  # beyond it proposals are dropped
    apply_bytes_max: int = 4 << 20  # of one Ready.committed_entries
    # A learner that lacks more entries than these is not promoted: until it has them, a quorum
    # that counts on it could not commit (thesis 4.2.1).
    promote_lag_entries_max: int = 1000
    check_invariants: bool = False  # after every call (raftkv.raft.invariants)

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError("heartbeats must be more frequent than elections")
        if self.election_jitter_ticks < 0 or self.inflight_appends_max < 1:
            raise ValueError("a negative jitter or an empty window of appends")
