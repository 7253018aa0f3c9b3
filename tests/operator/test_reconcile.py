"""Whole passes against an API server over HTTP: what users, crashes and rivals do to them."""

import pytest

from raftkv_operator.errors import KubeError
from raftkv_operator.failpoints import crash_points
from raftkv_operator.reconcile import STALE_SECONDS
from raftkv_operator.resources import OWNED_KINDS, POD_MONITOR
from tests.operator.fake_kubernetes import RefusedError
from tests.operator.world import KEY, CrashError, Operator, World


def healthy(world: World) -> None:
    """One cluster, recorded and formed, and Available."""
    status = world.status()
    assert world.nodes.clusters() == {status["clusterID"]}
    assert status["bootstrap"]["clusterID"] == status["clusterID"]
    assert world.condition("Available") == ("True", "Serving")
    assert status["readyReplicas"] == 3


async def test_create(world: World) -> None:
    world.apply_cluster()
    await world.settle(world.operator())
    healthy(world)
    assert len(world.nodes.bootstraps) == 1
    assert world.kubernetes.get("services", "demo") is not None
    reasons = [item["reason"] for item in world.kubernetes.of("events")]
    assert sorted(reasons) == ["Bootstrapping", "LeaderElected", "Serving", "WaitingForPods"]


async def test_rule_13_settled_cluster_causes_no_write_at_all(world: World) -> None:
    world.apply_cluster()
    await world.settle(world.operator())
    del world.kubernetes.requests[:]
    restarted = world.operator()
    await restarted.see()
    assert await restarted.reconcile() is None
    assert world.kubernetes.requests == []


def points_of_a_creation() -> list[str]:
    """Those that a creation passes; a test below holds them against reality."""
    made = {"record-bootstrap", "bootstrap", "post-event", "write-status"}
    made |= {f"apply-{kind.name.lower()}" for kind in OWNED_KINDS if kind != POD_MONITOR}
    return [point for point in crash_points() if point.split(":")[1] in made]


@pytest.mark.parametrize("point", points_of_a_creation())
async def test_rule_01_crash_anywhere_forms_one_cluster(world: World, point: str) -> None:
    world.apply_cluster()
    dying = world.operator()
    dying.crash_at(point)
    with pytest.raises(CrashError):
        await world.settle(dying)
    await world.settle(world.operator())
    healthy(world)
    assert len({cluster_id for _, cluster_id in world.nodes.bootstraps}) == 1


