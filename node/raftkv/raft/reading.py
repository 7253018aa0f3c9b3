"""Linearizable reads by ReadIndex, the leader's and the follower's end (thesis 6.4).

Free functions called by `raftkv.raft.raft.Raft` and `raftkv.raft.replication`. The bookkeeping is
`raftkv.raft.read_only`; why a round proves what it proves is said there.
"""

from typing import TYPE_CHECKING, assert_never

from raftkv.raft.errors import ReadDropped
from raftkv.raft.messages import ReadIndex, ReadIndexResp
from raftkv.raft.read_only import ReadRequest, ReadState
from raftkv.raft.roles import Candidate, Follower, Leader, PreCandidate

if TYPE_CHECKING:
    from raftkv.raft.raft import Raft


def read_index(raft: "Raft", context: int) -> None:
    """The host asks. Raises `ReadDropped` when no leader is known."""
    match raft.role:
        case Leader():
            raft.role.reads.waiting.append(ReadRequest(context, None))
        case Follower(leader_id=int(leader_id)):
            raft.role.reads.add(context)
            raft.send(ReadIndex(raft.id, leader_id, raft.term, context))
        case Follower() | PreCandidate() | Candidate():
            raise ReadDropped("no leader is known")
        case _:
            assert_never(raft.role)


def on_read_index(raft: "Raft", question: ReadIndex) -> None:
    """A follower asks."""
    if isinstance(raft.role, Leader):
        raft.role.reads.waiting.append(ReadRequest(question.context, question.sender))
    else:
        answer = ReadIndexResp(raft.id, question.sender, raft.term, question.context, None)
        raft.send(answer)


def on_read_index_resp(raft: "Raft", answer: ReadIndexResp) -> None:
    """The leader answered, or could not."""
    follower = raft.role
    if not isinstance(follower, Follower) or follower.leader_id != answer.sender:
        return
    if follower.reads.take(answer.context):
        if answer.index is None:
            raft.reads_dropped.append(answer.context)
        else:
            raft.read_states.append(ReadState(answer.context, answer.index))


def can_begin_round(raft: "Raft", leader: Leader) -> bool:
    """Whether reads wait, and the commit index is good enough to answer them."""
    return bool(leader.reads.waiting) and raft.has_committed_in_term


def begin_round(raft: "Raft", leader: Leader) -> None:
    """Begin one round for all reads that wait, by making heartbeats due."""
    if can_begin_round(raft, leader):
        leader.reads.begin(raft.log.commit)
        leader.is_heartbeat_due = True
        answer_confirmed(raft, leader)  # a single voter is its own quorum


def answer_confirmed(raft: "Raft", leader: Leader) -> None:
    """Answer the reads of every round that a quorum echoed."""
    reads, progress = leader.reads, leader.progress
    if not reads.is_under_way:
        return
    confirmed = raft.quorum.agreed_value(
        lambda voter: reads.number if voter == raft.id else progress[voter].confirmed_round
    )
    for read_round in reads.take_confirmed(confirmed):
        for request in read_round.requests:
            if request.requester is None:
                raft.read_states.append(ReadState(request.context, read_round.index))
            else:
                raft.send(
                    ReadIndexResp(
                        raft.id, request.requester, raft.term, request.context, read_round.index
                    )
                )
