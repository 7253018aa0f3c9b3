"""Changes of the configuration, as pure values: what comes out, and that majorities overlap."""

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.demo.cluster import make_conf, make_member
from raftkv.raft import (
    AddLearner,
    ConfigChange,
    ConfigChangeRefused,
    ConfState,
    LeaveJoint,
    Member,
    PromoteLearner,
    RefusalReason,
    RemoveMember,
    ReplaceMember,
    decode_conf_state,
    decode_config_change,
    encode_conf_state,
    encode_config_change,
    next_conf_state,
)
from raftkv.raft.confchange import (
    LEARNERS_MAX,
    REMOVED_MAX,
    VOTERS_MAX,
    Outlook,
    check_change,
)
from raftkv.raft.quorum import Quorum

ALL = frozenset(range(1, 40))


def outlook(
    leader: int = 1,
    *,
    healthy: frozenset[int] = ALL,
    silent: frozenset[int] = frozenset(),
    caught_up: frozenset[int] = ALL,
) -> Outlook:
    return Outlook(leader, healthy - silent, silent, caught_up - silent)


def refusal(
    conf: ConfState, change: ConfigChange, seen: Outlook | None = None
) -> RefusalReason | None:
    try:
        check_change(conf, change, seen or outlook())
    except ConfigChangeRefused as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "change",
    [
        AddLearner(make_member(4), promote_when_caught_up=True),
        PromoteLearner(4),
        RemoveMember(4),
        ReplaceMember(3, 4),
        LeaveJoint(),
    ],
    ids=lambda change: type(change).__name__,
)
def test_changes_survive_their_encoding(change: ConfigChange) -> None:
    assert decode_config_change(encode_config_change(change)) == change


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91\x09", b"\x91\x02", b"\x92\x02\xa1x", b"\x01"]
)
def test_garbage_is_no_change(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_config_change(data)


def test_a_configuration_of_an_older_version_is_read() -> None:
    old = msgspec.msgpack.encode([[1, 2], [], [], [], False, [], [[1, 1], [2, 1]]])
    assert decode_conf_state(old) == ConfState(voters=(1, 2), sessions=((1, 1), (2, 1)))


# ---- what comes out -------------------------------------------------------------------------


def test_a_learner_is_added_with_the_session_of_its_entry() -> None:
    conf = next_conf_state(make_conf([1, 2, 5]), AddLearner(make_member(3), True), 17)
    assert (conf.voters, conf.learners, conf.auto_promote) == ((1, 2, 5), (3,), (3,))
    assert conf.sessions == ((1, 1), (2, 1), (3, 17), (5, 1))
    assert [member.id for member in conf.members] == [1, 2, 3, 5]


def test_rule_14_a_promotion_keeps_the_session() -> None:
    learning = next_conf_state(make_conf([1, 5]), AddLearner(make_member(3), True), 17)
    conf = next_conf_state(learning, PromoteLearner(3), 20)
    assert (conf.voters, conf.learners, conf.auto_promote) == ((1, 3, 5), (), ())
    assert conf.sessions == learning.sessions


def test_a_removed_member_leaves_nothing_but_its_id() -> None:
    conf = next_conf_state(make_conf([1, 2, 3], learners=[4]), RemoveMember(4), 9)
    conf = next_conf_state(conf, RemoveMember(2), 10)
    assert conf == msgspec.structs.replace(make_conf([1, 3]), removed=(4, 2))


def test_removed_ids_are_bounded_and_the_oldest_go() -> None:
    conf = msgspec.structs.replace(
        make_conf([1, 2], learners=[3]), removed=tuple(range(100, 100 + REMOVED_MAX))
    )
    removed = next_conf_state(conf, RemoveMember(3), 9).removed
    assert removed == (*range(101, 100 + REMOVED_MAX), 3)


def test_rule_14_a_replacement_is_one_joint_change() -> None:
    before = make_conf([1, 2, 3], learners=[4])
    joint = next_conf_state(before, ReplaceMember(3, 4), 9)
    assert (joint.voters, joint.voters_outgoing) == ((1, 2, 4), (1, 2, 3))
    assert (joint.learners, joint.auto_leave, joint.removed) == ((), True, ())
    assert joint.members == before.members
    after = next_conf_state(joint, LeaveJoint(), 10)
    assert after == msgspec.structs.replace(make_conf([1, 2, 4]), removed=(3,))


def test_leaving_turns_voters_into_learners_that_are_to_be() -> None:
    joint = msgspec.structs.replace(make_conf([1, 2], outgoing=[1, 3]), learners_next=(3,))
    assert next_conf_state(joint, LeaveJoint(), 9) == make_conf([1, 2], learners=[3])


def test_changes_that_do_not_fit_are_the_callers_fault() -> None:
    conf, joint = make_conf([1, 2], learners=[3]), make_conf([1, 2], outgoing=[1, 3])
    for before, change in (
        (conf, LeaveJoint()),
        (joint, RemoveMember(1)),
        (conf, AddLearner(make_member(2))),
        (conf, PromoteLearner(2)),
        (conf, RemoveMember(7)),
        (conf, ReplaceMember(3, 3)),
        (conf, ReplaceMember(1, 2)),
    ):
        with pytest.raises(AssertionError):
            next_conf_state(before, change, 9)


def majorities(conf: ConfState) -> list[set[int]]:
    """Every set of members that may decide."""
    quorum, ids = Quorum.of(conf), conf.ids
    subsets = (set(s) for size in range(1, len(ids) + 1) for s in combinations(ids, size))
    return [subset for subset in subsets if quorum.is_reached(subset.__contains__)]


def draw_change(conf: ConfState, data: Any, index: int) -> ConfigChange | None:
    if conf.is_joint:
        return LeaveJoint()
    changes: list[ConfigChange] = []
    if len(conf.ids) < 7:
        changes.append(AddLearner(make_member(100 + index)))
    changes += map(PromoteLearner, conf.learners)
    changes += map(RemoveMember, conf.ids)
    changes += [ReplaceMember(old, new) for old in conf.voters for new in conf.learners]
    sensible = [c for c in changes if refusal(conf, c, outlook(leader=0, healthy=ALL_IDS)) is None]
    chosen: ConfigChange | None = data.draw(st.sampled_from(sensible)) if sensible else None
    return chosen


ALL_IDS = frozenset(range(200))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data(), size=st.integers(1, 5))
def test_rule_13_majorities_of_adjacent_configurations_overlap(data: Any, size: int) -> None:
    conf = make_conf(range(1, size + 1))
    for index in range(2, 9):
        seen = Outlook(0, ALL_IDS, frozenset(), ALL_IDS)
        change = draw_change(conf, data, index)
        if change is None:
            return
        check_change(conf, change, seen)
        after = next_conf_state(conf, change, index)
        assert decode_conf_state(encode_conf_state(after)) == after
        for majority in majorities(conf):
            assert all(majority & other for other in majorities(after))
        # Every member is described and has a session; nobody is in two sets of one half.
        assert [member for member, _ in after.sessions] == list(after.ids)
        assert [member.id for member in after.members] == list(after.ids)
        assert not set(after.voters) & set(after.learners)
        assert not set(after.ids) & set(after.removed)
        assert set(after.auto_promote) <= set(after.learners)
        conf = after


