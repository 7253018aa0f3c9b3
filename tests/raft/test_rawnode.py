"""The contract between RawNode and its host."""

from dataclasses import replace

import pytest

from raftkv.demo.cluster import (
    ELECTION_TICKS,
    Cluster,
    ShortestTimeouts,
    founded_cluster,
    make_conf,
    make_entry,
)
from raftkv.raft import (
    BootstrapRefused,
    Config,
    ConfState,
    DropReason,
    EntryId,
    HardState,
    ProgressState,
    ProposalDropped,
    RawNode,
    ReadDropped,
    Ready,
    Role,
)

CONFIG = Config(id=1, election_ticks=10, election_jitter_ticks=5, heartbeat_ticks=3)


def leading_cluster() -> Cluster:
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    return cluster


def new_node(config: Config = CONFIG) -> RawNode:
    return RawNode(
        config,
        hard_state=HardState(),
        base=EntryId(0, 0),
        base_conf=ConfState(),
        entries=(),
        applied=0,
        rng=ShortestTimeouts(),
    )


def test_ready_without_a_new_input_is_empty() -> None:
    node = new_node()
    assert not node.has_ready()
    assert node.ready() == Ready()
    node.bootstrap(make_conf([1, 2, 3]))
    assert node.has_ready()
    assert node.ready() != Ready()
    assert not node.has_ready()
    assert node.ready() == Ready()


def test_has_ready_says_what_ready_will_hold() -> None:
    cluster = leading_cluster()
    raft = cluster.raft(1)
    for make_input in (
        lambda: raft.propose(b"x"),
        lambda: raft.read_index(5),
        lambda: cluster.tick(1, ELECTION_TICKS),
    ):
        make_input()
        assert raft.has_ready()
        assert raft.ready() != Ready()
        assert not raft.has_ready()


def test_properties_of_a_leader() -> None:
    raft = leading_cluster().raft(1)
    assert (raft.id, raft.term, raft.vote, raft.role, raft.leader_id) == (1, 2, 1, Role.LEADER, 1)
    assert (raft.first_index, raft.last_index, raft.last_term) == (1, 2, 2)
    assert (raft.commit_index, raft.applied_index, raft.durable_index) == (2, 2, 2)
    assert raft.conf_state == make_conf([1, 2, 3])
    assert raft.config_index == 1
    assert raft.is_voter
    assert not raft.is_learner
    assert not raft.is_founding
    assert raft.transferee is None
    assert [raft.term_of(index) for index in range(4)] == [0, 1, 2, None]
    assert [entry.id for entry in raft.entries(1, 3)] == [EntryId(1, 1), EntryId(2, 2)]
    assert list(raft.progress) == [1, 2, 3]
    assert raft.progress[2].match == 2
    assert raft.progress[2].state is ProgressState.REPLICATE
    assert raft.progress[2].silent_ticks == 0


def test_properties_of_others() -> None:
    cluster = Cluster()
    conf = make_conf([1, 2], learners=[3])
    cluster.add_founded(conf, [1, 2, 3])
    cluster.elect(1)
    learner = cluster.raft(3)
    assert (learner.role, learner.leader_id) == (Role.FOLLOWER, 1)
    assert learner.is_learner
    assert not learner.is_voter
    assert learner.progress == {}
    assert cluster.raft(1).progress[3].is_learner


def test_soft_state_is_told_when_it_changes() -> None:
    node = new_node()
    node.bootstrap(make_conf([1]))
    soft_state = node.ready().soft_state
    assert soft_state is not None
    assert (soft_state.role, soft_state.leader_id, soft_state.term) == (Role.LEADER, 1, 1)
    assert node.ready().soft_state is None


def test_silent_peer_is_seen_by_its_ticks() -> None:
    cluster = leading_cluster()
    cluster.isolate([3], [1, 2])
    cluster.tick(1, 4)
    cluster.settle()
    assert cluster.raft(1).progress[2].silent_ticks == 0
    assert cluster.raft(1).progress[3].silent_ticks == 4


