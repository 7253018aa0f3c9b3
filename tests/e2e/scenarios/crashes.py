"""The operator dies at every point of everything it does, and the spec changes meanwhile.

The points come from the operator's own list, so a new action without a way to provoke it here
fails `test_every_crash_point_is_provoked`. `make e2e` runs a choice of them, `make e2e-long` all.
Whatever happens there is one cluster, its members are who they should be, and no request fails.
"""

from collections.abc import Callable, Iterable
from functools import partial

from raftkv_operator.failpoints import crash_points
from tests.e2e.kubectl import E2EError, JsonObject
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.bootstrap import FOUNDING_POINTS
from tests.e2e.scenarios.network import install_pod_monitor_crd
from tests.e2e.scenarios.operators import OWNED_OBJECTS
from tests.e2e.scenarios.steps import (
    CHANGE_SECONDS,
    a_follower,
    member_ids,
    no_failed_request,
    scale_to,
    wait_changed,
    wait_value,
)
from tests.e2e.suite import Suite

Provoke = Callable[[Suite, RaftCluster], None]

# Kinds that are made once and never deleted while their cluster lives.
_KEPT_KINDS = ("serviceaccount", "configmap", "service", "statefulset")
# Founding has scenarios of its own; giving up a machine needs one without power.
_ELSEWHERE = frozenset({"record-bootstrap", "bootstrap"})
_NEEDS_A_DEAD_MACHINE = frozenset({"record-replacement", "discard-pod"})
_NEVER = frozenset(f"delete-{kind}" for kind in _KEPT_KINDS)

_IN_CI = ("before:promote-learner", "after:remove-member", "after:replace-member")


def _up(_: Suite, demo: RaftCluster) -> None:
    demo.patch_spec(replicas=4)


def _down(_: Suite, demo: RaftCluster) -> None:
    demo.patch_spec(replicas=3)


def _roll(_: Suite, demo: RaftCluster) -> None:
    # Another second than any before: the number of the generation is one that was never used.
    seconds = int(demo.object()["metadata"]["generation"])
    minute, second = divmod(seconds, 60)
    demo.patch_spec(restartAt=f"2026-11-21T12:{minute % 60:02}:{second:02}Z")


def _grow(_: Suite, demo: RaftCluster) -> None:
    size = demo.object()["spec"]["storage"]["size"].removesuffix("Mi")
    grown = int(size) + 1 if size.isdecimal() else 1200
    demo.patch_spec(storage={"size": f"{grown}Mi"})


def _lose_volume(_: Suite, demo: RaftCluster) -> None:
    demo.lose_volume(a_follower(demo))


def _own(_: Suite, demo: RaftCluster) -> None:
    wanted = "Retain" if demo.object()["spec"]["storage"]["whenDeleted"] == "Delete" else "Delete"
    demo.patch_spec(storage={"whenDeleted": wanted})


def _switch(field: str, key: str, suite: Suite, demo: RaftCluster) -> None:
    """Turn a setting over: what it governs is deleted, or made."""
    if field == "monitoring":
        install_pod_monitor_crd(suite)
    demo.patch_spec(**{field: {key: not demo.object()["spec"][field][key]}})


def _delete(kind: str, name: str, suite: Suite, demo: RaftCluster) -> None:
    suite.kubectl("delete", kind, name, "-n", demo.namespace, "--cascade=orphan", "--wait=false")


def _sleep(_: Suite, demo: RaftCluster) -> None:
    demo.patch_spec(replicas=0)


def _return(_: Suite, demo: RaftCluster) -> None:
    manifest = demo.object()
    demo.delete()
    spec: JsonObject = manifest["spec"]
    demo.apply(**spec)


def _bad_image(_: Suite, demo: RaftCluster) -> None:
    """A pod that cannot start is held; the corrected spec replaces it."""
    before = {pod["metadata"]["uid"] for pod in demo.pods()}
    image = demo.object()["spec"]["image"]
    demo.patch_spec(image="raftkv:there-is-none", imagePullPolicy="Never")

    def left() -> int:
        return len(before & {pod["metadata"]["uid"] for pod in demo.pods()})

    wait_value("one pod is held", left, len(before) - 1, CHANGE_SECONDS)
    demo.patch_spec(image=image, imagePullPolicy="IfNotPresent")


def _change_of_mind(_: Suite, demo: RaftCluster) -> None:
    """Fewer, and at once as many as before: the drained one is put back."""
    demo.patch_spec(replicas=3)
    wait_value("a drain began", lambda: _step(demo), "Drain", 60)
    demo.patch_spec(replicas=4)


def _step(demo: RaftCluster) -> object:
    return (demo.status().get("operation") or {}).get("step")


