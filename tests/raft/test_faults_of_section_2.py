"""The bugs of other Rafts (reference/faults.md, section 2), rules 1 to 8, on live nodes."""

import pytest

from raftkv.demo.cluster import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Cluster,
    founded_cluster,
    make_conf,
    make_member,
)
from raftkv.raft import (
    AddLearner,
    AppendResp,
    ConfigChangeRefused,
    Heartbeat,
    HeartbeatResp,
    PreVote,
    PromoteLearner,
    RefusalReason,
    RemoveMember,
    ReplaceMember,
    Role,
    Vote,
)


def led_cluster(*voters: int, learners: tuple[int, ...] = (), **limits: int) -> Cluster:
    """A cluster that n1 leads, and whose members it has all heard of."""
    cluster = Cluster(settings=limits)
    cluster.add_founded(make_conf(voters, learners), [*voters, *learners])
    cluster.elect(1)
    beat(cluster)
    return cluster


def beat(cluster: Cluster, node: int = 1, ids: list[int] | None = None) -> None:
    cluster.tick(node, HEARTBEAT_TICKS)
    cluster.settle(ids)


def refused(cluster: Cluster, node: int, change: object) -> RefusalReason:
    before = cluster.raft(node).last_index
    with pytest.raises(ConfigChangeRefused) as error:
        cluster.raft(node).propose_config(change)  # type: ignore[arg-type]
    assert cluster.raft(node).last_index == before
    return error.value.reason


def test_faults_2_rule_1_no_change_before_a_commit_of_the_own_term() -> None:
    cluster = founded_cluster(1, 2, 3)
    cluster.raft(1).campaign()
    while cluster.raft(1).role is not Role.LEADER:
        cluster.take_ready(1)
        if cluster.hosts[1].write:
            cluster.finish_write(1)
        cluster.settle([2, 3])
        for message in [m for m in cluster.in_flight if m.receiver == 1]:
            cluster.deliver(message)
    # All of the log of earlier leaders is committed; of its own term nothing is.
    assert cluster.raft(1).commit_index == cluster.raft(1).last_index - 1
    for change in (AddLearner(make_member(4)), RemoveMember(2)):
        assert refused(cluster, 1, change) is RefusalReason.NOT_READY
    cluster.settle()
    cluster.raft(1).propose_config(AddLearner(make_member(4)))


def test_faults_2_rule_1_a_founder_changes_nothing_before_it_has_founded() -> None:
    cluster = Cluster()
    cluster.add_empty([1, 2])
    cluster.raft(1).bootstrap(make_conf([1, 2]))
    assert refused(cluster, 1, AddLearner(make_member(3))) is RefusalReason.NOT_READY


def test_faults_2_rule_2_at_most_one_configuration_is_not_committed() -> None:
    cluster = led_cluster(1, 2, 3, learners=(4,))
    cluster.raft(1).propose_config(AddLearner(make_member(5)))
    for change in (AddLearner(make_member(6)), PromoteLearner(4), ReplaceMember(3, 4)):
        assert refused(cluster, 1, change) is RefusalReason.CHANGE_IN_PROGRESS
    cluster.settle()
    cluster.raft(1).propose_config(ReplaceMember(3, 4))
    assert refused(cluster, 1, RemoveMember(2)) is RefusalReason.CHANGE_IN_PROGRESS
    cluster.settle()
    assert not cluster.raft(1).conf_state.is_joint


def test_faults_2_rule_2_a_snapshot_carries_the_configuration_and_its_index() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.add_empty([4])
    cluster.raft(1).propose_config(AddLearner(make_member(4)))
    cluster.raft(1).propose(b"x")
    cluster.settle([1, 2, 3])
    cluster.raft(1).compact(cluster.raft(1).applied_index)
    cluster.in_flight.clear()
    beat(cluster)
    beat(cluster)
    learner = cluster.raft(4)
    assert learner.first_index > 1
    assert learner.conf_state == cluster.raft(1).conf_state
    assert learner.config_index == cluster.raft(1).config_index == 3
    assert learner.conf_at(learner.first_index - 1) == (3, learner.conf_state)
    # And through a restart.
    cluster.hosts[4].crash()
    cluster.hosts[4].start()
    assert cluster.raft(4).config_index == 3


