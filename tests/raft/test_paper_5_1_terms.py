"""Paper 5.1: terms are a logical clock that every message carries."""

import pytest

from raftkv.demo.cluster import founded_cluster
from raftkv.raft import Append, Heartbeat, Message, ReadIndex, Role, Vote, VoteResp


@pytest.mark.parametrize(
    "message",
    [
        Append(2, 1, 7, 1, 1, 1, 1, ()),
        Heartbeat(2, 1, 7, 1, 1, 0),
        VoteResp(2, 1, 7, granted=False),
        ReadIndex(2, 1, 7, 5),
    ],
    ids=lambda message: type(message).__name__,
)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER])
def test_larger_term_makes_anybody_a_follower(role: Role, message: Message) -> None:
    """'If one server's current term is smaller than the other's, then it updates.' (5.1)."""
    cluster = founded_cluster(1, 2, 3)
    if role is Role.LEADER:
        cluster.elect(1)
    elif role is Role.PRE_CANDIDATE:
        cluster.raft(1).campaign()
    assert cluster.raft(1).role is role
    cluster.hand_over(message)
    assert cluster.raft(1).role is Role.FOLLOWER
    assert cluster.raft(1).term == 7
    assert cluster.raft(1).vote is None


def test_stale_request_is_rejected() -> None:
    """'If a server receives a request with a stale term number, it rejects the request.'"""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    cluster.hand_over(Vote(3, 1, 1, 0, 0))
    assert cluster.raft(1).role is Role.LEADER
    (answer,) = cluster.raft(1).ready().messages
    assert answer == VoteResp(1, 3, 2, granted=False)


def test_stale_answer_is_ignored() -> None:
    """An answer of an earlier term says nothing about this one."""
    cluster = founded_cluster(1, 2, 3)
    cluster.raft(1).campaign()
    cluster.hand_over(VoteResp(2, 1, 0, granted=True))
    assert cluster.raft(1).role is Role.PRE_CANDIDATE
    assert not [m for m in cluster.raft(1).ready().messages if m.receiver == 2 and m.term == 0]
