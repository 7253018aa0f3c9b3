"""What a host sees of members that come and go, and of snapshots."""

import pytest

from raftkv.demo.cluster import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Cluster,
    ShortestTimeouts,
    founded_cluster,
    make_conf,
    make_entry,
    make_member,
)
from raftkv.raft import (
    AddLearner,
    Config,
    ConfState,
    DropReason,
    EntryId,
    HardState,
    InstallSnapshot,
    NodeId,
    ProposalDropped,
    RawNode,
    RemoveMember,
    ReplaceMember,
    Role,
    SnapshotBase,
)


def led_cluster(*voters: NodeId) -> Cluster:
    cluster = founded_cluster(*voters)
    cluster.elect(1)
    cluster.tick(1, HEARTBEAT_TICKS)
    cluster.settle()
    return cluster


def contacts(cluster: Cluster, node: NodeId) -> list[NodeId]:
    return [member.id for member in cluster.raft(node).contacts]


def behind(term: int = 1) -> RawNode:
    """n3 with the founding entry alone."""
    cluster = Cluster()
    cluster.add_with_log(3, [], term=0)
    cluster.add_founded(make_conf([1, 2, 3]), [3])
    raft = cluster.raft(3)
    assert raft.term == term
    return raft


def install(last: EntryId, *, term: int = 2, config_index: int = 1) -> InstallSnapshot:
    return InstallSnapshot(1, 3, term, 1, last, config_index, make_conf([1, 2, 3, 9]))


# ---- members --------------------------------------------------------------------------------


def test_everybody_stays_connected_to_all_other_members() -> None:
    cluster = led_cluster(1, 2, 3)
    assert contacts(cluster, 1) == [2, 3]
    cluster.raft(1).propose_config(AddLearner(make_member(4)))
    ready = cluster.raft(1).ready()
    assert ready.contacts == cluster.raft(1).contacts
    assert contacts(cluster, 1) == [2, 3, 4]
    assert cluster.raft(1).ready().contacts is None


def test_a_leader_stays_connected_to_a_removed_member_until_it_was_told() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle()
    assert contacts(cluster, 1) == [2, 3]
    assert contacts(cluster, 2) == [1]
    assert contacts(cluster, 3) == [1, 2]
    assert cluster.raft(3).is_removed
    for _ in range(ELECTION_TICKS):
        cluster.tick(1)
        cluster.settle()
    assert contacts(cluster, 1) == [2]
    assert list(cluster.raft(1).progress) == [1, 2]


def test_a_leader_that_steps_down_lets_go_of_removed_members() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle()
    cluster.raft(1).transfer_leader(2)
    cluster.settle()
    assert cluster.raft(2).role is Role.LEADER
    assert contacts(cluster, 1) == [2]


def test_a_removed_node_knows_it_after_a_restart_without_its_old_log() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle()
    cluster.hosts[3].take_snapshot()
    cluster.hosts[3].crash()
    cluster.hosts[3].start()
    assert cluster.raft(3).first_index == 4
    assert cluster.raft(3).is_removed
    assert not cluster.raft(1).is_removed


def test_a_node_that_is_not_a_member_yet_is_not_removed() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.add_empty([4])
    assert not cluster.raft(4).is_removed
    cluster.raft(1).propose_config(AddLearner(make_member(4)))
    cluster.settle()
    assert not cluster.raft(4).is_removed
    assert cluster.raft(4).is_learner


def test_a_leader_on_its_way_out_takes_no_proposals_and_hands_over() -> None:
    cluster = Cluster()
    cluster.add_founded(make_conf([1, 2, 3], learners=[4]), [1, 2, 3, 4])
    cluster.elect(1)
    cluster.tick(1, HEARTBEAT_TICKS)
    cluster.settle()
    # n3 gets the first half of its own replacement and wins the next election.
    cluster.raft(1).propose_config(ReplaceMember(3, 4))
    for node in (1, 2, 3, 4):
        cluster.settle([node])
    cluster.in_flight.clear()
    cluster.isolate([1], [2, 3, 4])
    cluster.tick(2, ELECTION_TICKS)
    cluster.tick(4, ELECTION_TICKS)
    cluster.take_ready(2)
    cluster.take_ready(4)
    cluster.in_flight.clear()
    cluster.raft(3).campaign()
    while cluster.raft(3).conf_state.is_joint:
        for node in (3, 2, 4):
            cluster.settle([node])
    assert cluster.raft(3).role is Role.LEADER
    with pytest.raises(ProposalDropped) as dropped:
        cluster.raft(3).propose(b"x")
    assert dropped.value.reason is DropReason.TRANSFERRING
    cluster.settle([2, 3, 4])
    assert cluster.leader() in {2, 4}
    assert cluster.raft(3).is_removed


