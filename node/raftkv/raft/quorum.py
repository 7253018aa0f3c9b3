"""Majorities of one or two sets of voters: pure arithmetic.

Used by `raftkv.raft.raft` and its handlers for elections, commit, reads and check-quorum; knows
nothing of messages or terms. A simple configuration has one half, a joint one has two, and every
decision needs a majority of each (paper 6, thesis 4.3).

Invariant: no voters, no quorum. An empty configuration can decide nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from raftkv.raft.messages import ConfState, NodeId


class VoteResult(StrEnum):
    """Where an election stands."""

    WON = "won"
    PENDING = "pending"
    LOST = "lost"  # no outcome of the missing votes can win it any more


def majority(count: int) -> int:
    """The smallest number of ``count`` voters that any other majority overlaps."""
    return count // 2 + 1


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who decides: one half or, while joint, two. Halves are sorted and not empty."""

    halves: tuple[tuple[NodeId, ...], ...]

    @classmethod
    def of(cls, conf: ConfState) -> Self:
        """The quorum of a configuration; learners have no say."""
        return cls(tuple(filter(None, (conf.voters, conf.voters_outgoing))))

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """All ids of both halves, sorted."""
        return tuple(sorted({voter for half in self.halves for voter in half}))

    def is_reached(self, agrees: Callable[[NodeId], bool]) -> bool:
        """Whether the voters for whom ``agrees`` holds are a majority of every half."""
        return bool(self.halves) and all(
            sum(map(agrees, half)) >= majority(len(half)) for half in self.halves
        )

    def agreed_value(self, value_of: Callable[[NodeId], int]) -> int:
        """The highest value that a majority of every half has reached; 0 without voters.

        With match indexes this is the commit index (paper 5.3), with confirmed rounds the last
        round that proves leadership (thesis 6.4).
        """
        values = [sorted(map(value_of, half))[-majority(len(half))] for half in self.halves]
        return min(values, default=0)

    def vote_result(self, votes: Mapping[NodeId, bool]) -> VoteResult:
        """Judge an election by the votes that arrived; missing ones may still go either way."""
        if self.is_reached(lambda voter: votes.get(voter, False)):
            return VoteResult.WON
        if self.is_reached(lambda voter: votes.get(voter, True)):
            return VoteResult.PENDING
        return VoteResult.LOST
