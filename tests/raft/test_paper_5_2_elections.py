"""Paper 5.2: leader election."""

from itertools import pairwise, product
from random import Random

import pytest

from raftkv.demo.cluster import ELECTION_TICKS, HEARTBEAT_TICKS, founded_cluster
from raftkv.raft import PreVoteResp, Role, Vote, VoteResp


def test_follower_stays_one_while_it_hears_a_leader() -> None:
    """'A server remains in follower state as long as it receives valid RPCs.' (5.2)."""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    for _ in range(10 * ELECTION_TICKS):
        for node in (1, 2, 3):
            cluster.tick(node)
        cluster.settle()
    assert cluster.leader() == 1
    assert {cluster.raft(node).term for node in (1, 2, 3)} == {2}


def test_leader_sends_heartbeats_every_interval() -> None:
    """'Leaders send periodic heartbeats to all followers.' (5.2)."""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    cluster.tick(1, HEARTBEAT_TICKS - 1)
    assert cluster.raft(1).ready().messages == []
    cluster.tick(1)
    assert [message.receiver for message in cluster.raft(1).ready().messages] == [2, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_candidate_wins_with_a_majority(size: int) -> None:
    """'A candidate wins an election if it receives votes from a majority.' (5.2)."""
    for votes in product([True, False, None], repeat=size - 1):
        cluster = founded_cluster(*range(1, size + 1))
        raft = cluster.raft(1)
        raft.campaign()
        for voter in range(2, size + 1):
            if raft.role is Role.PRE_CANDIDATE:
                raft.step(PreVoteResp(voter, 1, 2, granted=True))
        for voter, granted in enumerate(votes, 2):
            if granted is not None:
                raft.step(VoteResp(voter, 1, 2, granted=granted))
        granted_count = 1 + votes.count(True)
        refused_count = votes.count(False)
        if 2 * granted_count > size:
            assert raft.role is Role.LEADER
        elif 2 * (size - refused_count) > size:
            assert raft.role is Role.CANDIDATE
        else:
            assert raft.role is Role.FOLLOWER


def test_each_server_votes_for_one_candidate_in_a_term() -> None:
    """'Each server will vote for at most one candidate in a given term, first come.' (5.2)."""
    cluster = founded_cluster(1, 2, 3)
    cluster.hand_over(Vote(2, 1, 5, 1, 1))
    cluster.hand_over(Vote(3, 1, 5, 1, 1))
    write = cluster.raft(1).ready().write
    assert write is not None
    assert write.messages == [
        VoteResp(1, 2, 5, granted=True),
        VoteResp(1, 3, 5, granted=False),
    ]
    assert write.hard_state is not None
    assert (write.hard_state.term, write.hard_state.vote) == (5, 2)


def test_election_timeouts_are_random_and_spread() -> None:
    """'Election timeouts are chosen randomly from a fixed interval.' (5.2)."""
    timeouts = set()
    for seed in range(40):
        cluster = founded_cluster(1, 2, 3, rng=Random(seed))
        ticks = 0
        while cluster.raft(1).role is Role.FOLLOWER:
            cluster.tick(1)
            ticks += 1
        timeouts.add(ticks)
    # The test cluster's jitter is as long as the base timeout.
    assert min(timeouts) >= ELECTION_TICKS
    assert max(timeouts) <= 2 * ELECTION_TICKS
    assert len(timeouts) > ELECTION_TICKS / 2


def test_timeout_is_drawn_anew_for_every_campaign() -> None:
    """'Each candidate restarts its randomized election timeout at the start of an election.'"""
    cluster = founded_cluster(1, 2, 3, rng=Random(1))
    campaigns = [0]
    for tick in range(1, 20 * ELECTION_TICKS):
        cluster.tick(1)
        if cluster.raft(1).ready().messages:
            campaigns.append(tick)
    gaps = {later - earlier for earlier, later in pairwise(campaigns)}
    assert len(gaps) > 3
