"""The four roles of a node, each with the data that only it has (after toydb).

A follower cannot own a progress map, and a leader has no election to win: what a role does not
need does not exist. Roles are made and replaced only by `raftkv.raft.raft.Raft.become_*`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from raftkv.raft.messages import NodeId, Term
from raftkv.raft.progress import Progress
from raftkv.raft.read_only import ForwardedReads, ReadRounds


class Role(StrEnum):
    """The name of a role, for the host."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class SoftState:
    """What a restart need not know."""

    role: Role
    leader_id: NodeId | None
    term: Term


@dataclass(slots=True)
class Follower:
    """Replicates and votes. Also learners and nodes of no cluster are followers."""

    name: ClassVar[Role] = Role.FOLLOWER
    leader_id: NodeId | None = None  # of the current term; None: not heard of
    reads: ForwardedReads = field(default_factory=ForwardedReads)


@dataclass(slots=True)
class PreCandidate:
    """Asks whether it could win, without disturbing anybody's term (thesis 9.6)."""

    name: ClassVar[Role] = Role.PRE_CANDIDATE
    votes: dict[NodeId, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Candidate:
    """Asks for votes (paper 5.2)."""

    name: ClassVar[Role] = Role.CANDIDATE
    votes: dict[NodeId, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Transfer:
    """A leadership transfer under way (thesis 3.10)."""

    target: NodeId
    elapsed_ticks: int = 0


@dataclass(slots=True)
class Leader:
    """Replicates its log to all others."""

    name: ClassVar[Role] = Role.LEADER
    # Of every member, also of this node, and of those that are leaving; ascending by id.
    progress: dict[NodeId, Progress]
    peers: tuple[NodeId, ...]  # the others, ascending
    # Founding: entry 1@1 is the whole log and not committed yet (see the package docstring).
    is_founding: bool = False
    reads: ReadRounds = field(default_factory=ReadRounds)
    transfer: Transfer | None = None
    heartbeat_elapsed_ticks: int = 0
    is_heartbeat_due: bool = False  # sent by the next `Ready`, with its newest read round
    has_news: bool = False  # some peer may be sent an Append by the next `Ready`
    uncommitted_bytes: int = 0  # data of the entries above the commit index


RoleState = Follower | PreCandidate | Candidate | Leader