def test_proposal_names_its_entry() -> None:
    cluster = leading_cluster()
    assert cluster.raft(1).propose(b"x") == EntryId(term=2, index=3)
    assert cluster.raft(1).propose(b"y") == EntryId(term=2, index=4)


def test_refusals_say_why() -> None:
    cluster = leading_cluster()
    with pytest.raises(ProposalDropped) as dropped:
        cluster.raft(2).propose(b"x")
    assert dropped.value.reason is DropReason.NOT_LEADER
    cluster.isolate([2], [1, 3])
    cluster.raft(1).transfer_leader(2)
    assert cluster.raft(1).transferee == 2
    with pytest.raises(ProposalDropped) as dropped:
        cluster.raft(1).propose(b"x")
    assert dropped.value.reason is DropReason.TRANSFERRING
    with pytest.raises(ReadDropped):
        new_node().read_index(1)


@pytest.mark.parametrize(
    "conf",
    [
        make_conf([2, 3]),
        make_conf([1, 2], outgoing=[1]),
        ConfState(voters=(1, 2), sessions=((1, 1),)),
        ConfState(),
    ],
    ids=["not a voter", "joint", "no session", "empty"],
)
def test_bootstrap_refuses_a_configuration_that_cannot_found(conf: ConfState) -> None:
    node = new_node()
    with pytest.raises(BootstrapRefused):
        node.bootstrap(conf)
    assert (node.term, node.last_index) == (0, 0)


def test_transfer_is_for_another_voter_only() -> None:
    cluster = leading_cluster()
    for target in (1, 9):
        with pytest.raises(AssertionError):
            cluster.raft(1).transfer_leader(target)
    with pytest.raises(AssertionError):
        cluster.raft(2).transfer_leader(3)


def test_applying_what_was_not_handed_out_is_refused() -> None:
    node = founded_cluster(1).raft(1)
    with pytest.raises(AssertionError):
        node.applied(1)


def test_restart_above_a_compacted_log() -> None:
    conf = make_conf([1, 2, 3])
    node = RawNode(
        CONFIG,
        hard_state=HardState(term=4, vote=2, commit=7),
        base=EntryId(term=3, index=6),
        base_conf=conf,
        entries=(make_entry(7, 3), make_entry(8, 4)),
        applied=6,
        rng=ShortestTimeouts(),
    )
    assert (node.first_index, node.last_index, node.commit_index) == (7, 8, 7)
    assert node.conf_state == conf
    assert [entry.index for entry in node.ready().committed_entries] == [7]


@pytest.mark.parametrize(
    "change",
    [
        {"heartbeat_ticks": 10},
        {"heartbeat_ticks": 0},
        {"election_jitter_ticks": -1},
        {"inflight_appends_max": 0},
    ],
    ids=str,
)
def test_config_that_cannot_work_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"heartbeats|jitter"):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_nothing_is_expected_of_a_peer_that_has_the_whole_committed_log() -> None:
    cluster = leading_cluster()
    leader = cluster.raft(1)
    cluster.settle()
    assert [leader.expects_nothing_of(peer) for peer in (1, 2, 3, 9)] == [False, True, True, False]
    assert not cluster.raft(2).expects_nothing_of(1)
    leader.propose(b"x")
    assert not leader.expects_nothing_of(2)
    cluster.settle()
    assert leader.expects_nothing_of(2)
    # The window was full when it was committed: the peer is not told yet.
    leader.progress[3].commit_sent -= 1
    assert not leader.expects_nothing_of(3)
    leader.progress[3].commit_sent += 1
    leader.transfer_leader(2)
    assert not leader.expects_nothing_of(3)


def test_a_silent_peer_is_expected_to_speak() -> None:
    cluster = leading_cluster()
    cluster.settle()
    leader = cluster.raft(1)
    cluster.isolate([1, 2], [3])
    cluster.tick(1, ELECTION_TICKS)
    assert not leader.expects_nothing_of(3)
