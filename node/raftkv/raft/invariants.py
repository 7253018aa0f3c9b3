"""What must hold of one node at any time, and between any two moments of its life.

Called by `raftkv.raft.rawnode.RawNode` after every call when ``Config.check_invariants`` is set,
as it is in the tests and in the simulation. A failure is a bug: AssertionError. What only
shows in a whole cluster (election safety, log matching, ...) is checked by the tests.

Source: LogCabin's ``RaftConsensusInvariants.cc`` with its checkBasic and checkDelta.
"""

from typing import TYPE_CHECKING

import msgspec

from raftkv.raft.messages import Index, NodeId, Term
from raftkv.raft.progress import ProgressState
from raftkv.raft.quorum import Quorum
from raftkv.raft.roles import Candidate, Follower, Leader, PreCandidate

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


class Observation(msgspec.Struct, frozen=True):
    """What `check_delta` compares: a node's state at one moment, by value."""

    term: Term
    vote: NodeId | None
    leader_id: NodeId | None
    is_leader: bool
    commit: Index
    applied: Index
    applying: Index
    first_index: Index
    last_index: Index
    commit_term: Term | None  # of the entry at ``commit``


def observe(raft: "Raft") -> Observation:
    """Take down the present state."""
    log = raft.log
    # By position: this is done after every call to the core.
    return Observation(
        raft.term,
        raft.vote,
        raft.leader_id,
        isinstance(raft.role, Leader),
        log.commit,
        log.applied,
        log.applying,
        log.first_index,
        log.last_index,
        log.term_of(log.commit),
    )


def check_basic(raft: "Raft") -> None:
    """Check one state. Costs a walk over the peers, not over the log."""
    log, role = raft.log, raft.role
    last_index = log.last_index
    assert log.base.index + log.entry_count == last_index
    assert log.base.index <= log.applied <= log.applying <= log.commit
    assert log.applying <= log.durable or log.is_installing
    assert log.config_index <= last_index
    assert log.commit <= last_index
    assert log.durable <= last_index
    assert log.base.term <= log.last_term <= raft.term
    assert raft.quorum == Quorum.of(log.conf_state)
    assert raft.vote is None or raft.term > 0
    match role:
        case Leader():
            assert raft.vote == raft.id
            _check_leader(raft, role)
        case Candidate():
            assert raft.vote == raft.id
            assert role.votes[raft.id]
        case PreCandidate():
            assert role.votes[raft.id]
        case Follower():
            assert role.leader_id != raft.id


def _check_leader(raft: "Raft", leader: Leader) -> None:
    log, ids = raft.log, raft.log.conf_state.ids
    last_index, inflights_max = log.last_index, raft.config.inflight_appends_max
    assert leader.progress[raft.id].match == log.durable, "a leader counts what is on its disk"
    assert leader.is_founding or log.last_term == raft.term, "a leader begins with a no-op"
    uncommitted = log.entries(log.commit + 1, last_index + 1) if leader.uncommitted_bytes else ()
    assert leader.uncommitted_bytes == sum(len(entry.data) for entry in uncommitted)
    for peer in leader.peers:
        progress = leader.progress[peer]
        in_flight = len(progress.inflights)
        assert 0 <= progress.match < progress.next <= last_index + 1
        assert progress.confirmed_round <= leader.reads.number
        assert in_flight <= inflights_max
        assert progress.state is ProgressState.REPLICATE or in_flight == 0
        assert (progress.leaves_at is None) is (peer in ids)
    assert leader.progress.keys() >= set(ids), "a member is not served"


def check_delta(before: Observation, now: Observation) -> None:
    """Check that ``now`` may follow ``before`` in one process's life."""
    assert now.term >= before.term
    assert now.commit >= before.commit
    assert now.applied >= before.applied
    assert now.applying >= before.applying
    assert now.first_index >= before.first_index
    if before.commit >= now.first_index and before.commit == now.commit:
        assert now.commit_term == before.commit_term, "a committed entry was replaced"
    if now.term != before.term:
        return
    if before.vote is not None:
        assert now.vote == before.vote, "a vote was changed within a term"
    if before.leader_id is not None and now.leader_id is not None:
        assert now.leader_id == before.leader_id, "two leaders in one term"
    if now.is_leader and before.is_leader:
        assert now.last_index >= before.last_index, "a leader only appends"