def test_faults_2_rule_3_a_rejoined_node_is_not_believed_for_its_former_life() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.raft(1).propose(b"x")
    cluster.settle()
    assert cluster.raft(1).progress[3].match == 3
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle([1, 2])
    cluster.raft(1).propose_config(AddLearner(make_member(3), rejoins=True))
    progress = cluster.raft(1).progress[3]
    assert (progress.match, progress.session, progress.has_spoken) == (0, 5, False)
    # Delayed answers of the first membership.
    cluster.raft(1).step(AppendResp(3, 1, 2, 1, match=4))
    cluster.raft(1).step(AppendResp(3, 1, 2, 1, match=0, rejected_index=4))
    cluster.raft(1).step(HeartbeatResp(3, 1, 2, 1, round=0))
    assert (progress.match, progress.has_spoken) == (0, False)
    assert cluster.raft(1).dropped_messages == 3


def test_faults_2_rule_4_an_id_is_never_used_again() -> None:
    cluster = led_cluster(1, 2, 3, learners=(4,))
    cluster.raft(1).propose_config(RemoveMember(4))
    cluster.settle()
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle()
    assert cluster.raft(1).conf_state.removed == (4, 3)
    for removed in (3, 4):
        change = AddLearner(make_member(removed))
        assert refused(cluster, 1, change) is RefusalReason.ID_REUSED
        assert cluster.raft(removed).is_removed


def test_faults_2_rule_4_a_removed_member_may_come_back_with_its_own_disk() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle()
    cluster.hosts[3].crash()
    for value in (b"while", b"it", b"was", b"away"):
        cluster.raft(1).propose(value)
        cluster.settle([1, 2])
    for node in (1, 2):  # what it lacks comes in a snapshot
        cluster.raft(node).compact(cluster.raft(node).applied_index)
    cluster.hosts[3].start()
    assert cluster.raft(3).is_removed
    cluster.raft(1).propose_config(AddLearner(make_member(3), rejoins=True))
    assert cluster.raft(1).conf_state.removed == ()
    for _ in range(3):
        beat(cluster)
        for host in cluster.up():
            cluster.send_wanted_snapshots(host)
    assert not cluster.raft(3).is_removed
    assert cluster.raft(3).applied_index == cluster.raft(1).applied_index
    cluster.raft(1).propose_config(PromoteLearner(3))
    cluster.settle()
    assert cluster.raft(2).conf_state.voters == (1, 2, 3)
    assert cluster.raft(3).conf_state == cluster.raft(1).conf_state
    # It is a voter like the others.
    cluster.raft(1).transfer_leader(3)
    cluster.settle()
    assert cluster.raft(3).role is Role.LEADER


def test_faults_2_rule_5_an_empty_node_neither_votes_nor_campaigns_under_a_lost_ones_id() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.hosts.pop(3)
    cluster.add_empty([3])
    wiped = cluster.raft(3)
    wiped.step(Vote(2, 3, 9, 2, 2))
    wiped.step(PreVote(2, 3, 9, 2, 2))
    cluster.tick(3, 3 * ELECTION_TICKS)
    cluster.settle([3])
    assert cluster.in_flight == []
    assert (wiped.term, wiped.vote) == (0, None)
    # Its leader notices: what it says it holds is gone, and such a node must stop.
    with pytest.raises(AssertionError, match="acknowledged its log up to 2"):
        wiped.step(Heartbeat(1, 3, 2, 1, commit=2, round=0))