async def test_crash_points_of_a_creation_are_those_that_are_tested(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    assert set(operator.failpoints.reached) == set(points_of_a_creation())


async def test_rule_01_two_operators_cannot_form_two_clusters(world: World) -> None:
    """Both hold the Lease, as a paused one may believe; both saw the same empty volumes."""
    world.apply_cluster()
    one, two = world.operator(), world.operator()
    await world.settle(one, two)
    healthy(world)
    assert len({cluster_id for _, cluster_id in world.nodes.bootstraps}) == 1


async def test_rule_01_stale_operator_cannot_record_over_another(world: World) -> None:
    world.apply_cluster()
    early, late = world.operator(), world.operator()
    await early.reconcile()
    while "record-bootstrap" not in "".join(early.failpoints.reached):
        world.kubernetes.run_stateful_sets()
        await early.see()
        await late.see()  # before early acts: both see what early sees
        await early.reconcile()
    recorded = world.status()["clusterID"]
    await late.reconcile()
    assert world.status()["clusterID"] == recorded


async def run_until(world: World, operator: Operator, point: str) -> None:
    operator.crash_at(point)
    with pytest.raises(CrashError):
        await world.settle(operator)


async def test_rule_01_founder_lost_between_record_and_call(world: World) -> None:
    world.apply_cluster()
    await run_until(world, world.operator(), "before:bootstrap")
    world.nodes.lose_volume("demo-0")
    await world.settle(world.operator())
    assert world.condition("Available") == ("False", "BootstrapTargetLost")
    assert world.nodes.clusters() == set()
    # The way out that the message names.
    world.kubernetes.remove("raftkvclusters", "demo")
    world.apply_cluster()
    await world.settle(world.operator())
    healthy(world)


async def test_founder_lost_after_the_call(world: World) -> None:
    world.apply_cluster()
    await run_until(world, world.operator(), "after:bootstrap")
    world.nodes.lose_volume("demo-0")
    await world.settle(world.operator())
    healthy(world)
    assert world.nodes.calls == ["add demo-0", "replace demo-0"]


async def test_rule_02_cluster_deleted_and_applied_again_is_adopted(world: World) -> None:
    world.apply_cluster()
    await world.settle(world.operator())
    cluster_id = world.status()["clusterID"]
    world.kubernetes.remove("raftkvclusters", "demo")
    assert world.kubernetes.of("statefulsets") == []
    world.apply_cluster()
    await world.settle(world.operator())
    healthy(world)
    assert world.status()["clusterID"] == cluster_id
    assert world.status()["bootstrap"]["adopted"] is True
    assert len(world.nodes.bootstraps) == 1


@pytest.mark.parametrize("side", ["before", "after"])
async def test_rule_02_crash_around_the_adoption(world: World, side: str) -> None:
    world.apply_cluster()
    await world.settle(world.operator())
    world.kubernetes.remove("raftkvclusters", "demo")
    world.apply_cluster()
    await run_until(world, world.operator(), f"{side}:record-adoption")
    await world.settle(world.operator())
    healthy(world)
    assert len(world.nodes.bootstraps) == 1


async def test_rule_11_deletion_needs_no_operator_and_leaves_no_finalizer(world: World) -> None:
    world.apply_cluster()
    await world.settle(world.operator())
    item = world.kubernetes.get("raftkvclusters", "demo")
    assert item is not None
    assert "finalizers" not in item["metadata"]
    world.kubernetes.remove("raftkvclusters", "demo")
    left = {plural for plural, _, _ in world.kubernetes.objects}
    assert left == {"events", "persistentvolumeclaims"}


async def test_rule_14_cluster_deleted_while_nobody_watched_is_not_made_again(
    world: World,
) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    world.kubernetes.remove("raftkvclusters", "demo")
    for cache in operator.caches.all():
        await cache.list()
    del world.kubernetes.requests[:]
    assert await operator.reconcile() is None
    assert world.kubernetes.requests == []
    assert len(operator.clusters) == 0
    labels = {"namespace": "default", "name": "demo"}
    read = operator.metrics.registry.get_sample_value
    assert read("raftkv_operator_cluster_ready", labels) is None


@pytest.mark.parametrize(
    ("plural", "name"),
    [
        ("services", "demo"),
        ("services", "demo-peers"),
        ("configmaps", "demo-config"),
        ("serviceaccounts", "demo-node"),
        ("networkpolicies", "demo"),
        ("poddisruptionbudgets", "demo"),
    ],
)
async def test_deleted_child_comes_back(world: World, plural: str, name: str) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    world.kubernetes.remove(plural, name)
    await world.settle(operator)
    assert world.kubernetes.get(plural, name) is not None
    healthy(world)


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_rule_04_scaled_stateful_set_comes_back(world: World, count: int) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    item = world.kubernetes.get("statefulsets", "demo")
    assert item is not None
    world.kubernetes.put("statefulsets", {**item, "spec": {**item["spec"], "replicas": count}})
    await world.settle(operator)
    healthy(world)


async def test_rule_09_foreign_service_is_left_alone(world: World) -> None:
    foreign = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "mine"}}}
    metadata = {"name": "demo", "namespace": "default"}
    stored = world.kubernetes.put("services", {**foreign, "metadata": metadata})
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "NameConflict")
    assert world.condition("Available") == ("False", "NameConflict")
    assert world.kubernetes.get("services", "demo") == stored
    assert world.kubernetes.of("statefulsets") == []
    world.kubernetes.remove("services", "demo")
    await world.settle(operator)
    healthy(world)


