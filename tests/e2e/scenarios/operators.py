"""The operator and what is around it: drift, no API server, two operators, no quorum left."""

from tests.e2e.environment import api_commands
from tests.e2e.kubectl import E2EError, JsonObject, NotYetError, hold, wait_until
from tests.e2e.raft_cluster import RaftCluster, is_ready
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.steps import (
    CHANGE_SECONDS,
    WRITES_BETWEEN,
    member_ids,
    no_failed_request,
    pod_uids,
    require_same_members,
    scale_to,
    wait_changed,
    wait_value,
)
from tests.e2e.suite import LOST_NAMESPACE, SECOND_NAMESPACE, Suite

_AWAY_SECONDS = 60.0
_GONE_SECONDS = 120.0
_REPAIR_SECONDS = 30.0

# What somebody might do to each object, as a merge patch.
_EDITS: tuple[tuple[str, str, JsonObject], ...] = (
    ("configmap", "demo-config", {"data": {"RAFTKV_HEARTBEAT_MS": "900"}}),
    ("serviceaccount", "demo-node", {"automountServiceAccountToken": True}),
    ("service", "demo-peers", {"spec": {"publishNotReadyAddresses": False}}),
    ("service", "demo", {"metadata": {"labels": {"app.kubernetes.io/component": "mine"}}}),
    ("networkpolicy", "demo", {"spec": {"ingress": [{}]}}),
    ("poddisruptionbudget", "demo", {"spec": {"maxUnavailable": 3}}),
    ("statefulset", "demo", {"spec": {"replicas": 4, "updateStrategy": {"type": "RollingUpdate"}}}),
)
#: What belongs to the cluster beside pods, claims and the client Service. All of it is deleted
#: while clients are served; with the Service's address went what they connect to.
OWNED_OBJECTS = (
    ("configmap", "demo-config"),
    ("serviceaccount", "demo-node"),
    ("service", "demo-peers"),
    ("networkpolicy", "demo"),
    ("poddisruptionbudget", "demo"),
    ("statefulset", "demo"),
)


def drift(suite: Suite) -> None:
    """Each object is edited, then deleted, under load; each comes back as it was."""
    demo = suite.need_demo()
    pods, members = pod_uids(demo), member_ids(demo)
    with no_failed_request(suite, demo):
        for kind, name, change in _EDITS:
            before = _essence(suite, demo, kind, name)
            suite.kubectl.patch(kind, name, demo.namespace, change)
            _wait_essence(suite, demo, kind, name, before)
        wait_value("three pods are left", lambda: len(demo.pods()), 3, CHANGE_SECONDS)
        for kind, name in OWNED_OBJECTS:  # the StatefulSet leaves its pods
            before = _essence(suite, demo, kind, name)
            where = ("-n", demo.namespace, "--cascade=orphan")
            suite.kubectl("delete", kind, name, *where)
            _wait_essence(suite, demo, kind, name, before)
        wait_changed(demo)
        suite.client.wait_for_writes(WRITES_BETWEEN)
    before = _essence(suite, demo, "service", demo.name)
    suite.kubectl("delete", "service", demo.name, "-n", demo.namespace)
    _wait_essence(suite, demo, "service", demo.name, before)
    demo.wait_settled()
    if pod_uids(demo) != pods:
        raise E2EError("a repair restarted pods")
    require_same_members(demo, members)


def api_away(suite: Suite) -> None:
    """No API server for a minute: clients do not notice, and the operator goes on afterwards."""
    commands = api_commands()
    if commands is None:
        suite.row.notes.append("skipped: E2E_API_STOP and E2E_API_START are not set")
        return
    demo = suite.need_demo()
    pods, members = pod_uids(demo), member_ids(demo)
    stop, start = commands
    with no_failed_request(suite, demo):
        stop()
        try:
            hold(_AWAY_SECONDS)
        finally:
            start()
        wait_until("the API server answers", lambda: suite.kubectl("get", "nodes"), seconds=60)
        scale_to(demo, 4)
        scale_to(demo, 3)
    if not pods <= pod_uids(demo):
        raise E2EError("pods were restarted")
    require_same_members(demo, members)


def two_replicas(suite: Suite) -> None:
    """Somebody scales the operator to two: the Lease lets one act."""
    demo = suite.need_demo()
    cluster_id, members = demo.cluster_id(), member_ids(demo)
    suite.operator.scale(2)
    try:
        wait_value("two run", lambda: sum(map(is_ready, suite.operator.pods())), 2)
        with no_failed_request(suite, demo, is_term_bound=False):
            scale_to(demo, 4)
            scale_to(demo, 3)
    finally:
        suite.operator.scale(1)
        suite.operator.wait_running()
    _require_unharmed(demo, cluster_id, members)


