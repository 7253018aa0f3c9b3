"""The planner's changes as tables: every state that two actions can leave between them.

One to nine members with the leader anywhere: what a pass does next, and that it never takes what
the quorum needs. Whole passes are in `test_changes.py` and `test_healing.py`.
"""

from typing import Any

import pytest
from msgspec import structs

from raftkv_operator.actions import (
    MEMBERSHIP_ACTIONS,
    Action,
    Apply,
    Delete,
    RemoveMember,
    StopPod,
    TransferLeader,
    describe,
)
from raftkv_operator.api import Cluster
from raftkv_operator.observed import NodeCluster, NodeMember, Observed, PodView
from raftkv_operator.plan import Plan
from raftkv_operator.resources.stateful_set import template_hash
from tests.operator.examples import (
    CLUSTER_ID,
    cluster,
    config,
    live_objects,
    make_plan,
    member_id,
    node,
    observed,
    pod,
    recorded,
)

SIZES = [(voters, leader) for voters in range(1, 10) for leader in range(voters)]


class State:
    """A formed cluster of ``voters``, and how it differs from a healthy one."""

    def __init__(self, voters: int = 3, *, leader: int = 0, **spec: Any) -> None:
        self.voters = voters
        self.leader = leader
        self.cluster: Cluster = cluster(status=recorded(voters), **{"replicas": voters, **spec})
        self.view: NodeCluster = config(voters, leader=leader)
        template = template_hash(self.cluster)
        self.pods: dict[int, PodView] = {
            ordinal: pod(
                ordinal,
                node(ordinal, cluster_id=CLUSTER_ID, leader=leader),
                template=template,
            )
            for ordinal in range(voters)
        }
        self.pods_made = voters

    def outdated(self, *ordinals: int) -> "State":
        for ordinal in ordinals:
            self.change(ordinal, template_hash="old")
        return self

    def change(self, ordinal: int, **fields: Any) -> "State":
        self.pods[ordinal] = structs.replace(self.pods[ordinal], **fields)
        return self

    def draining(
        self,
        ordinal: int,
        *,
        seconds: float = 10.0,
        is_ready: bool = False,
        is_routed: bool = False,
    ) -> "State":
        status = self.pods[ordinal].node
        assert status is not None
        drained = structs.replace(status, state="draining")
        fields = {"is_ready": is_ready, "is_routed": is_routed, "routing_seconds": seconds}
        return self.change(ordinal, node=drained, **fields)

    def silent(self, *ordinals: int) -> "State":
        """The leader does not hear from them, and they answer nobody."""
        for ordinal in ordinals:
            self.change(ordinal, node=None, is_ready=False, is_routed=False)
            self.set_member(ordinal, healthy=False)
        return self

    def was_removed(self, ordinal: int) -> "State":
        self.view = structs.replace(self.view, removed=(member_id(ordinal),))
        return self

    def set_member(self, ordinal: int, **fields: Any) -> None:
        self.view = structs.replace(
            self.view,
            members=tuple(
                structs.replace(member, **fields) if member.id == member_id(ordinal) else member
                for member in self.view.members
            ),
        )

    def learner(self, ordinal: int, *, lag: int = 0, life: int = 0) -> "State":
        """A learner, whose pod is there."""
        learner = NodeMember(
            id=member_id(ordinal, life=life),
            name=f"demo-{ordinal}",
            role="learner",
            voter=False,
            healthy=True,
            lag_entries=lag,
        )
        self.view = structs.replace(self.view, members=(*self.view.members, learner))
        return self.start(ordinal, cluster_id=CLUSTER_ID, life=life)

    def start(self, ordinal: int, *, cluster_id: str | None = None, life: int = 0) -> "State":
        """The pod of an ordinal, on a volume of that ``life``."""
        status = node(ordinal, cluster_id=cluster_id, life=life, leader=None)
        if cluster_id is not None:
            status = structs.replace(status, leader=self.view.leader)
        self.pods[ordinal] = pod(ordinal, status, template=template_hash(self.cluster))
        self.pods_made = max(self.pods_made, ordinal + 1)
        return self

    def seen(self) -> Observed:
        leader = self.pods[self.leader]
        pods = {**self.pods, self.leader: structs.replace(leader, config=self.view)}
        objects = live_objects(self.cluster, replicas=self.pods_made)
        views = tuple(pods[ordinal] for ordinal in sorted(pods))
        return observed(self.cluster, views, is_serving=True, objects=objects)

    def plan(self) -> Plan:
        return make_plan(self.cluster, self.seen())


