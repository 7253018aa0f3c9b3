"""Bootstrap under fire: the operator dies at named points, and the founder loses its volume.

Whatever happens, the nodes form exactly one cluster: the one that was recorded in the status
before anything else was done.
"""

from functools import partial

from tests.e2e.kubectl import E2EError, NotYetError, wait_until
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.suite import Suite

FOUNDING_POINTS = (
    "after:apply-statefulset",
    "before:record-bootstrap",
    "after:record-bootstrap",
    "before:bootstrap",
    "after:bootstrap",
)
# Long enough for an operator that would found a second cluster to do it: it looks again every
# second while it waits.
_WATCH_SECONDS = 6.0


def operator_killed(suite: Suite, *, point: str) -> None:
    """The operator dies at ``point``, again and again, until it is replaced by a healthy one."""
    suite.need_operator()
    cluster = suite.cluster(f"fire-{point.replace(':', '-')}")
    suite.operator.arm(point)
    try:
        cluster.apply()
        suite.operator.wait_crashed(point)
    finally:
        suite.operator.disarm()
    cluster.wait_settled()
    _check_one_cluster(cluster)
    cluster.put("key", point)
    if cluster.get("key") != point:
        raise E2EError("what was written is not read")
    cluster.discard()


def target_lost(suite: Suite) -> None:
    """The founder's pod and claim go between record and call: nobody takes its place."""
    suite.need_operator()
    cluster = suite.cluster("lost-target")
    suite.operator.arm("before:bootstrap")
    try:
        cluster.apply()
        suite.operator.wait_crashed("before:bootstrap")
        suite.operator.stop()
        recorded = cluster.status()["bootstrap"]
        cluster.lose_volume(recorded["members"][0]["pod"])
    finally:
        suite.operator.disarm()
    cluster.wait_condition("Available", "False", "BootstrapTargetLost", seconds=60)
    _require_steady(cluster, {None}, recorded["clusterID"])
    # The way out that the condition names: delete and apply again.
    cluster.delete()
    cluster.apply()
    cluster.wait_settled()
    _check_one_cluster(cluster)
    cluster.discard()


def founder_lost(suite: Suite) -> None:
    """The founder's pod and claim go just after the call: the others are the cluster."""
    suite.need_operator()
    cluster = suite.cluster("lost-founder")
    suite.operator.arm("after:bootstrap")
    try:
        cluster.apply()
        suite.operator.wait_crashed("after:bootstrap")
        suite.operator.stop()
        recorded = cluster.status()["bootstrap"]
        founder = recorded["members"][0]["pod"]
        _wait_known(cluster, recorded["clusterID"], [m["pod"] for m in recorded["members"][1:]])
        cluster.lose_volume(founder)
    finally:
        suite.operator.disarm()
    cluster.wait_condition("Available", "True", seconds=60)
    cluster.wait_condition("Progressing", "False", "Settled", seconds=90)
    _require_steady(cluster, {None, recorded["clusterID"]}, recorded["clusterID"])
    cluster.wait_settled()  # the founder's pod is another member by now
    cluster.put("key", "value")
    cluster.discard()


def _wait_known(cluster: RaftCluster, cluster_id: str, pods: list[str]) -> None:
    def require_known() -> None:
        for pod in pods:
            if cluster.node_status(pod)["cluster_id"] != cluster_id:
                raise NotYetError(f"{pod} knows no cluster")

    wait_until("the others know the cluster", require_known, seconds=30)


def _check_one_cluster(cluster: RaftCluster) -> None:
    """One id: recorded, reported, and known to every member."""
    status = cluster.status()
    known = {cluster.node_status(pod["metadata"]["name"])["cluster_id"] for pod in cluster.pods()}
    recorded = status["bootstrap"]["clusterID"]
    if known != {recorded} or status.get("clusterID") != recorded:
        raise E2EError(
            f"recorded {recorded}, reported {status.get('clusterID')}, known to nodes {known}"
        )
    members = {member["memberID"] for member in status["bootstrap"]["members"]}
    reported = {member["id"] for member in status["members"]}
    if members != reported:
        raise E2EError(f"the members {reported} are not those recorded, {members}")


def _require_steady(cluster: RaftCluster, allowed: set[str | None], recorded: str) -> None:
    """For a while, no node knows any other cluster, and the record does not change."""
    looks = int(_WATCH_SECONDS)

    def look() -> None:
        nonlocal looks
        for pod in cluster.pods():
            known = cluster.node_status(pod["metadata"]["name"])["cluster_id"]
            if known not in allowed:
                raise E2EError(f"{pod['metadata']['name']} knows the cluster {known}")
        if cluster.status()["bootstrap"]["clusterID"] != recorded:
            raise E2EError("another cluster was recorded")
        looks -= 1
        if looks:
            raise NotYetError(f"{looks} more looks")

    wait_until("no second cluster forms", look, seconds=60, interval_seconds=1)


def _scenario(point: str) -> Scenario:
    return Scenario(
        f"crash-{point.replace(':', '-')}",
        f"the operator is killed {point.replace(':', ' ')}",
        partial(operator_killed, point=point),
    )


_IN_CI = ("after:record-bootstrap", "after:bootstrap")

SCENARIOS = (
    *map(_scenario, _IN_CI),
    Scenario("founder-lost", "the founder's volume goes after the call", founder_lost),
)
LONG_SCENARIOS = (
    *(_scenario(point) for point in FOUNDING_POINTS if point not in _IN_CI),
    Scenario("target-lost", "the founder's volume goes before the call", target_lost),
)