# ---- what speaks against it -----------------------------------------------------------------

CONF = msgspec.structs.replace(make_conf([1, 2, 3], learners=[4]), removed=(9,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (AddLearner(make_member(5)), None),
        (AddLearner(make_member(2, "x")), RefusalReason.ALREADY_MEMBER),
        (AddLearner(make_member(5, "n2")), RefusalReason.ALREADY_MEMBER),
        (AddLearner(Member(5, "x", "n2:7401", "")), RefusalReason.ALREADY_MEMBER),
        (AddLearner(make_member(9)), RefusalReason.ID_REUSED),
        (AddLearner(make_member(0)), RefusalReason.INVALID_MEMBER),
        (AddLearner(make_member(1 << 64)), RefusalReason.INVALID_MEMBER),
        (AddLearner(Member(5, "", "x:1", "")), RefusalReason.INVALID_MEMBER),
        (AddLearner(Member(5, "x", "", "")), RefusalReason.INVALID_MEMBER),
        (PromoteLearner(4), None),
        (PromoteLearner(2), RefusalReason.NOT_A_LEARNER),
        (PromoteLearner(7), RefusalReason.UNKNOWN_MEMBER),
        (RemoveMember(2), None),
        (RemoveMember(4), None),
        (RemoveMember(7), RefusalReason.UNKNOWN_MEMBER),
        (RemoveMember(1), RefusalReason.LEADER_ITSELF),
        (ReplaceMember(2, 4), None),
        (ReplaceMember(7, 4), RefusalReason.UNKNOWN_MEMBER),
        (ReplaceMember(2, 7), RefusalReason.UNKNOWN_MEMBER),
        (ReplaceMember(4, 4), RefusalReason.NOT_A_VOTER),
        (ReplaceMember(2, 3), RefusalReason.NOT_A_LEARNER),
        (ReplaceMember(1, 4), RefusalReason.LEADER_ITSELF),
        (LeaveJoint(), RefusalReason.NOT_JOINT),
    ],
    ids=repr,
)
def test_what_is_refused_of_a_healthy_cluster(
    change: ConfigChange, reason: RefusalReason | None
) -> None:
    assert refusal(CONF, change) == reason


