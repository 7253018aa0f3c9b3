"""Status, conditions and Events: what the user reads about what was seen."""

import json
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs

from raftkv_operator.api import (
    Cluster,
    ConditionStatus,
    ConditionType,
    MemberRole,
    MemberStatus,
    OperationStatus,
    Status,
    parse_status,
    to_json,
)
from raftkv_operator.membership import lag_bucket
from raftkv_operator.observed import Observed, PodView
from raftkv_operator.scene import Problem
from raftkv_operator.status import build_status, events_between, invalid_status
from tests.operator.examples import (
    CLUSTER_ID,
    LATER,
    NOW,
    UID,
    cluster,
    config,
    empty_pods,
    live_objects,
    make_plan,
    member_id,
    node,
    observed,
    pod,
    record,
    recorded,
    running_pods,
)


def status_of(wanted: Cluster, seen: Observed, *failures: Problem, now: str = NOW) -> Status:
    return build_status(wanted, seen, make_plan(wanted, seen), failures, now)


def formed(pods: tuple[PodView, ...], last: Status | None = None, **spec: Any) -> Status:
    wanted = cluster(status=last or recorded(), **spec)
    objects = live_objects(cluster(status=recorded()))
    return status_of(wanted, observed(wanted, pods, is_serving=True, objects=objects))


def word(status: Status, kind: ConditionType) -> tuple[str, str]:
    condition = status.condition(kind)
    assert condition is not None
    return condition.status.value, condition.reason


def test_healthy_cluster() -> None:
    status = formed(running_pods(leader=1))
    assert (status.leader, status.term) == ("demo-1", 7)
    assert (status.replicas, status.ready_replicas, status.fault_tolerance) == (3, 3, 1)
    assert [member.name for member in status.members] == ["demo-0", "demo-1", "demo-2"]
    assert [member.role for member in status.members] == [
        MemberRole.FOLLOWER,
        MemberRole.LEADER,
        MemberRole.FOLLOWER,
    ]
    assert status.members[1].version == "0.1.0"
    assert {kind: word(status, kind) for kind in ConditionType} == {
        ConditionType.AVAILABLE: ("True", "Serving"),
        ConditionType.PROGRESSING: ("False", "Settled"),
        ConditionType.DEGRADED: ("False", "Healthy"),
        ConditionType.QUORUM_AT_RISK: ("False", "SpareVoters"),
        ConditionType.STORAGE_RESIZE: ("True", "AsSpecified"),
        ConditionType.EVEN_VOTERS: ("False", "OddReplicas"),
        ConditionType.PAUSED: ("False", "NotRequested"),
    }


def test_one_member_down() -> None:
    pods = (
        pod(0, node(0, cluster_id=CLUSTER_ID, leader=0), config(leader=0, unhealthy=(2,))),
        pod(1, node(1, cluster_id=CLUSTER_ID, leader=0)),
        pod(2),
    )
    status = formed(pods)
    assert word(status, ConditionType.AVAILABLE) == ("True", "Serving")
    assert word(status, ConditionType.DEGRADED) == ("True", "MembersUnhealthy")
    assert word(status, ConditionType.QUORUM_AT_RISK) == ("True", "NoSpareVoter")
    assert word(status, ConditionType.PROGRESSING) == ("True", "Waiting")
    assert status.fault_tolerance == 0


def test_quorum_lost_names_the_pods_that_are_needed_and_keeps_the_members() -> None:
    healthy = formed(running_pods())
    silent = (pod(0, node(0, cluster_id=CLUSTER_ID), config(leader=None)), pod(1), pod(2))
    status = formed(silent, healthy)
    assert word(status, ConditionType.AVAILABLE) == ("False", "QuorumLost")
    available = status.condition(ConditionType.AVAILABLE)
    assert available is not None
    assert "1 of 3 voters" in available.message
    assert "needed: 2" in available.message
    assert "missing: demo-1, demo-2" in available.message
    assert [member.role for member in status.members] == [MemberRole.UNKNOWN] * 3
    assert [member.healthy for member in status.members] == [True, False, False]
    assert (status.leader, status.term, status.fault_tolerance) == (None, 7, 0)