# What to do so that the operator reaches a point; before it, with how many replicas.
_PROVOKED: dict[str, tuple[int, Provoke]] = {
    "apply-serviceaccount": (3, partial(_delete, "serviceaccount", "demo-node")),
    "apply-configmap": (3, partial(_delete, "configmap", "demo-config")),
    "apply-service": (3, partial(_delete, "service", "demo-peers")),
    "apply-statefulset": (3, partial(_delete, "statefulset", "demo")),
    "apply-networkpolicy": (3, partial(_delete, "networkpolicy", "demo")),
    "apply-poddisruptionbudget": (3, partial(_delete, "poddisruptionbudget", "demo")),
    "apply-podmonitor": (3, partial(_switch, "monitoring", "podMonitor")),
    "delete-podmonitor": (3, partial(_switch, "monitoring", "podMonitor")),
    "delete-networkpolicy": (3, partial(_switch, "networkPolicy", "enabled")),
    "delete-poddisruptionbudget": (3, partial(_switch, "podDisruptionBudget", "enabled")),
    "replace-pod": (3, _bad_image),
    "record-adoption": (3, _return),
    "record-hibernation": (3, _sleep),
    "add-learner": (3, _up),
    "promote-learner": (3, _up),
    "replace-member": (3, _lose_volume),
    "remove-member": (4, _down),
    "transfer-leader": (3, _roll),
    "drain": (3, _roll),
    "undrain": (4, _change_of_mind),
    "stop-pod": (3, _roll),
    "delete-claim": (4, _down),
    "grow-claim": (3, _grow),
    "own-claim": (3, _own),
    "orphan-statefulset": (3, _grow),
    "post-event": (3, _up),
    "write-status": (3, _up),
}
_WITHOUT_LOAD = frozenset({"record-adoption", "record-hibernation"})


def unprovoked(points: Iterable[str]) -> set[str]:
    """Actions that no scenario leads the operator to."""
    actions = {point.partition(":")[2] for point in points}
    return actions - _PROVOKED.keys() - _ELSEWHERE - _NEEDS_A_DEAD_MACHINE - _NEVER


def operator_killed(suite: Suite, *, point: str) -> None:
    """The operator dies at ``point``, again and again, until a healthy one comes."""
    action = point.partition(":")[2]
    replicas, provoke = _PROVOKED[action]
    demo = suite.need_demo()
    demo.patch_spec(storage={"whenScaled": "Delete" if action == "delete-claim" else "Retain"})
    if len(demo.pods()) != replicas:
        scale_to(demo, replicas)
    cluster_id = demo.cluster_id()
    if action in _WITHOUT_LOAD:
        demo.put("before", point)
        _kill_and_recover(suite, demo, point, provoke)
    else:
        # The log of a killed operator does not tell which changes of leader it had planned.
        with no_failed_request(suite, demo, is_term_bound=False):
            _kill_and_recover(suite, demo, point, provoke)
    if demo.cluster_id() != cluster_id:
        raise E2EError(f"the cluster is {demo.cluster_id()}, and was {cluster_id}")
    if action in _WITHOUT_LOAD and demo.get("before") != point:
        raise E2EError("what was written before is not read")
    scale_to(demo, 3)
    if len(member_ids(demo)) != 3:
        raise E2EError(f"the members are {member_ids(demo)}")


def _kill_and_recover(suite: Suite, demo: RaftCluster, point: str, provoke: Provoke) -> None:
    action = point.partition(":")[2]
    if action.startswith("delete-pod") and action == "delete-podmonitor":
        _switch("monitoring", "podMonitor", suite, demo)
        wait_changed(demo)
    suite.operator.arm(point)
    try:
        provoke(suite, demo)
        suite.operator.wait_crashed(point)
    finally:
        suite.operator.disarm()
    if action == "record-hibernation":
        demo.wait_condition("Available", "False", "Hibernated", seconds=90)
        demo.patch_spec(replicas=3)
    for field, key in (("networkPolicy", "enabled"), ("podDisruptionBudget", "enabled")):
        demo.patch_spec(**{field: {key: True}})
    demo.patch_spec(monitoring={"podMonitor": False})
    wait_changed(demo)
    # What the status says may be of before the kill, if the spec did not change.
    wait_value("objects that are missing", lambda: _missing(suite, demo), [], CHANGE_SECONDS)


def _missing(suite: Suite, demo: RaftCluster) -> list[str]:
    """Which of the cluster's objects are not there, or on their way out."""
    found = (
        (f"{kind} {name}", suite.kubectl.find(kind, name, "-n", demo.namespace))
        for kind, name in OWNED_OBJECTS
    )
    return [what for what, item in found if item is None or "deletionTimestamp" in item["metadata"]]


def _scenario(point: str) -> Scenario:
    return Scenario(
        f"crash-{point.replace(':', '-')}",
        f"the operator is killed {point.replace(':', ' ')}",
        partial(operator_killed, point=point),
    )


SCENARIOS = tuple(map(_scenario, _IN_CI))
LONG_SCENARIOS = tuple(
    _scenario(point)
    for point in crash_points()
    if point.partition(":")[2] in _PROVOKED and point not in (*_IN_CI, *FOUNDING_POINTS)
)
