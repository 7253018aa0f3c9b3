"""The planner as tables: what is recorded and seen -> what is done, waited for, reported."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from raftkv_operator.actions import (
    Apply,
    Bootstrap,
    Delete,
    RecordBootstrap,
    ReplacePod,
    describe,
)
from raftkv_operator.api import BootstrapMember, BootstrapRecord, Cluster, Status
from raftkv_operator.formation import (
    Adoptable,
    Foreign,
    Formed,
    Fresh,
    TargetLost,
    Unconfirmed,
    Waiting,
)
from raftkv_operator.objects import JsonObject, ObjectKey
from raftkv_operator.observed import PodView
from tests.operator.examples import (
    CLUSTER_ID,
    NEW_CLUSTER_ID,
    cluster,
    config,
    empty_pods,
    live,
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

FOREIGN_ID = "f" * 32


def held(ordinal: int, leader: int | None = None, cluster_id: str = CLUSTER_ID) -> PodView:
    """A pod whose volume holds data of a cluster of three, and that tells so."""
    return pod(
        ordinal,
        node(ordinal, cluster_id=cluster_id, leader=leader),
        config(leader=leader, cluster_id=cluster_id),
    )


EMPTY = empty_pods()
RECORDED = recorded()

# name, recorded status, pods, expected formation, expected actions
FORMATIONS: list[tuple[str, Status, tuple[PodView, ...], type, list[str]]] = [
    ("fresh", Status(), EMPTY, Fresh, ["record-bootstrap"]),
    ("no pods yet", Status(), (), Waiting, []),
    ("one pod missing", Status(), EMPTY[:2], Waiting, []),
    ("one pod silent", Status(), (*EMPTY[:2], pod(2, trouble="ErrImagePull")), Waiting, []),
    (
        "one pod terminating",
        Status(),
        (*EMPTY[:2], pod(2, node(2), is_deleting=True)),
        Waiting,
        [],
    ),
    ("one node failed", Status(), (*EMPTY[:2], pod(2, node(2, state="failed"))), Waiting, []),
    ("recorded, not called", RECORDED, EMPTY, Unconfirmed, ["bootstrap"]),
    ("recorded, founder silent", RECORDED, (pod(0), *EMPTY[1:]), Waiting, []),
    ("recorded, another silent", RECORDED, (*EMPTY[:2], pod(2)), Unconfirmed, ["bootstrap"]),
    ("recorded, another lost", RECORDED, (*EMPTY[:2], pod(2, node(2, life=1))), Unconfirmed,
     ["bootstrap"]),
    ("founder lost", RECORDED, (pod(0, node(0, life=1)), *EMPTY[1:]), TargetLost, []),
    ("founder lost, another silent", RECORDED, (pod(0, node(0, life=1)), EMPTY[1], pod(2)),
     Waiting, []),
    ("founder lost after the call", RECORDED, (pod(0, node(0, life=1)), held(1), EMPTY[2]),
     Formed, ["apply-service"]),
    ("only the founder knows", RECORDED, (held(0), *EMPTY[1:]), Formed, ["apply-service"]),
    ("bootstrapped", RECORDED, running_pods(), Formed, ["apply-service"]),
    ("recorded, foreign data", RECORDED, (EMPTY[0], held(1, cluster_id=FOREIGN_ID), EMPTY[2]),
     Foreign, []),
    ("adopt", Status(), (held(0, 0), held(1, 0), held(2, 0)), Adoptable, ["record-adoption"]),
    ("adopt with one volume lost", Status(), (held(0, 0), held(1, 0), EMPTY[2]), Adoptable,
     ["record-adoption"]),
    ("adopt, not yet a leader", Status(), (held(0), held(1), held(2)), Waiting, []),
    ("adopt, not yet all pods", Status(), (held(0), pod(1), pod(2)), Waiting, []),
    ("data without a quorum", Status(), (held(0), EMPTY[1], EMPTY[2]), Foreign, []),
    ("data of two clusters", Status(), (held(0), held(1, cluster_id=FOREIGN_ID), EMPTY[2]),
     Foreign, []),
    ("adopted, all silent", recorded(adopted=True), (pod(0), pod(1), pod(2)), Formed,
     ["apply-service"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "pods", "formation", "points"),
    [case[1:] for case in FORMATIONS],
    ids=[case[0].replace(" ", "-") for case in FORMATIONS],
)
def test_rule_01_02_every_state_of_forming(
    status: Status, pods: tuple[PodView, ...], formation: type, points: list[str]
) -> None:
    wanted = cluster(status=status)
    planned = make_plan(wanted, observed(wanted, pods))
    assert isinstance(planned.formation, formation)
    assert [action.point for action in planned.actions] == points


def test_rule_01_record_names_every_pod_with_the_id_of_its_volume() -> None:
    wanted = cluster()
    (action,) = make_plan(wanted, observed(wanted, EMPTY)).actions
    expected = BootstrapRecord(
        cluster_id=NEW_CLUSTER_ID,
        members=tuple(
            BootstrapMember(pod=f"demo-{ordinal}", member_id=member_id(ordinal))
            for ordinal in range(3)
        ),
    )
    assert action == RecordBootstrap(expected)


def test_rule_01_bootstrap_goes_to_the_first_of_the_recorded_list() -> None:
    reversed_record = structs.replace(record(), members=tuple(reversed(record().members)))
    wanted = cluster(status=Status(cluster_id=CLUSTER_ID, bootstrap=reversed_record))
    planned = make_plan(wanted, observed(wanted, EMPTY))
    assert planned.actions == (Bootstrap(reversed_record, "demo-2", "10.0.0.3"),)


def test_rule_01_lost_target_is_reported_and_nobody_else_is_chosen() -> None:
    wanted = cluster(status=RECORDED)
    planned = make_plan(wanted, observed(wanted, (pod(0, node(0, life=1)), *EMPTY[1:])))
    assert [problem.reason for problem in planned.problems] == ["BootstrapTargetLost"]
    assert "demo-0" in planned.problems[0].message


def test_rule_02_adoption_records_the_members_of_the_configuration_not_of_the_spec() -> None:
    wanted = cluster(replicas=3)
    pods = tuple(
        pod(i, node(i, cluster_id=CLUSTER_ID, leader=0), config(5, leader=0)) for i in range(3)
    )
    (action,) = make_plan(wanted, observed(wanted, pods)).actions
    assert isinstance(action, RecordBootstrap)
    assert action.record == record(5, adopted=True)


def test_rule_02_foreign_data_names_the_claims_and_the_way_out() -> None:
    wanted = cluster(replicas=1)
    planned = make_plan(wanted, observed(wanted, (held(0),)))
    assert isinstance(planned.formation, Foreign)
    assert "data-demo-0" in planned.formation.message
    assert "set spec.replicas to 3" in planned.formation.message


def test_rule_02_data_of_a_cluster_of_another_name_is_not_adopted() -> None:
    wanted = cluster()
    view = config(leader=0, name="other")
    pods = tuple(pod(i, node(i, cluster_id=CLUSTER_ID, leader=0), view) for i in range(3))
    planned = make_plan(wanted, observed(wanted, pods))
    assert isinstance(planned.formation, Foreign)
    assert "other-0" in planned.formation.message


def test_formed_cluster_with_everything_in_place_needs_nothing() -> None:
    wanted = cluster(status=RECORDED)
    planned = make_plan(wanted, observed(wanted, running_pods(), is_serving=True))
    assert planned.actions == ()
    assert planned.problems == ()
    assert planned.wait is None


def test_formed_cluster_stays_formed_while_no_node_answers() -> None:
    """The client Service remembers: nobody may conclude that the founder never acted."""
    wanted = cluster(status=RECORDED)
    silent = (pod(0, node(0, life=1)), pod(1), pod(2))
    planned = make_plan(wanted, observed(wanted, silent, is_serving=True))
    assert isinstance(planned.formation, Formed)
    assert planned.actions == ()


def test_rule_25_no_client_service_before_the_voters_formed() -> None:
    wanted = cluster(status=RECORDED)
    points = [action.point for action in make_plan(wanted, observed(wanted, EMPTY)).actions]
    assert points == ["bootstrap"]
    formed = make_plan(wanted, observed(wanted, running_pods())).actions
    assert [describe(action) for action in formed] == ["create Service demo"]


def test_objects_are_created_in_an_order_in_which_no_pod_starts_without_its_settings() -> None:
    wanted = cluster()
    planned = make_plan(wanted, observed(wanted, (), objects={}))
    assert [describe(action) for action in planned.actions] == [
        "create ServiceAccount demo-node",
        "create ConfigMap demo-config",
        "create Service demo-peers",
        "create NetworkPolicy demo",
        "create PodDisruptionBudget demo",
        "create StatefulSet demo",
    ]


# ---- drift, names, pause --------------------------------------------------------------------


def changed(key: ObjectKey, change: Callable[[JsonObject], None]) -> dict[ObjectKey, JsonObject]:
    """The objects of a formed cluster after someone changed one of them."""
    import copy  # noqa: PLC0415 - only here

    objects = live_objects(cluster(status=RECORDED))
    objects[key] = copy.deepcopy(objects[key])
    change(objects[key])
    return objects


def set_replicas(count: int | None) -> Callable[[JsonObject], None]:
    def change(item: JsonObject) -> None:
        item["spec"]["replicas"] = count

    return change


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_rule_04_replicas_scaled_by_someone_come_back_to_the_highest_member(count: int) -> None:
    wanted = cluster(status=RECORDED)
    objects = changed(ObjectKey("StatefulSet", "demo"), set_replicas(count))
    planned = make_plan(wanted, observed(wanted, running_pods(), is_serving=True, objects=objects))
    (action,) = planned.actions
    assert isinstance(action, Apply)
    assert action.item["spec"]["replicas"] == 3
    assert action.live_uid == objects[ObjectKey("StatefulSet", "demo")]["metadata"]["uid"]


@pytest.mark.parametrize("key", sorted(live_objects(cluster(status=RECORDED))), ids=str)
def test_deleted_object_is_made_again(key: ObjectKey) -> None:
    wanted = cluster(status=RECORDED)
    objects = live_objects(wanted)
    del objects[key]
    planned = make_plan(wanted, observed(wanted, running_pods(), is_serving=True, objects=objects))
    (action,) = planned.actions
    assert isinstance(action, Apply)
    assert (action.item["kind"], action.item["metadata"]["name"]) == key
    assert action.live_uid is None


@pytest.mark.parametrize("key", sorted(live_objects(cluster())), ids=str)
def test_rule_09_taken_name_blocks_everything(key: ObjectKey) -> None:
    """The client Service included, long before it is due."""
    wanted = cluster()
    foreign = {
        "kind": key.kind,
        "metadata": {"name": key.name, "namespace": "default", "uid": "someone's"},
        "spec": {},
    }
    seen = observed(wanted, EMPTY, is_serving=True, objects={key: foreign})
    planned = make_plan(wanted, seen)
    assert planned.actions == ()
    assert [problem.reason for problem in planned.problems] == ["NameConflict"]
    assert f"{key.kind} {key.name}" in planned.problems[0].message


def test_rule_09_objects_of_an_earlier_cluster_of_that_name_are_waited_for() -> None:
    wanted = cluster()
    left = live_objects(wanted)[ObjectKey("Service", "demo-peers")]
    left["metadata"]["ownerReferences"][0]["uid"] = "the earlier one"
    seen = observed(wanted, (), objects={ObjectKey("Service", "demo-peers"): left})
    planned = make_plan(wanted, seen)
    assert planned.actions == ()
    assert planned.problems == ()
    assert planned.wait is not None
    assert "waiting for the deletion of Service demo-peers" in planned.wait.reason


@pytest.mark.parametrize("pods", [(), EMPTY], ids=["before", "ready to record"])
def test_paused_changes_nothing(pods: tuple[PodView, ...]) -> None:
    wanted = cluster(paused=True)
    assert make_plan(wanted, observed(wanted, pods, objects={})).actions == ()


def test_deleted_cluster_is_left_to_its_owner_references() -> None:
    wanted = structs.replace(cluster(), is_deleting=True)
    assert make_plan(wanted, observed(wanted, EMPTY, objects={})).actions == ()


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"networkPolicy": {"enabled": False}}, "NetworkPolicy"),
        ({"podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget"),
    ],
)
def test_object_that_a_setting_switched_off_is_deleted(setting: dict[str, Any], kind: str) -> None:
    wanted = cluster(status=RECORDED, **setting)
    objects = live_objects(cluster(status=RECORDED))
    seen = observed(wanted, running_pods(), is_serving=True, objects=objects)
    assert make_plan(wanted, seen).actions == (Delete(kind, "demo", f"uid-{kind}"),)


def test_setting_that_is_off_does_not_delete_the_object_of_someone_else() -> None:
    wanted = cluster(status=RECORDED, networkPolicy={"enabled": False})
    objects = live_objects(wanted)
    objects[ObjectKey("NetworkPolicy", "demo")] = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "demo", "uid": "someone's"},
    }
    seen = observed(wanted, running_pods(), is_serving=True, objects=objects)
    assert make_plan(wanted, seen).actions == ()


def test_rule_21_one_voter_has_no_disruption_budget() -> None:
    wanted = cluster(replicas=1)
    planned = make_plan(wanted, observed(wanted, (), objects={}))
    assert "apply-poddisruptionbudget" not in [action.point for action in planned.actions]


def test_corrected_image_reaches_pods_that_never_formed_a_cluster() -> None:
    """Before the record there is nothing to lose: a typing error is cured at once."""
    wanted = cluster(image="raftkv:right")
    stuck = tuple(pod(i, trouble="ImagePullBackOff") for i in range(3))
    before = live_objects(cluster(image="raftkv:wrnog"))
    planned = make_plan(wanted, observed(wanted, stuck, objects=before))
    assert [action.point for action in planned.actions] == ["apply-statefulset"]
    planned = make_plan(wanted, observed(wanted, stuck))
    assert planned.actions == tuple(ReplacePod(f"demo-{i}", f"pod-{i}") for i in range(3))


def test_pods_with_data_are_never_replaced_before_adoption() -> None:
    wanted = cluster(image="raftkv:other")
    planned = make_plan(wanted, observed(wanted, (held(0), pod(1), pod(2))))
    assert planned.actions == ()


# ---- hibernation from the start -------------------------------------------------------------


def test_hibernated_from_the_start_is_allowed() -> None:
    wanted = cluster(replicas=0)
    planned = make_plan(wanted, observed(wanted, ()))
    assert planned.problems == ()
    assert planned.wait is None
    assert planned.formation == Waiting("Hibernated", "spec.replicas is 0: no pods are wanted")


def test_replicas_follow_the_spec_until_members_are_recorded() -> None:
    wanted = cluster(replicas=5)
    seen = observed(wanted, EMPTY, objects=live_objects(cluster(replicas=3)))
    actions = make_plan(wanted, seen).actions
    replicas = [
        action.item["spec"]["replicas"]
        for action in actions
        if isinstance(action, Apply) and action.item["kind"] == "StatefulSet"
    ]
    assert replicas == [5]


def test_pod_monitor_without_its_kind_is_a_problem_not_a_failure() -> None:
    wanted = cluster(status=RECORDED, monitoring={"podMonitor": True})
    planned = make_plan(wanted, observed(wanted, running_pods(), is_serving=True))
    assert planned.actions == ()
    assert [problem.reason for problem in planned.problems] == ["PodMonitorUnknown"]


def test_rule_10_claim_templates_are_copied_from_the_live_stateful_set() -> None:
    """The API server adds to them; another spelling would block every later apply."""
    wanted: Cluster = cluster(status=RECORDED)
    objects = live_objects(wanted)
    stateful_set = live(objects[ObjectKey("StatefulSet", "demo")])
    claim = {
        **stateful_set["spec"]["volumeClaimTemplates"][0],
        "status": {"phase": "Pending"},
    }
    claim["spec"] = {**claim["spec"], "volumeMode": "Filesystem"}
    spec = {**stateful_set["spec"], "volumeClaimTemplates": [claim], "replicas": 1}
    objects[ObjectKey("StatefulSet", "demo")] = {**stateful_set, "spec": spec}
    seen = observed(wanted, running_pods(), is_serving=True, objects=objects)
    (action,) = make_plan(wanted, seen).actions
    assert isinstance(action, Apply)
    (applied,) = action.item["spec"]["volumeClaimTemplates"]
    assert applied["spec"]["volumeMode"] == "Filesystem"
    assert "status" not in applied