def test_quorum_lost_speaks_of_the_last_voters_not_of_the_founders() -> None:
    """Scaled to one, and its only pod is away: nobody answers who the voters are."""
    led = formed(running_pods())
    alone = structs.replace(led, members=led.members[:1])
    available = formed((pod(0),), alone).condition(ConditionType.AVAILABLE)
    assert available is not None
    assert "0 of 1 voters" in available.message
    assert "missing: demo-0" in available.message
    assert "demo-1" not in available.message


def test_quorum_lost_names_pods_that_joined_later() -> None:
    later = formed(running_pods())
    members = tuple(
        structs.replace(item, id=f"{position:016x}") for position, item in enumerate(later.members)
    )
    available = formed((pod(0),), structs.replace(later, members=members)).condition(
        ConditionType.AVAILABLE
    )
    assert available is not None
    assert "missing: demo-0, demo-1, demo-2" in available.message


def test_election_is_not_reported_as_lost_quorum() -> None:
    pods = tuple(pod(i, node(i, cluster_id=CLUSTER_ID), config(leader=None)) for i in range(3))
    assert word(formed(pods), ConditionType.AVAILABLE) == ("False", "Electing")


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [(0, "False"), (1, "False"), (2, "True"), (3, "False"), (4, "True"), (9, "False")],
)
def test_even_replicas_are_warned_about(replicas: int, expected: str) -> None:
    wanted = cluster(replicas=replicas)
    status = status_of(wanted, observed(wanted, ()))
    assert word(status, ConditionType.EVEN_VOTERS)[0] == expected


def test_paused_is_reported_and_everything_else_goes_on_being_observed() -> None:
    status = formed(running_pods(), paused=True)
    assert word(status, ConditionType.PAUSED) == ("True", "Requested")
    assert word(status, ConditionType.PROGRESSING) == ("False", "Paused")
    assert word(status, ConditionType.AVAILABLE) == ("True", "Serving")


def test_rule_10_refused_growth_has_its_own_condition() -> None:
    wanted = cluster(status=recorded(), storage={"size": "2Gi"})
    objects = live_objects(cluster(status=recorded()))
    seen = observed(wanted, running_pods(), is_serving=True, objects=objects)
    status = status_of(wanted, seen)
    assert word(status, ConditionType.STORAGE_RESIZE) == ("False", "Growing")
    status = status_of(wanted, seen, Problem("StorageResize", "the API server's sentence"))
    assert word(status, ConditionType.STORAGE_RESIZE) == ("False", "Refused")
    assert word(status, ConditionType.DEGRADED) == ("True", "StorageResize")


def test_failure_of_an_action_comes_before_what_the_plan_knew() -> None:
    wanted = cluster(status=recorded(), replicas=5)
    seen = observed(wanted, running_pods(), is_serving=True)
    status = status_of(wanted, seen, Problem("InvalidSpec", "the API server's sentence"))
    assert word(status, ConditionType.DEGRADED) == ("True", "InvalidSpec")
    assert status.blocked_by == "the API server's sentence"


def test_rule_13_status_of_an_unchanged_world_is_unchanged_later() -> None:
    first = formed(running_pods())
    wanted = cluster(status=first)
    seen = observed(wanted, running_pods(), is_serving=True)
    again = status_of(wanted, seen, now=LATER)
    assert to_json(again) == to_json(first)
    assert events_between(UID, first, again) == []


def test_transition_time_moves_with_the_status_only() -> None:
    first = formed(empty_pods())
    wanted = cluster(status=first)
    seen = observed(wanted, running_pods(), is_serving=True)
    later = status_of(wanted, seen, now=LATER)
    available = later.condition(ConditionType.AVAILABLE)
    paused = later.condition(ConditionType.PAUSED)
    assert available is not None
    assert paused is not None
    assert (available.status, available.last_transition_time) == (ConditionStatus.TRUE, LATER)
    assert paused.last_transition_time == NOW


