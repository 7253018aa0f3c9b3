"""Paper 5.3: log replication, among it the six logs of figure 7."""

import pytest

from raftkv.demo.cluster import (
    Cluster,
    founded_cluster,
    make_conf,
    make_config_entry,
    make_entry,
)
from raftkv.raft import EntryId

LEADER_TERMS = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
# Figure 7: what followers may look like when the leader above comes to power in term 8.
FIGURE_7 = {
    "a, entry missing": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b, many missing": [1, 1, 1, 4],
    "c, one extra": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d, extra of a later term": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e, missing and extra": [1, 1, 1, 4, 4, 4, 4],
    "f, extra of earlier terms": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


def add(cluster: Cluster, node: int, terms: list[int], term: int) -> None:
    conf = make_conf([1, 2, 3])
    entries = [make_config_entry(1, 1, conf)]
    entries += [make_entry(index, entry_term) for index, entry_term in enumerate(terms[1:], 2)]
    cluster.add_with_log(node, entries, term=term, commit=1)


@pytest.mark.parametrize("terms", FIGURE_7.values(), ids=FIGURE_7)
def test_leader_brings_every_log_of_figure_7_to_its_own(terms: list[int]) -> None:
    """'The leader forces the followers' logs to duplicate its own.' (5.3, fig. 7)."""
    cluster = Cluster()
    add(cluster, 1, LEADER_TERMS, term=7)
    add(cluster, 2, terms, term=7)
    add(cluster, 3, [1], term=7)  # the third, which lets node 1 win
    cluster.raft(1).campaign()
    cluster.settle([1, 3])
    assert cluster.leader() == 1
    cluster.settle()
    for _ in range(2):
        cluster.tick(1, 3)
        cluster.settle()
    leader, follower = cluster.raft(1), cluster.raft(2)
    assert leader.term == 8
    assert follower.entries(1, follower.last_index + 1) == leader.entries(1, leader.last_index + 1)
    assert follower.commit_index == leader.commit_index == 11


def test_committed_entry_is_applied_by_all_in_log_order() -> None:
    """'Once a follower learns that a log entry is committed, it applies it (in log order).'"""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    for text in (b"a", b"b", b"c"):
        cluster.raft(1).propose(text)
        cluster.settle()
    for node in (1, 2, 3):
        applied = [entry.data for entry in cluster.hosts[node].applied]
        assert applied[-3:] == [b"a", b"b", b"c"]
        assert [entry.index for entry in cluster.hosts[node].applied] == [1, 2, 3, 4, 5]


def test_slow_follower_does_not_hold_up_the_rest() -> None:
    """'A minority of slow servers need not impact overall system performance.' (2)."""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    cluster.isolate([3], [1, 2])
    entry_id = cluster.raft(1).propose(b"x")
    cluster.settle()
    assert entry_id == EntryId(2, 3)
    assert cluster.raft(1).commit_index == cluster.raft(2).commit_index == 3
    cluster.cut.clear()
    for _ in range(2):
        cluster.tick(1, 3)
        cluster.settle()
    assert cluster.raft(3).commit_index == 3


def test_leader_never_overwrites_its_own_entries() -> None:
    """Leader append-only (fig. 3)."""
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    cluster.raft(1).propose(b"x")
    before = cluster.raft(1).entries(1, 4)
    cluster.hand_over(cluster.raft(1).ready().messages[0])  # to node 2
    cluster.settle()
    assert cluster.raft(1).entries(1, 4) == before