def done(planned: Plan) -> list[str]:
    """What is done, without repairs of the disruption budget."""
    budget = "poddisruptionbudget"
    return [describe(item) for item in planned.actions if budget not in item.point]


M = member_id

# state, what the pass does, operation.step
TABLE: dict[str, tuple[State, list[str], str | None]] = {
    "settled": (State(), [], None),
    # ---- up
    "up: no pod": (State(replicas=4), ["repair StatefulSet demo"], "StartPod"),
    "up: pod silent": (
        State(replicas=4).start(3).change(3, node=None),
        [],
        "StartPod",
    ),
    "up: pod empty": (
        State(replicas=4).start(3),
        [f"add demo-3 ({M(3)}) as a learner"],
        "AddLearner",
    ),
    "up: pod on a kept claim": (
        State(replicas=4).was_removed(3).start(3, cluster_id=CLUSTER_ID),
        [f"add demo-3 ({M(3)}) again, with the data that it kept"],
        "AddLearner",
    ),
    "up: learner that was drained before it was removed": (
        State(replicas=4).learner(3).draining(3),
        ["put back demo-3"],
        "PromoteLearner",
    ),
    "up: pod on a claim of another cluster": (
        State(replicas=4).start(3, cluster_id="e" * 32),
        [],
        "AddLearner",
    ),
    "up: learner lags": (State(replicas=4).learner(3, lag=99_999), [], "PromoteLearner"),
    "up: learner caught up": (State(replicas=4).learner(3), ["promote demo-3"], "PromoteLearner"),
    "up: learner's volume lost": (
        State(replicas=4).learner(3).start(3, life=1),
        [f"remove demo-3 ({M(3)})"],
        "RemoveLearner",
    ),
    "up: learner no longer wanted": (
        State().learner(3),
        [f"remove demo-3 ({M(3)})"],
        "RemoveLearner",
    ),
    "up: pod no longer wanted": (State().start(3), ["repair StatefulSet demo"], None),
    # ---- down
    "down: begins": (State(4, replicas=3), ["drain demo-3"], "Drain"),
    "down: leads": (
        State(4, leader=3, replicas=3),
        ["hand leadership to demo-0"],
        "TransferLeader",
    ),
    "down: drained, still ready": (
        State(4, replicas=3).draining(3, is_ready=True, is_routed=True),
        [],
        "Drain",
    ),
    "down: unready, still routed to": (
        State(4, replicas=3).draining(3, is_routed=True),
        [],
        "Drain",
    ),
    "down: just out of the slices": (State(4, replicas=3).draining(3, seconds=1.0), [], "Drain"),
    "down: absent, still routed to": (
        State(4, replicas=3).silent(3).change(3, is_routed=True),
        [],
        "RemoveMember",
    ),
    "down: out of the slices": (
        State(4, replicas=3).draining(3),
        [f"remove demo-3 ({M(3)})"],
        "RemoveMember",
    ),
    "down: absent": (
        State(4, replicas=3).silent(3),
        [f"remove demo-3 ({M(3)})"],
        "RemoveMember",
    ),
    "down: removed": (
        State(3).start(3, cluster_id=CLUSTER_ID),
        ["repair StatefulSet demo"],
        None,
    ),
    "down: wanted again": (State(4).draining(3), ["put back demo-3"], None),
    "down: needed": (State(3, replicas=2).silent(1), [], "Drain"),
    # ---- roll
    "roll: begins": (State().outdated(0, 1, 2), ["drain demo-2"], "Drain"),
    "roll: drained": (State().outdated(0, 1, 2).draining(2), ["restart demo-2"], "RestartPod"),
    "roll: terminating": (
        State().outdated(0, 1, 2).draining(2).change(2, is_deleting=True),
        [],
        "RestartPod",
    ),
    "roll: new pod silent": (State().outdated(0, 1).silent(2), [], "WaitForPod"),
    "roll: new pod just routed to": (
        State().outdated(0, 1).change(2, routing_seconds=1.0),
        [],
        "WaitForPod",
    ),
    "roll: new pod ready, not routed to": (
        State().outdated(0, 1).change(2, is_routed=False),
        [],
        "WaitForPod",
    ),
    "roll: next": (State().outdated(0, 1), ["drain demo-1"], "Drain"),
    "roll: leader last": (State().outdated(0), ["hand leadership to demo-1"], "TransferLeader"),
    "roll: leader handed over": (State(leader=1).outdated(0), ["drain demo-0"], "Drain"),
    "roll: drained, not outdated any more": (State().draining(2), ["put back demo-2"], None),
    "roll: outdated and broken": (
        State().outdated(2).silent(2),
        ["replace pod demo-2, which runs an outdated template"],
        "RestartPod",
    ),
    "roll: answers the leader, not us": (
        # The two that are left are the quorum: the one that answers nobody is cured, it is not.
        State().outdated(1, 2).silent(1).change(2, node=None, is_ready=False),
        ["replace pod demo-1, which runs an outdated template"],
        None,
    ),
    # ---- replacement
    "lost: empty": (
        State().silent(2).start(2, life=1),
        [f"add demo-2 ({M(2, life=1)}) as a learner"],
        "AddLearner",
    ),
    "lost: learner lags": (
        State().silent(2).learner(2, lag=99_999, life=1),
        [],
        "ReplaceMember",
    ),
    "lost: learner caught up": (
        State().silent(2).learner(2, life=1),
        [f"let demo-2 vote as {M(2, life=1)} in the place of {M(2)}"],
        "ReplaceMember",
    ),
    "lost: again": (
        State().silent(2).learner(2, life=1).start(2, life=2),
        [f"remove demo-2 ({M(2, life=1)})"],
        "RemoveLearner",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_rule_08_18_19_every_state_between_two_actions(name: str) -> None:
    state, expected, step = TABLE[name]
    planned = state.plan()
    assert done(planned) == expected
    assert (planned.operation.step if planned.operation is not None else None) == step


def test_joint_configuration_is_waited_for() -> None:
    state = State(replicas=5)
    state.view = structs.replace(state.view, voters_outgoing=state.view.voters)
    planned = state.plan()
    assert not [item for item in planned.actions if not isinstance(item, Apply)]
    assert planned.operation is not None
    assert planned.operation.step == "LeaveJoint"


@pytest.mark.parametrize(("voters", "leader"), SIZES)
def test_rule_19_leader_is_never_removed_and_at_most_one_step_is_made(
    voters: int, leader: int
) -> None:
    for state in (
        state
        for wanted in range(1, 10)
        for state in (
            State(voters, leader=leader, replicas=wanted),
            State(voters, leader=leader, replicas=wanted).draining(voters - 1),
        )
    ):
        actions = state.plan().actions
        steps = [item for item in actions if isinstance(item, MEMBERSHIP_ACTIONS)]
        assert len(steps) <= 1
        removed = [item for item in steps if isinstance(item, RemoveMember)]
        assert [item for item in removed if item.member_id == state.view.leader] == []
        assert all(item.pod == f"demo-{voters - 1}" for item in removed)


# With one or two voters the user hears of it first (rule 20).
@pytest.mark.parametrize(("voters", "leader"), [size for size in SIZES if size[0] > 2])
def test_rule_18_one_pod_at_a_time_and_only_while_all_others_serve(
    voters: int, leader: int
) -> None:
    everyone = tuple(range(voters))
    state = State(voters, leader=leader).outdated(*everyone)
    assert len(disruptions(state)) == 1
    for ordinal in everyone:
        if ordinal != leader:
            unwell = State(voters, leader=leader).outdated(*(set(everyone) - {ordinal}))
            assert disruptions(unwell.silent(ordinal)) == []


def disruptions(state: State) -> list[Action]:
    """What takes something out of service."""
    return [
        item
        for item in state.plan().actions
        if isinstance(item, StopPod | TransferLeader) or item.point == "drain"
    ]


@pytest.mark.parametrize("wanted", [0, 1, 2, 4, 5])
def test_rule_06_leader_that_no_majority_follows_is_not_believed(wanted: int) -> None:
    state = State(3, replicas=wanted).outdated(1, 2)
    for ordinal in (1, 2):
        status = state.pods[ordinal].node
        assert status is not None
        state.change(ordinal, node=structs.replace(status, term=8, leader=member_id(1)))
    planned = state.plan()
    assert [item for item in planned.actions if not isinstance(item, Apply | Delete)] == []