async def test_rule_09_service_made_by_someone_a_moment_ago_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the apply."""
    metadata = {"name": "demo-peers", "namespace": "default"}
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": []}}
    world.apply_cluster()
    operator = world.operator()
    reach = operator.failpoints.reach

    def interfere(point: str) -> None:
        reach(point)
        if point == "before:apply-service":
            world.kubernetes.put("services", foreign)

    monkeypatch.setattr(operator.failpoints, "reach", interfere)
    await operator.see()
    await operator.reconcile()
    monkeypatch.undo()
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "NameConflict")
    stored = world.kubernetes.get("services", "demo-peers")
    assert stored is not None
    assert stored["spec"] == {"ports": []}
    assert "ownerReferences" not in stored["metadata"]


async def test_pod_monitor_is_made_once_the_kind_is_known_and_goes_when_switched_off(
    world: World,
) -> None:
    world.apply_cluster(monitoring={"podMonitor": True})
    operator = world.operator()
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "PodMonitorUnknown")
    world.kubernetes.absent.clear()
    await world.settle(operator)
    made = world.kubernetes.get("podmonitors", "demo")
    assert made is not None
    (endpoint,) = made["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    assert world.condition("Degraded") == ("False", "Healthy")
    world.apply_cluster(monitoring={"podMonitor": False})
    await world.settle(operator)
    assert world.kubernetes.get("podmonitors", "demo") is None
    healthy(world)


async def test_kind_that_vanishes_holds_nothing_back(world: World) -> None:
    world.kubernetes.absent.clear()
    world.apply_cluster(monitoring={"podMonitor": True})
    operator = world.operator()
    await world.settle(operator)
    world.kubernetes.remove("podmonitors", "demo")
    world.kubernetes.absent.add("podmonitors")
    world.kubernetes.remove("configmaps", "demo-config")
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "PodMonitorUnknown")
    assert world.kubernetes.get("configmaps", "demo-config") is not None


async def test_paused_cluster_is_observed_only(world: World) -> None:
    world.apply_cluster(paused=True)
    operator = world.operator()
    await world.settle(operator)
    assert world.kubernetes.of("statefulsets") == []
    assert world.condition("Paused") == ("True", "Requested")
    world.apply_cluster(paused=False)
    await world.settle(operator)
    healthy(world)


async def test_refused_object_is_reported_in_the_words_of_the_api_server(world: World) -> None:
    world.apply_cluster()
    text = "PATCH statefulsets/demo"
    world.kubernetes.refusals[text] = RefusedError(422, "Invalid", "affinity: bad operator")
    operator = world.operator()
    await operator.see()
    await operator.reconcile()
    assert world.condition("Degraded") == ("True", "InvalidSpec")
    assert "affinity: bad operator" in world.status()["blockedBy"]
    del world.kubernetes.refusals[text]
    await world.settle(operator)
    healthy(world)


async def test_refused_object_does_not_hold_back_the_repair_of_the_others(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    refused = RefusedError(403, "Forbidden", "no such right")
    world.kubernetes.refusals["PATCH networkpolicies/demo"] = refused
    world.kubernetes.remove("networkpolicies", "demo")
    world.kubernetes.remove("services", "demo")
    item = world.kubernetes.get("statefulsets", "demo")
    assert item is not None
    world.kubernetes.put("statefulsets", {**item, "spec": {**item["spec"], "replicas": 0}})
    await operator.see()
    await operator.reconcile()
    repaired = world.kubernetes.get("statefulsets", "demo")
    assert repaired is not None
    assert repaired["spec"]["replicas"] == 3
    assert world.kubernetes.get("services", "demo") is not None
    assert world.condition("Degraded") == ("True", "Forbidden")


async def test_no_pod_starts_without_its_settings(world: World) -> None:
    world.apply_cluster()
    refused = RefusedError(422, "Invalid", "too long")
    world.kubernetes.refusals["PATCH configmaps/demo-config"] = refused
    operator = world.operator()
    await operator.see()
    await operator.reconcile()
    assert world.kubernetes.get("statefulsets", "demo") is None
    assert world.kubernetes.get("networkpolicies", "demo") is not None
    del world.kubernetes.refusals["PATCH configmaps/demo-config"]
    await world.settle(operator)
    healthy(world)


async def test_two_operators_do_not_write_against_each_other_without_end(world: World) -> None:
    """Each admits itself to the admin port, so each finds the other's network policy wrong."""
    world.apply_cluster()
    both = world.operator("one"), world.operator("two")
    await world.settle(both[0])
    del world.kubernetes.requests[:]
    for number in range(60):
        for operator in both:
            operator.clock = float(number)
            await operator.see()
            await operator.reconcile()
    assert world.kubernetes.requests.count("PATCH networkpolicies/demo") <= 2 * 6
    assert world.condition("Degraded") == ("True", "Contested")
    for seconds in (60.0, 90.0):
        both[0].clock = seconds
        await world.settle(both[0])
    healthy(world)
    assert world.condition("Degraded") == ("False", "Healthy")


async def test_rule_14_forbidden_is_reported_not_retried(world: World) -> None:
    world.apply_cluster()
    text = "PATCH configmaps/demo-config"
    world.kubernetes.refusals[text] = RefusedError(403, "Forbidden", "no such right")
    operator = world.operator()
    await operator.see()
    await operator.reconcile()
    assert world.condition("Degraded") == ("True", "Forbidden")
    assert world.kubernetes.requests.count(text) == 1


