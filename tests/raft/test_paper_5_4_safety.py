"""Paper 5.4: the election restriction, and the commitment of entries of earlier terms."""

import pytest

from raftkv.demo.cluster import Cluster, make_conf, make_config_entry, make_entry
from raftkv.raft import Vote, VoteResp


def voter_with(terms: list[int]) -> Cluster:
    cluster = Cluster()
    entries = [make_config_entry(1, terms[0], make_conf([1, 2, 3]))]
    entries += [make_entry(index, term) for index, term in enumerate(terms[1:], 2)]
    cluster.add_with_log(1, entries)
    return cluster


@pytest.mark.parametrize(
    ("own_terms", "last_term", "last_index", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 1, 2, True),
        ([1, 1], 1, 1, False),
        ([1], 2, 1, True),
        ([1, 1], 2, 1, True),  # a later term beats a longer log
        ([2], 1, 9, False),
        ([1, 1, 1], 1, 2, False),
    ],
)
def test_voter_refuses_a_log_less_up_to_date_than_its_own(
    own_terms: list[int], last_term: int, last_index: int, granted: bool
) -> None:
    """'The voter denies its vote if its own log is more up-to-date.' (5.4.1)."""
    cluster = voter_with(own_terms)
    cluster.hand_over(Vote(2, 1, 9, last_term, last_index))
    write = cluster.raft(1).ready().write
    assert write is not None
    assert write.messages == [VoteResp(1, 2, 9, granted=granted)]


def test_refused_candidate_still_raises_the_term() -> None:
    """The vote is refused for the log, and the term is taken over all the same (5.1)."""
    cluster = voter_with([2, 2])
    cluster.hand_over(Vote(2, 1, 9, 1, 9))
    assert (cluster.raft(1).term, cluster.raft(1).vote) == (9, None)


def test_committed_entries_survive_every_single_crash_and_the_next_election() -> None:
    """Leader completeness (5.4.3): whoever of the rest wins has all that was committed."""
    for crashed in (1, 2, 3):
        cluster = Cluster()
        cluster.add_founded(make_conf([1, 2, 3]), [1, 2, 3])
        cluster.elect(1)
        cluster.isolate([3], [1, 2])
        entry_id = cluster.raft(1).propose(b"x")
        cluster.settle()
        assert cluster.raft(1).commit_index == entry_id.index
        cluster.cut.clear()
        cluster.hosts[crashed].crash()
        for _ in range(60):
            for host in cluster.up():
                host.raft.tick()
            cluster.settle()
        leader = cluster.leader()
        assert leader is not None
        assert cluster.raft(leader).term_of(entry_id.index) == entry_id.term
        for host in cluster.up():
            assert b"x" in [entry.data for entry in host.applied]
