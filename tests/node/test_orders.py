"""Orders to the leader: asked anywhere, carried out there, answered when their fate is known."""

from raftkv.node.events import ConfigChangeRequest, TransferRequest
from raftkv.node.messages import ConfigChanged, Failure, FailureCode, Transferred
from raftkv.node.orders import Orders
from raftkv.raft.confchange import AddLearner, PromoteLearner, RemoveMember, ReplaceMember
from raftkv.raft.messages import Index
from tests.simulation.cluster import Machine, member_of
from tests.simulation.scenarios import Script, member_id

# 1@1 is the founding configuration.
FOUNDING_INDEX = 1


def _script(spare: int = 1) -> tuple[Script, Machine, list[Machine]]:
    """A calm cluster of three, its leader and its followers."""
    script = Script(seed=3, size=3, spare=spare)
    leader = script.elected(script.voters)
    return script, leader, [machine for machine in script.voters if machine is not leader]


def _committed(script: Script, machine: Machine) -> Index:
    """The configuration that is committed there."""
    raft = script.raft(machine)
    return raft.conf_at(raft.commit_index)[0]


def _status_removed(machine: Machine, script: Script) -> bool:
    assert machine.process is not None
    return machine.process.node.status(script.world.now).removed


def test_rule_13_a_change_asked_of_a_follower_is_answered_when_it_is_committed() -> None:
    script, leader, (follower, _) = _script()
    answer = script.change(follower, AddLearner(member_of(script.spares[0])))
    assert isinstance(answer, ConfigChanged)
    assert _committed(script, leader) == answer.config_index
    (learner,) = script.raft(leader).conf_state.learners
    assert learner == member_id(script.spares[0])


def test_rule_13_a_change_is_not_answered_before_it_is_committed() -> None:
    script, leader, followers = _script()
    script.only_links([leader], followers)
    change = AddLearner(member_of(script.spares[0]))
    answers = script.ask(leader, lambda rid, until: ConfigChangeRequest(rid, change, None, until))
    script.until(lambda: script.raft(leader).config_index > FOUNDING_INDEX, "the change to begin")
    assert answers == []
    # Cut off, it never is: another leader's entry takes its place, and that is certain.
    new = script.elected(followers)
    script.only_links(script.cluster.machines)
    script.until(lambda: bool(answers), "an answer")
    (failure,) = answers
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.NO_LEADER
    assert script.raft(new).conf_state.learners == ()


def test_rule_13_one_change_at_a_time_and_only_on_the_configuration_that_was_meant() -> None:
    script, leader, (follower, _) = _script(spare=2)
    first, second = (AddLearner(member_of(machine)) for machine in script.spares)
    stale = script.change(follower, first, config_index=FOUNDING_INDEX + 7)
    assert isinstance(stale, Failure)
    assert stale.code is FailureCode.PRECONDITION

    answers = [
        script.ask(leader, lambda rid, until: ConfigChangeRequest(rid, first, 1, until)),
        script.ask(leader, lambda rid, until: ConfigChangeRequest(rid, second, None, until)),
    ]
    script.until(lambda: all(answers), "both answers")
    (done,), (refused,) = answers
    assert isinstance(done, ConfigChanged)
    assert isinstance(refused, Failure)
    assert (refused.code, refused.reason) == (FailureCode.REFUSED, "change_in_progress")


def test_rule_14_a_replacement_is_answered_when_its_joint_configuration_was_left() -> None:
    script, leader, (lost, follower) = _script()
    spare = script.spares[0]
    script.cluster.kill(lost)
    script.change(leader, AddLearner(member_of(spare)))
    change = ReplaceMember(member_id(lost), member_id(spare))
    lagging = script.change(follower, change)
    while isinstance(lagging, Failure):
        assert lagging.reason == "learner_lags"
        lagging = script.change(follower, change)
    assert isinstance(lagging, ConfigChanged)
    conf = script.raft(leader).conf_state
    assert not conf.is_joint
    assert set(conf.voters) == {member_id(m) for m in (leader, follower, spare)}


def test_rule_14_a_learner_is_promoted_when_it_has_caught_up_if_it_asked_for_it() -> None:
    script, leader, _ = _script(spare=2)
    auto, manual = script.spares
    script.change(leader, AddLearner(member_of(auto), promote_when_caught_up=True))
    script.until(lambda: script.raft(auto).is_voter, "the promotion")
    script.until(
        lambda: _committed(script, leader) == script.raft(leader).config_index, "it to be committed"
    )
    script.change(leader, AddLearner(member_of(manual)))
    script.until(lambda: script.raft(manual).applied_index > FOUNDING_INDEX, "it to catch up")
    assert script.raft(leader).conf_state.learners == (member_id(manual),)


