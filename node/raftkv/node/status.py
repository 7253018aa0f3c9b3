"""What a node says of itself: plain values for `/v1/status`, `/v1/cluster`, probes and metrics.

Made by `raftkv.node.node.Node`, rendered by the server. Reading them changes nothing.
"""

from enum import StrEnum

import msgspec

from raftkv.raft.messages import NodeId


class State(StrEnum):
    """Where the node is in its life (API contract, `/v1/status`)."""

    UNINITIALISED = "uninitialised"  # an empty volume: waits for bootstrap or to be added
    JOINING = "joining"  # knows its cluster, has not yet caught up since it started
    RUNNING = "running"
    DRAINING = "draining"
    FAILED = "failed"


class MemberReport(msgspec.Struct, frozen=True):
    """What a member last said of itself, asked because somebody looked (`raftkv.node.reports`)."""

    role: str  # as `Status.role`
    term: int
    last_log_index: int
    durable_index: int
    commit_index: int
    applied_index: int
    revision: int
    match_index: int | None  # what the leader knows it to hold; None: the leader has not said
    age_seconds: float


class RoleChange(msgspec.Struct, frozen=True):
    """From ``seconds_ago`` on, this node had another role, term or leader than before."""

    number: int  # counts from 1 in every life of the node: the same one is told with every answer
    role: str
    term: int
    leader_name: str | None
    seconds_ago: float


class MemberStatus(msgspec.Struct, frozen=True):
    """One member of the configuration, as this node sees it; only a leader knows the lag."""

    id: NodeId
    name: str
    peer_url: str
    client_url: str
    role: str  # "leader", "follower", "learner"
    voter: bool
    match_index: int | None  # None: not known here
    lag_entries: int | None  # leader's last index minus match; None: not known here
    last_contact_seconds: float | None  # since the member last answered this leader
    rtt_seconds: float | None  # of the last quorum round
    healthy: bool | None  # answered within an election timeout; None: not known here
    # Its state was found to differ from this node's at the same index: one of them is wrong.
    diverged: bool = False
    report: MemberReport | None = None  # None: it has said nothing since this node looks
    unanswered_seconds: float = 0.0  # for so long it has been asked for a report in vain


class Status(msgspec.Struct, frozen=True):
    """This node."""

    name: str
    member_id: NodeId
    cluster_id: str | None
    state: State
    role: str  # "leader", "follower", "pre_candidate", "candidate", "learner"
    term: int
    leader: NodeId | None
    leader_name: str | None
    commit_index: int
    applied_index: int
    first_log_index: int
    last_log_index: int
    durable_index: int
    revision: int
    db_bytes: int
    keys: int
    pending_requests: int
    is_voter: bool
    caught_up: bool  # applied what was committed when it last heard of a leader after starting
    seconds_since_leader: float | None  # None: has not known one since it started
    is_transferring: bool  # a leadership transfer away from this node is under way
    version: str
    # Was a member of its cluster, and left it for good: it may be shut down.
    removed: bool = False
    # What the state machine holds, the same on all nodes at the same revision.
    leases: int = 0  # with those of locks and of single keys
    locks: int = 0
    idempotency_records: int = 0
    idempotency_bytes: int = 0
    logical_bytes: int = 0  # what the quota is measured by
    compacted_revision: int = 0  # the oldest that can be read; 0: all can
    log_time_ms: int = 0
    quota_bytes: int = 0
    # Since this process began:
    idempotency_hits: int = 0  # answers of this node that told an earlier outcome again
    hash_mismatches: int = 0  # found between this node and a peer: see `ClusterStatus`
    # The newest snapshot on this node's disk:
    snapshot_index: int = 0  # its last entry; 0: there is none
    snapshot_age_seconds: float | None = None  # None: there is none, or of before the start
    snapshot_duration_seconds: float | None = None  # None: this process made none
    snapshot_error: str = ""  # why the last attempt failed; "" if it did not


class ClusterStatus(msgspec.Struct, frozen=True):
    """The configuration and its members, as this node sees them."""

    cluster_id: str | None
    leader: NodeId | None
    leader_name: str | None
    term: int
    config_index: int
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...]
    voters_outgoing: tuple[NodeId, ...]  # not empty: joint
    members: tuple[MemberStatus, ...]
    fault_tolerance: int | None  # voters that may still be lost; None: no leader known here
    state_hash: str  # hex chain hash of the state machine ...
    state_hash_index: int  # ... after applying this index
    auto_promote: tuple[NodeId, ...] = ()  # learners that will vote once they have caught up
    removed: tuple[NodeId, ...] = ()  # ids that left lately and are never used again
    hash_mismatches: int = 0  # found between this node and a peer since this process began
    role_changes: tuple[RoleChange, ...] = ()  # of this node, the oldest first: elections