def test_rule_13_events_tell_transitions_once_under_the_same_name() -> None:
    healthy = formed(running_pods(leader=1))
    events = events_between(UID, recorded(), healthy)
    assert [(event.type, event.reason) for event in events] == [
        ("Normal", "LeaderElected"),
        ("Normal", "Serving"),
    ]
    assert events_between(UID, recorded(), healthy) == events
    assert events_between("another", recorded(), healthy) != events


def operation(kind: str, step: str, target: str) -> OperationStatus:
    return OperationStatus(type=kind, step=step, target=target, started_at=NOW)


def told(last: Status, new: Status) -> list[str]:
    return [f"{event.reason}: {event.message}" for event in events_between(UID, last, new)]


def test_events_tell_each_step_of_a_change_of_the_membership() -> None:
    three = structs.replace(formed(running_pods()), operation=operation("ScaleUp", "Add", "demo-3"))
    learner = MemberStatus(
        name="demo-3", id="a", role=MemberRole.LEARNER, voter=False, healthy=True
    )
    voter = structs.replace(learner, role=MemberRole.FOLLOWER, voter=True)
    joining = structs.replace(three, members=(*three.members, learner))
    four = structs.replace(three, members=(*three.members, voter))
    assert told(three, joining) == [
        "MemberAdded: demo-3 (a) joined as a learner; it votes when it caught up"
    ]
    assert told(joining, four) == ["MemberPromoted: demo-3 votes; there are 4 voters"]
    assert told(four, three) == ["MemberRemoved: demo-3 (a) left; there are 3 voters"]
    assert told(three, three) == []
    # It comes back under its id, later: that is news again.
    later = structs.replace(operation("ScaleUp", "Add", "demo-3"), started_at=LATER)
    first, again = (
        events_between(UID, before, structs.replace(before, members=joining.members))
        for before in (three, structs.replace(three, operation=later))
    )
    assert first[0].name != again[0].name


def test_events_tell_a_replacement_as_one() -> None:
    three = formed(running_pods())
    *others, lost = three.members
    newcomer = structs.replace(lost, id="b", role=MemberRole.LEARNER, voter=False)
    joining = structs.replace(three, members=(*three.members, newcomer))
    done = structs.replace(three, members=(*others, structs.replace(lost, id="b")))
    assert [line.partition(":")[0] for line in told(three, joining)] == ["MemberAdded"]
    assert told(joining, done) == [
        f"MemberReplaced: demo-2 votes as b in the place of {member_id(2)}"
    ]


def test_events_tell_a_replacement_that_was_seen_amid_its_joint_step_as_one() -> None:
    three = formed(running_pods())
    lost = three.members[2]
    learner = structs.replace(lost, id="b", role=MemberRole.LEARNER, voter=False)
    voter = structs.replace(lost, id="b")
    joining = structs.replace(three, members=(*three.members, learner))
    joint = structs.replace(three, members=(*three.members, voter))
    done = structs.replace(three, members=(*three.members[:2], voter))
    assert told(joining, joint) == []
    assert told(joint, done) == [
        f"MemberReplaced: demo-2 votes as b in the place of {member_id(2)}"
    ]
    assert told(joining, three) == ["MemberRemoved: demo-2 (b) left; there are 3 voters"]


def test_events_tell_nothing_of_members_that_nobody_knows() -> None:
    three = formed(running_pods())
    unknown = structs.replace(three, leader=None, members=three.members[:1])
    assert [line for line in told(three, unknown) if line.startswith("Member")] == []
    assert [line for line in told(Status(), three) if line.startswith("Member")] == []


def test_events_tell_each_pod_of_a_restart_once() -> None:
    three = formed(running_pods())
    steps = [
        structs.replace(three, operation=operation("RollingRestart", step, target))
        for step, target in (
            ("Drain", "demo-2"),
            ("RestartPod", "demo-2"),
            ("RestartPod", "demo-2"),
            ("WaitForPod", "demo-2"),
            ("RestartPod", "demo-1"),
        )
    ]
    assert [told(*pair) for pair in pairwise(steps)] == [
        ["PodRestarts: demo-2 restarts"],
        [],
        [],
        ["PodRestarts: demo-1 restarts"],
    ]