def test_faults_2_rule_6_a_voter_begins_as_learner_and_has_caught_up() -> None:
    cluster = led_cluster(1, 2, 3, promote_lag_entries_max=2)
    cluster.add_empty([4])
    cluster.raft(1).propose_config(AddLearner(make_member(4), promote_when_caught_up=True))
    cluster.settle([1, 2, 3])
    assert cluster.raft(1).conf_state.learners == (4,)
    assert refused(cluster, 1, PromoteLearner(4)) is RefusalReason.LEARNER_LAGS
    assert refused(cluster, 1, ReplaceMember(3, 4)) is RefusalReason.LEARNER_LAGS
    assert cluster.raft(1).learners_to_promote() == []
    beat(cluster)
    assert cluster.raft(1).learners_to_promote() == [4]
    # Two entries short of the end is near enough, three are not.
    for lag, expected in ((2, [4]), (3, [])):
        while cluster.raft(1).last_index < cluster.raft(1).progress[4].match + lag:
            cluster.raft(1).propose(b"x")
        assert cluster.raft(1).learners_to_promote() == expected
    cluster.settle()
    cluster.raft(1).propose_config(PromoteLearner(4))
    cluster.settle()
    assert cluster.raft(4).is_voter
    assert cluster.raft(1).learners_to_promote() == []


def test_faults_2_rule_6_nobody_but_a_ready_leader_is_asked_to_promote() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.add_empty([4])
    cluster.raft(1).propose_config(AddLearner(make_member(4), promote_when_caught_up=True))
    cluster.settle()
    beat(cluster)
    assert cluster.raft(1).learners_to_promote() == [4]
    assert cluster.raft(2).learners_to_promote() == []
    cluster.isolate([3], [1, 2, 4])
    cluster.raft(1).transfer_leader(3)
    assert cluster.raft(1).learners_to_promote() == []


def test_faults_2_rule_7_a_removed_node_raises_nobodys_term() -> None:
    cluster = led_cluster(1, 2, 3)
    cluster.isolate([3], [1, 2])
    cluster.raft(1).propose_config(RemoveMember(3))
    cluster.settle([1, 2])
    cluster.cut.clear()
    for _ in range(4 * ELECTION_TICKS):
        for node in (1, 2, 3):
            cluster.tick(node)
        cluster.settle()
    assert [cluster.raft(node).term for node in (1, 2, 3)] == [2, 2, 2]
    assert cluster.raft(1).role is Role.LEADER


def test_faults_2_rule_8_a_leader_needs_a_quorum_of_the_configuration_in_force() -> None:
    # Of the four that vote since n4's promotion, two are not enough, though two of three were.
    cluster = led_cluster(1, 2, 3, learners=(4,))
    cluster.raft(1).propose_config(PromoteLearner(4))
    cluster.settle()
    cluster.isolate([1, 2], [3, 4])
    for _ in range(2 * ELECTION_TICKS):
        cluster.tick(1)
        cluster.settle([1, 2])
    assert cluster.raft(1).role is not Role.LEADER


def test_a_voter_without_any_data_carries_no_quorum() -> None:
    """n2 answers, but the founder never reached it: it does not vote yet.

    Had n3 been removed, and the leader stepped down with that entry alone, nobody could be elected.
    """
    cluster = Cluster()
    cluster.add_founded(make_conf([1, 2, 3]), [1, 3])
    cluster.add_empty([2])
    cluster.isolate([2], [1, 3])
    cluster.elect(1)
    beat(cluster)
    cluster.cut.clear()
    cluster.tick(1, HEARTBEAT_TICKS)
    cluster.take_ready(1)
    cluster.settle([2, 3])
    for answer in [m for m in cluster.in_flight if isinstance(m, HeartbeatResp)]:
        cluster.deliver(answer)
    assert cluster.raft(1).progress[2].is_heard(ELECTION_TICKS)
    assert refused(cluster, 1, RemoveMember(3)) is RefusalReason.WOULD_LOSE_QUORUM
    cluster.settle()
    beat(cluster)
    cluster.raft(1).propose_config(RemoveMember(3))