def test_rule_14_a_promotion_is_refused_while_the_learner_lags() -> None:
    script, leader, _ = _script()
    spare = script.spares[0]
    script.cluster.kill(spare)
    script.change(leader, AddLearner(member_of(spare)))
    refused = script.change(leader, PromoteLearner(member_id(spare)))
    assert isinstance(refused, Failure)
    assert (refused.code, refused.reason) == (FailureCode.REFUSED, "learner_lags")


def test_a_node_that_was_removed_says_so() -> None:
    script, leader, (follower, other) = _script()
    assert not _status_removed(follower, script)
    assert isinstance(script.change(follower, RemoveMember(member_id(follower))), ConfigChanged)
    script.until(lambda: _status_removed(follower, script), "it to learn that it was removed")
    assert not _status_removed(leader, script)
    term = script.raft(leader).term
    later = script.world.now + 3.0
    script.until(lambda: script.world.now > later, "its election timeouts")
    assert script.raft(other).term == term


def test_rule_18_an_order_whose_way_broke_is_unknown() -> None:
    script, leader, (follower, _) = _script()
    change = AddLearner(member_of(script.spares[0]))
    answers = script.ask(follower, lambda rid, until: ConfigChangeRequest(rid, change, None, until))
    script.until(lambda: len(_orders(follower)) == 1 and not _orders(follower)._held, "it to leave")
    script.cluster.kill(leader)
    script.until(lambda: bool(answers), "an answer")
    (failure,) = answers
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.UNKNOWN


def _orders(machine: Machine) -> Orders:
    assert machine.process is not None
    return machine.process.node.orders


def test_an_order_without_a_leader_is_not_carried_out() -> None:
    script, leader, (follower, _) = _script()
    script.only_links([leader], [follower])
    script.until(lambda: script.raft(follower).leader_id is None, "it to miss its leader")
    failure = script.transfer(follower, None)
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.NO_LEADER


def test_orders_are_bounded() -> None:
    script, leader, followers = _script()
    script.only_links([leader], followers)
    script.until(lambda: script.raft(followers[0]).leader_id is None, "it to miss its leader")
    answers = [
        script.ask(followers[0], lambda rid, until: TransferRequest(rid, None, until))
        for _ in range(65)
    ]
    script.until(lambda: any(answers), "one to be refused")
    (refused,) = [answer for got in answers for answer in got]
    assert isinstance(refused, Failure)
    assert refused.code is FailureCode.OVERLOADED


def test_a_transfer_is_answered_when_the_new_leader_has_committed() -> None:
    script, leader, (target, other) = _script()
    term = script.raft(leader).term
    answer = script.transfer(other, member_id(target))
    assert answer == Transferred(member_id(target), term + 1)
    raft = script.raft(target)
    assert raft.term_of(raft.commit_index) == term + 1
    # To who leads already: nothing happens.
    assert script.transfer(other, member_id(target)) == answer


def test_a_transfer_to_whom_you_like_finds_a_voter_that_answers() -> None:
    script, leader, (dead, alive) = _script()
    script.cluster.kill(dead)
    later = script.world.now + 1.0
    script.until(lambda: script.world.now > later, "the silence to be noticed")
    answer = script.transfer(leader, None)
    assert isinstance(answer, Transferred)
    assert answer.leader == member_id(alive)


def test_a_transfer_to_who_cannot_lead_is_refused_with_the_reason() -> None:
    script, leader, (dead, _) = _script()
    spare = script.spares[0]
    script.change(leader, AddLearner(member_of(spare)))
    script.cluster.kill(dead)
    later = script.world.now + 1.0
    script.until(lambda: script.world.now > later, "the silence to be noticed")
    for target, reason in (
        (42, "unknown_member"),
        (member_id(spare), "not_a_voter"),
        (member_id(dead), "silent"),
    ):
        refused = script.transfer(leader, target)
        assert isinstance(refused, Failure)
        assert (refused.code, refused.reason) == (FailureCode.REFUSED, reason)
    assert script.raft(leader).transferee is None


def test_a_transfer_that_its_target_does_not_take_is_given_up() -> None:
    script, leader, (target, _) = _script()
    assert target.process is not None
    target.process.is_paused = True
    answers = script.ask(leader, lambda rid, until: TransferRequest(rid, member_id(target), until))
    script.until(lambda: bool(answers), "an answer")
    (refused,) = answers
    assert isinstance(refused, Failure)
    assert (refused.code, refused.reason) == (FailureCode.REFUSED, "not_transferred")
    script.cluster.resume(target)