# ---- snapshots ------------------------------------------------------------------------------


def test_compaction_while_a_snapshot_is_installed_changes_nothing() -> None:
    raft = behind()
    raft.ready()
    raft.step(install(EntryId(1, 7)))
    assert raft.is_installing
    raft.compact(7)
    raft.compact(1)
    assert (raft.first_index, raft.last_index) == (8, 7)


def test_a_host_may_report_what_it_applied_before_it_heard_of_the_install() -> None:
    raft = behind()
    (entry,) = raft.ready().committed_entries
    raft.step(install(EntryId(1, 7)))
    raft.applied(entry.index)
    assert raft.applied_index == 7


def test_the_second_of_two_installs_waits_for_the_write_of_the_first() -> None:
    raft = behind()
    raft.ready()
    raft.step(install(EntryId(1, 7)))
    write = raft.ready().write
    assert write is not None
    assert write.snapshot is not None
    assert write.snapshot.last == EntryId(1, 7)
    raft.step(install(EntryId(1, 9), config_index=8))
    assert raft.ready().write is None
    raft.persisted(write.number)
    assert (raft.is_installing, raft.durable_index) == (True, 0)
    second = raft.ready().write
    assert second is not None
    assert second.snapshot == SnapshotBase(EntryId(1, 9), 8, make_conf([1, 2, 3, 9]))
    raft.persisted(second.number)
    assert (raft.is_installing, raft.durable_index, raft.config_index) == (False, 9, 8)


def test_a_restart_between_snapshot_and_hard_state_takes_the_snapshots_term() -> None:
    raft = RawNode(
        Config(3, ELECTION_TICKS, 0, HEARTBEAT_TICKS, check_invariants=True),
        hard_state=HardState(2, 1, 4),
        base=EntryId(5, 9),
        base_conf=make_conf([1, 2, 3]),
        base_config_index=6,
        entries=(),
        applied=9,
        rng=ShortestTimeouts(),
    )
    assert (raft.term, raft.vote, raft.commit_index, raft.config_index) == (5, None, 9, 6)


def test_a_base_that_is_older_than_its_configuration_is_refused() -> None:
    with pytest.raises(AssertionError, match="younger"):
        RawNode(
            Config(3, ELECTION_TICKS, 0, HEARTBEAT_TICKS),
            hard_state=HardState(5, None, 9),
            base=EntryId(5, 9),
            base_conf=ConfState(voters=(3,)),
            base_config_index=10,
            entries=(make_entry(10, 5),),
            applied=9,
            rng=ShortestTimeouts(),
        )


def test_only_a_leader_speaks_for_a_snapshot() -> None:
    cluster = led_cluster(1, 2, 3)
    snapshot = cluster.hosts[1].take_snapshot()
    message = cluster.raft(1).install_message(2, snapshot)
    assert message == InstallSnapshot(1, 2, 2, 1, EntryId(2, 2), 1, snapshot.conf)
    assert cluster.raft(1).install_message(7, snapshot) is None
    assert cluster.raft(2).install_message(1, snapshot) is None


def test_reports_about_snapshots_of_nobody_change_nothing() -> None:
    cluster = led_cluster(1, 2, 3)
    for node in (1, 2):
        cluster.raft(node).snapshot_sent(7, 1)
        cluster.raft(node).snapshot_failed(7)
        cluster.raft(node).snapshot_failed(1)
        assert not cluster.raft(node).has_ready()


def test_log_bytes_follow_compaction() -> None:
    cluster = led_cluster(1, 2, 3)
    before = cluster.raft(1).log_bytes
    cluster.raft(1).propose(b"x" * 100)
    cluster.settle()
    assert cluster.raft(1).log_bytes == before + 100
    cluster.raft(1).compact(cluster.raft(1).last_index)
    assert cluster.raft(1).log_bytes == 0
