"""Linearizable reads without the log: which reads wait for which quorum round.

`ReadRounds` belongs to a leader, `ForwardedReads` to a follower that asked its leader. Neither
sends: the handlers in `raftkv.raft.reading` do.

A leader may answer a read at its commit index if it was still the leader at some moment after the
read arrived (thesis 6.4). It proves that by a round: heartbeats that carry a round number, echoed
by a quorum. All reads that arrived before a round began share it, so the cost of a read under
load is a fraction of a heartbeat.

Invariant: a read is confirmed by no round that began before the read arrived.
"""

from collections import deque
from dataclasses import dataclass, field

from raftkv.raft.messages import Index, NodeId


@dataclass(frozen=True, slots=True)
class ReadState:
    """The read of ``context`` may be served once everything up to ``index`` is applied."""

    context: int
    index: Index


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Somebody waits for a read index; ``requester`` is None for the host of this node."""

    context: int
    requester: NodeId | None


@dataclass(frozen=True, slots=True)
class ReadRound:
    """Requests that one quorum round answers, all with the commit index at its beginning."""

    number: int
    index: Index
    requests: tuple[ReadRequest, ...]


@dataclass(slots=True)
class ReadRounds:
    """A leader's reads: those that wait for a round, and the rounds under way."""

    number: int = 0  # of the last round begun; every heartbeat carries it
    waiting: list[ReadRequest] = field(default_factory=list)
    _under_way: deque[ReadRound] = field(default_factory=deque)

    def begin(self, commit: Index) -> None:
        """Begin a round for all that wait. The caller then sends heartbeats with ``number``.

        ``commit`` must rest on a commit of the leader's own term: an older one may be behind
        what earlier leaders acknowledged (thesis 6.4, step 1).
        """
        self.number += 1
        self._under_way.append(ReadRound(self.number, commit, tuple(self.waiting)))
        self.waiting.clear()

    @property
    def is_under_way(self) -> bool:
        """Whether some round waits for its quorum."""
        return bool(self._under_way)

    def take_confirmed(self, confirmed: int) -> list[ReadRound]:
        """Remove and return the rounds up to number ``confirmed``, which a quorum echoed."""
        rounds = []
        while self._under_way and self._under_way[0].number <= confirmed:
            rounds.append(self._under_way.popleft())
        return rounds

    def take_all(self) -> list[ReadRequest]:
        """Remove and return every unanswered request: leadership is over."""
        requests = [request for round_ in self._under_way for request in round_.requests]
        requests += self.waiting
        self._under_way.clear()
        self.waiting.clear()
        return requests


@dataclass(slots=True)
class ForwardedReads:
    """A follower's questions to its leader, by context, with the ticks each has waited."""

    _waited_ticks: dict[int, int] = field(default_factory=dict)

    def add(self, context: int) -> None:
        """The question left."""
        self._waited_ticks[context] = 0

    def take(self, context: int) -> bool:
        """An answer came: returns whether it was still awaited."""
        return self._waited_ticks.pop(context, None) is not None

    def tick(self, ticks_max: int) -> list[int]:
        """Give up on questions unanswered for ``ticks_max`` ticks, and return their contexts."""
        for context in self._waited_ticks:
            self._waited_ticks[context] += 1
        expired = [context for context, waited in self._waited_ticks.items() if waited >= ticks_max]
        for context in expired:
            del self._waited_ticks[context]
        return expired

    def take_all(self) -> list[int]:
        """Give up on all: the leader is not the leader any more."""
        contexts = list(self._waited_ticks)
        self._waited_ticks.clear()
        return contexts