def two_installs(suite: Suite) -> None:
    """A second release in another namespace, with a Lease of its own: both act, none does harm."""
    demo = suite.need_demo()
    cluster_id, members = demo.cluster_id(), member_ids(demo)
    suite.create_namespace(SECOND_NAMESPACE)
    suite.operator.install_second(SECOND_NAMESPACE)
    try:
        with no_failed_request(suite, demo, is_term_bound=False):
            scale_to(demo, 4)
            scale_to(demo, 3)
        # Founded by two at once, it still is one cluster.
        other = suite.cluster("contested")
        other.apply()
        other.wait_settled()
        known = {other.node_status(pod["metadata"]["name"])["cluster_id"] for pod in other.pods()}
        if known != {other.cluster_id()}:
            raise E2EError(f"the nodes know {known}")
        other.discard()
    finally:
        suite.operator.uninstall_second(SECOND_NAMESPACE)
        suite.kubectl.delete("namespace", SECOND_NAMESPACE, seconds=_GONE_SECONDS)
    wait_changed(demo)
    _require_unharmed(demo, cluster_id, members)


def quorum_lost(suite: Suite) -> None:
    """Two of three volumes are lost: nothing more is touched, and the namespace can be deleted."""
    suite.need_operator()
    suite.create_namespace(LOST_NAMESPACE)
    cluster = suite.cluster("lost", LOST_NAMESPACE)
    cluster.apply()
    cluster.wait_settled()
    leader = cluster.leader()
    others = [name for name in member_ids(cluster) if name != leader]
    where = ("-n", cluster.namespace)
    left = suite.kubectl.get("pvc", f"data-{leader}", *where)["metadata"]["uid"]
    pod = cluster.pod(leader)["metadata"]["uid"]
    suite.kubectl("delete", "pvc", *(f"data-{name}" for name in others), *where, "--wait=false")
    suite.kubectl("delete", "pods", *others, *where, "--grace-period=1")
    said = cluster.wait_condition("Available", "False", "QuorumLost", seconds=90)["message"]
    if not all(name in said for name in others):
        raise E2EError(f"it is not said which pods are needed: {said}")
    hold(10)  # time to do harm
    if cluster.pod(leader)["metadata"]["uid"] != pod:
        raise E2EError("the last voter's pod was restarted")
    if suite.kubectl.get("pvc", f"data-{leader}", *where)["metadata"]["uid"] != left:
        raise E2EError("the last voter's claim was deleted")
    suite.kubectl.delete("namespace", LOST_NAMESPACE, seconds=_GONE_SECONDS)


# ---- helpers --------------------------------------------------------------------------------


def _essence(suite: Suite, demo: RaftCluster, kind: str, name: str) -> JsonObject:
    """What the operator sees to: labels, owner, spec and data, without the API server's share."""
    item = suite.kubectl.get(kind, name, "-n", demo.namespace)
    spec = {
        field: value
        for field, value in (item.get("spec") or {}).items()
        if field not in ("clusterIP", "clusterIPs")
    }
    return {
        "labels": item["metadata"].get("labels"),
        "owner": [owner["uid"] for owner in item["metadata"].get("ownerReferences", [])],
        "spec": spec,
        "data": item.get("data"),
        "token": item.get("automountServiceAccountToken"),
    }


def _wait_essence(
    suite: Suite, demo: RaftCluster, kind: str, name: str, wanted: JsonObject
) -> None:
    def require_same() -> None:
        found = _essence(suite, demo, kind, name)
        if found != wanted:
            fields = [field for field in wanted if found[field] != wanted[field]]
            raise NotYetError(f"{fields} differ: {[found[field] for field in fields]}")

    wait_until(f"{kind} {name} is as it was", require_same, seconds=_REPAIR_SECONDS)


def _require_unharmed(demo: RaftCluster, cluster_id: str, members: dict[str, str]) -> None:
    if demo.cluster_id() != cluster_id:
        raise E2EError(f"the cluster is {demo.cluster_id()}, and was {cluster_id}")
    require_same_members(demo, members)


SCENARIOS = (
    Scenario("drift", "every object edited and deleted under load", drift),
    Scenario("api-away", "no API server for a minute", api_away),
    Scenario("two-installs", "a second operator in another namespace", two_installs),
)
LIGHT_SCENARIOS = (
    Scenario("quorum-lost", "two volumes of three; the namespace is deleted", quorum_lost),
)
LONG_SCENARIOS = (Scenario("two-replicas", "the operator is scaled to two", two_replicas),)