async def test_rule_14_nothing_is_done_on_a_view_that_is_not_current(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await operator.see()
    operator.caches.all()[0].is_current = False
    assert await operator.reconcile() is not None
    assert world.kubernetes.requests == []


async def test_rule_06_nothing_is_done_without_the_lease(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    operator.gate.is_open = False
    await operator.see()
    assert await operator.reconcile() is not None
    assert world.kubernetes.requests == []


async def test_rule_14_nothing_is_done_for_a_spec_that_is_not_wanted_any_more(
    world: World,
) -> None:
    """The watch of the clusters lags: the user paused the cluster, the operator was not told."""
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    world.apply_cluster(image="raftkv:2")
    await operator.see()
    world.apply_cluster(paused=True)
    requests, calls = len(world.kubernetes.requests), len(world.nodes.calls)
    assert await operator.reconcile() == STALE_SECONDS  # and not as late as the next resync
    await operator.reconcile()
    assert world.nodes.calls[calls:] == []
    made = {text.partition(" ")[2] for text in world.kubernetes.requests[requests:]}
    assert {text.partition("/")[0] for text in made} == {"events", "raftkvclusters"}
    assert world.condition("Paused") == ("True", "Requested")


async def test_rule_14_answer_of_another_pod_at_that_ip_is_no_answer(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await operator.see()
    await operator.reconcile()
    world.kubernetes.run_stateful_sets()
    pod = world.kubernetes.get("pods", "demo-1")
    assert pod is not None
    world.kubernetes.put("pods", {**pod, "status": {**pod["status"], "podIP": "10.0.0.1"}})
    await world.settle(operator)
    assert world.condition("Available") == ("False", "WaitingForPods")
    assert world.nodes.bootstraps == []


async def test_unreadable_spec_changes_nothing_but_the_condition(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    del world.kubernetes.requests[:]
    world.apply_cluster(replicas="many")
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "InvalidSpec")
    assert world.condition("Available") == ("True", "Serving")
    written = {text for text in world.kubernetes.requests if not text.startswith("POST events")}
    assert written == {"PUT raftkvclusters/demo/status"}


async def test_quorum_lost_and_back(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    world.nodes.silent |= {"demo-1", "demo-2"}
    await world.settle(operator)
    assert world.condition("Available") == ("False", "QuorumLost")
    assert len(world.status()["members"]) == 3
    world.nodes.silent.clear()
    await world.settle(operator)
    healthy(world)


async def test_metrics_show_the_cluster(world: World) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    read = operator.metrics.registry.get_sample_value
    labels = {"namespace": "default", "name": "demo"}
    assert read("raftkv_operator_cluster_ready", labels) == 1
    assert read("raftkv_operator_cluster_members", labels) == 3
    assert read("raftkv_operator_cluster_fault_tolerance", labels) == 1
    assert (read("raftkv_operator_reconcile_total") or 0) > 0


async def test_metrics_show_conditions_and_passes_that_fail_one_after_the_other(
    world: World,
) -> None:
    world.apply_cluster()
    operator = world.operator()
    await world.settle(operator)
    read = operator.metrics.registry.get_sample_value
    labels = {"namespace": "default", "name": "demo"}
    condition = "raftkv_operator_cluster_condition"
    assert read("raftkv_operator_cluster_replicas", labels) == 3
    assert read(condition, {**labels, "type": "Available"}) == 1
    assert read(condition, {**labels, "type": "Degraded"}) == 0
    assert read("raftkv_operator_cluster_failed_passes", labels) == 0
    refused = RefusedError(403, "Forbidden", "no such right")
    world.kubernetes.refusals["PATCH services/demo"] = refused
    world.kubernetes.remove("services", "demo")
    await world.step(operator)
    await world.step(operator)
    assert read("raftkv_operator_cluster_failed_passes", labels) == 2
    assert read(condition, {**labels, "type": "Degraded"}) == 1
    world.kubernetes.refusals.clear()
    await world.settle(operator)
    assert read("raftkv_operator_cluster_failed_passes", labels) == 0


async def test_metrics_count_a_pass_that_raised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply_cluster()
    operator = world.operator()
    await operator.see()

    async def fail(*_: object, **__: object) -> None:
        raise KubeError("the API server does not answer")

    monkeypatch.setattr("raftkv_operator.reconcile.observe", fail)
    with pytest.raises(KubeError):
        await operator.reconcile()
    read = operator.metrics.registry.get_sample_value
    labels = {"namespace": "default", "name": "demo"}
    assert read("raftkv_operator_cluster_failed_passes", labels) == 1
    operator.metrics.forget(KEY)
    assert read("raftkv_operator_cluster_failed_passes", labels) is None