def test_events_do_not_warn_of_what_a_planned_restart_costs() -> None:
    healthy = formed(running_pods())
    one_down = (
        pod(0, node(0, cluster_id=CLUSTER_ID, leader=0), config(leader=0, unhealthy=(2,))),
        pod(1, node(1, cluster_id=CLUSTER_ID, leader=0)),
        pod(2),
    )
    risky = formed(one_down, healthy)
    assert "NoSpareVoter" in "".join(told(healthy, risky))
    rolling = operation("RollingRestart", "WaitForPod", "demo-2")
    planned = structs.replace(risky, operation=rolling)
    before = structs.replace(healthy, operation=rolling)
    assert "NoSpareVoter" not in "".join(told(before, planned))
    assert "SpareVoters" not in "".join(told(planned, healthy))


def test_events_of_falling_asleep_are_no_warnings() -> None:
    healthy = formed(running_pods())
    sleepers = record().members
    falling = structs.replace(healthy, hibernated=sleepers, leader="demo-1", term=99)
    assert told(healthy, falling) == []
    wanted = cluster(status=falling, replicas=0)
    asleep = status_of(wanted, observed(wanted, (), is_serving=True))
    events = events_between(UID, falling, asleep)
    assert [(event.type, event.reason) for event in events] == [("Normal", "Hibernated")]


def test_events_of_trouble_and_recovery() -> None:
    healthy = formed(running_pods())
    lost = formed((pod(0), pod(1), pod(2)), healthy)
    assert [(event.type, event.reason) for event in events_between(UID, healthy, lost)] == [
        ("Warning", "QuorumLost"),
        ("Warning", "MembersUnhealthy"),
        ("Warning", "NoLeader"),
    ]
    back = formed(running_pods(), lost)
    assert [(event.type, event.reason) for event in events_between(UID, lost, back)] == [
        ("Normal", "LeaderElected"),
        ("Normal", "Serving"),
        ("Normal", "Healthy"),
        ("Normal", "SpareVoters"),
    ]


def test_invalid_spec_keeps_everything_else_of_the_status() -> None:
    healthy = formed(running_pods())
    status = invalid_status(healthy, 9, "spec does not fit", LATER)
    assert word(status, ConditionType.DEGRADED) == ("True", "InvalidSpec")
    assert word(status, ConditionType.AVAILABLE) == ("True", "Serving")
    assert status.observed_generation == 9
    assert status.bootstrap == healthy.bootstrap
    degraded = ConditionType.DEGRADED
    without = [item for item in healthy.conditions if item.type != degraded]
    assert [item for item in status.conditions if item.type != degraded] == without


def test_status_survives_the_way_through_json() -> None:
    status = formed(running_pods())
    assert parse_status({"status": to_json(status)}) == status
    assert json.loads(json.dumps(to_json(status))) == to_json(status)


@pytest.mark.parametrize(
    ("lag", "bucket"),
    [(None, None), (0, 0), (1, 100), (100, 100), (101, 10_000), (10_001, 1_000_000)],
)
def test_rule_13_lag_is_rounded_up(lag: int | None, bucket: int | None) -> None:
    assert lag_bucket(lag) == bucket


def test_fault_tolerance_of_a_joint_configuration_is_that_of_the_worse_half() -> None:
    view = structs.replace(
        config(5, leader=0, unhealthy=(3, 4)),
        voters=tuple(config(5).voters[:3]),
        voters_outgoing=tuple(config(5).voters),
    )
    pods = (pod(0, node(0, cluster_id=CLUSTER_ID, leader=0), view), *map(pod, range(1, 5)))
    assert formed(pods, recorded(5), replicas=5).fault_tolerance == 0


def test_a_new_template_is_not_settled_before_it_is_rolled_out() -> None:
    status = formed(running_pods(), image="raftkv:2")
    assert word(status, ConditionType.PROGRESSING) == ("True", "Applying")
    condition = status.condition(ConditionType.PROGRESSING)
    assert condition is not None
    assert "StatefulSet demo" in condition.message