@pytest.mark.parametrize(
    ("silent", "change", "reason"),
    [
        ({2}, RemoveMember(2), None),
        ({2}, RemoveMember(3), RefusalReason.WOULD_LOSE_QUORUM),
        ({2}, RemoveMember(4), None),
        ({2}, PromoteLearner(4), None),
        ({2, 3}, PromoteLearner(4), RefusalReason.WOULD_LOSE_QUORUM),
        ({2}, ReplaceMember(2, 4), None),
        ({2}, ReplaceMember(3, 4), None),
        ({2, 3}, ReplaceMember(3, 4), RefusalReason.WOULD_LOSE_QUORUM),
        ({4}, ReplaceMember(3, 4), RefusalReason.LEARNER_LAGS),
        ({4}, PromoteLearner(4), RefusalReason.LEARNER_LAGS),
        ({2, 3}, AddLearner(make_member(5)), None),
        ({2}, AddLearner(make_member(5, "n2")), None),
    ],
    ids=repr,
)
def test_what_is_refused_while_members_are_silent(
    silent: set[int], change: ConfigChange, reason: RefusalReason | None
) -> None:
    assert refusal(CONF, change, outlook(silent=frozenset(silent))) == reason


def test_rule_14_a_learner_that_lags_is_not_promoted() -> None:
    seen = outlook(caught_up=frozenset({2, 3}))
    assert refusal(CONF, PromoteLearner(4), seen) is RefusalReason.LEARNER_LAGS
    assert refusal(CONF, ReplaceMember(3, 4), seen) is RefusalReason.LEARNER_LAGS


def test_a_member_not_heard_of_yet_is_neither_silent_nor_healthy() -> None:
    # A leader that was just elected: it does not know that n3 lives, nor that it does not.
    seen = Outlook(1, frozenset({1, 2}), frozenset(), frozenset({2}))
    assert refusal(CONF, AddLearner(make_member(5, "n3")), seen) is RefusalReason.ALREADY_MEMBER
    assert refusal(CONF, RemoveMember(2), seen) is RefusalReason.WOULD_LOSE_QUORUM


def test_the_last_voter_stays() -> None:
    conf = make_conf([1], learners=[4])
    assert refusal(conf, RemoveMember(1)) is RefusalReason.WOULD_LOSE_QUORUM
    assert refusal(make_conf([1, 2]), RemoveMember(2)) is None


def test_a_learner_in_the_place_of_a_lost_voter_replaces_it_and_does_not_vote_beside_it() -> None:
    seen = outlook(silent=frozenset({3}))
    conf = next_conf_state(make_conf([1, 2, 3]), AddLearner(make_member(4, "n3"), True), 9)
    assert refusal(conf, PromoteLearner(4), seen) is RefusalReason.ALREADY_MEMBER
    assert refusal(conf, ReplaceMember(3, 4), seen) is None


def test_members_are_bounded() -> None:
    voters = make_conf(range(1, VOTERS_MAX + 1), learners=[20])
    assert refusal(voters, PromoteLearner(20)) is RefusalReason.TOO_MANY_MEMBERS
    assert refusal(voters, ReplaceMember(2, 20)) is None
    learners = make_conf([1], learners=range(20, 20 + LEARNERS_MAX))
    assert refusal(learners, AddLearner(make_member(30))) is RefusalReason.TOO_MANY_MEMBERS
