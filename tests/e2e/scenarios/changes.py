"""What a user changes, and what is lost, under load: scaled, restarted, healed, asleep, grown.

Clients keep their connections and try once more when one breaks, with an Idempotency-Key; apart
from the loss of a machine no request may fail.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.e2e.environment import machine_commands
from tests.e2e.kubectl import E2EError, NotYetError, run_command, wait_until
from tests.e2e.load import require_no_failures
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.suite import Suite

_CHANGE_SECONDS = 180.0
_WRITES_BETWEEN = 200
# Kubernetes notices a machine without power after 40 to 50 s.
_MACHINE_SECONDS = 300.0
_POINTS = ("after:add-learner", "after:remove-member")


def scale(suite: Suite) -> None:
    """3 -> 5 -> 3 with `kubectl scale`; claims are kept by default."""
    demo = suite.need_demo()
    with _no_failed_request(suite, demo):
        for replicas in (5, 3):
            _scale(demo, replicas)
            suite.client.wait_for_writes(_WRITES_BETWEEN)
    claims = suite.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
    if len(claims) != 5:
        raise E2EError(f"{len(claims)} of 5 claims are left")


def scale_again(suite: Suite) -> None:
    """3 -> 4 onto a claim that an earlier member left, then -> 3 with `whenScaled: Delete`."""
    demo = suite.need_demo()
    with _no_failed_request(suite, demo):
        demo.patch_spec(storage={"whenScaled": "Delete"})
        _scale(demo, 4)
        _scale(demo, 3)
        _wait_claims(demo, ["data-demo-0", "data-demo-1", "data-demo-2"])
    demo.patch_spec(storage={"whenScaled": "Retain"})


def roll(suite: Suite) -> None:
    """`restartAt`: every pod is another, every member is the same, one planned change of leader."""
    demo = suite.need_demo()
    pods = {pod["metadata"]["uid"] for pod in demo.pods()}
    members = _member_ids(demo)
    term = int(demo.status()["term"])
    with _no_failed_request(suite, demo):
        demo.patch_spec(restartAt="2026-11-21T10:00:00Z")
        _wait_changed(demo)
    left = pods & {pod["metadata"]["uid"] for pod in demo.pods()}
    if left:
        raise E2EError(f"{len(left)} pods were not restarted")
    if _member_ids(demo) != members:
        raise E2EError(f"the members are {_member_ids(demo)}, not {members}")
    elections = int(demo.status()["term"]) - term
    suite.row.notes.append(f"{elections} change of leader")
    if elections != 1:
        raise E2EError(f"{elections} terms began, of which one was planned")


def volume_emptied(suite: Suite) -> None:
    """A follower loses pod and claim: another member takes its place."""
    demo = suite.need_demo()
    lost = _a_follower(demo)
    before = _member_ids(demo)
    with _no_failed_request(suite, demo):
        demo.lose_volume(lost)
        _wait_replaced(demo, lost, before[lost], seconds=_CHANGE_SECONDS)
        suite.client.wait_for_writes(_WRITES_BETWEEN)
    _require_event(demo, "MemberReplaced")


def machine_lost(suite: Suite) -> None:
    """A machine is powered off and stays off: its member is replaced on another one."""
    commands = machine_commands()
    if commands is None:
        suite.row.notes.append("skipped: E2E_NODE_STOP and E2E_NODE_START are not set")
        return
    demo = suite.need_demo()
    lost, machine = _pod_on_a_spare_machine(suite, demo)
    before = _member_ids(demo)
    demo.patch_spec(nodeFailure={"replaceAfter": "20s"})
    suite.start_load(demo)
    try:
        _run(commands[0], machine)
        _wait_replaced(demo, lost, before[lost], seconds=_MACHINE_SECONDS)
        suite.client.wait_for_writes(_WRITES_BETWEEN)
    finally:
        _run(commands[1], machine)
        demo.patch_spec(nodeFailure={"replaceAfter": None})
    suite.stop_load()
    demo.wait_settled(seconds=_CHANGE_SECONDS)
    wait_until(f"{machine} is back", lambda: _require_machine(suite, machine), seconds=120)


def hibernate(suite: Suite) -> None:
    """`replicas: 0` and back: no pod, the same members, the same data."""
    demo = suite.need_demo()
    before = _member_ids(demo)
    demo.put("asleep", "kept")
    demo.patch_spec(replicas=0)
    demo.wait_condition("Available", "False", "Hibernated", seconds=60)
    wait_until("the pods are gone", lambda: _require_pods(demo, 0), seconds=90)
    demo.patch_spec(replicas=3)
    _wait_changed(demo)
    if _member_ids(demo) != before:
        raise E2EError(f"woke as {_member_ids(demo)}, not as {before}")
    if demo.get("asleep") != "kept":
        raise E2EError(f"woke with {demo.get('asleep')!r}")


def grow_storage(suite: Suite) -> None:
    """Larger volumes without a restart."""
    demo = suite.need_demo()
    pods = {pod["metadata"]["uid"] for pod in demo.pods()}
    with _no_failed_request(suite, demo):
        demo.patch_spec(storage={"size": "1100Mi"})
        demo.wait_condition("StorageResize", "True", seconds=60)
        suite.client.wait_for_writes(_WRITES_BETWEEN)
    claims = suite.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
    sizes = {item["spec"]["resources"]["requests"]["storage"] for item in claims}
    template = demo.stateful_set()["spec"]["volumeClaimTemplates"][0]["spec"]
    sizes.add(template["resources"]["requests"]["storage"])
    if sizes != {"1100Mi"}:
        raise E2EError(f"the sizes are {sizes}")
    if {pod["metadata"]["uid"] for pod in demo.pods()} != pods:
        raise E2EError("a pod was restarted")


def delete_with_claims(suite: Suite) -> None:
    """`whenDeleted: Delete`: a single node, restarted first, then gone with its claim."""
    suite.need_operator()
    cluster = suite.cluster("gone")
    cluster.apply(replicas=1, storage={"size": "64Mi", "whenDeleted": "Delete"})
    cluster.wait_settled()
    cluster.patch_spec(restartAt="2026-11-21T10:00:00Z")
    _wait_changed(cluster)
    _require_event(cluster, "NotFree")
    cluster.delete()
    _wait_claims(cluster, [])


def operator_killed(suite: Suite, *, point: str) -> None:
    """The operator dies at ``point`` of 3 -> 4 -> 3, again and again, until a healthy one comes."""
    demo = suite.need_demo()
    with _no_failed_request(suite, demo):
        if "remove" in point:
            _scale(demo, 4)
        suite.operator.arm(point)
        try:
            demo.patch_spec(replicas=3 if "remove" in point else 4)
            suite.operator.wait_crashed(point)
        finally:
            suite.operator.disarm()
        _wait_changed(demo)
        _scale(demo, 3)


# ---- helpers --------------------------------------------------------------------------------


@contextmanager
def _no_failed_request(suite: Suite, demo: RaftCluster) -> Iterator[None]:
    suite.start_load(demo, is_patient=True)
    try:
        yield
    except E2EError:
        suite.client.stop_load()
        raise
    require_no_failures(suite.stop_load())


def _scale(demo: RaftCluster, replicas: int) -> None:
    where = ("-n", demo.namespace)
    demo.kubectl("scale", f"rkv/{demo.name}", f"--replicas={replicas}", *where)
    _wait_changed(demo)


def _wait_changed(demo: RaftCluster) -> None:
    demo.wait_condition("Progressing", "False", "Settled", seconds=_CHANGE_SECONDS)
    demo.wait_settled()


def _member_ids(demo: RaftCluster) -> dict[str, str]:
    return {member["name"]: member["id"] for member in demo.status()["members"]}


def _a_follower(demo: RaftCluster) -> str:
    leader = demo.leader()
    return next(name for name in _member_ids(demo) if name != leader)


def _wait_replaced(demo: RaftCluster, pod: str, old: str, *, seconds: float) -> None:
    def require_another() -> None:
        if _member_ids(demo).get(pod) == old:
            raise NotYetError(f"{old} still is the member; {demo.status().get('operation')}")

    wait_until(f"{pod} is another member", require_another, seconds=seconds)
    _wait_changed(demo)


def _wait_claims(demo: RaftCluster, wanted: list[str]) -> None:
    def require_claims() -> None:
        items = demo.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
        found = sorted(item["metadata"]["name"] for item in items)
        if found != wanted:
            raise NotYetError(f"there are {', '.join(found)}")

    wait_until("the other claims are gone", require_claims, seconds=60)


def _require_event(demo: RaftCluster, reason: str) -> None:
    selector = f"--field-selector=involvedObject.name={demo.name},reason={reason}"
    if not demo.kubectl.items("events", "-n", demo.namespace, selector):
        raise E2EError(f"there is no Event {reason}")


def _pod_on_a_spare_machine(suite: Suite, demo: RaftCluster) -> tuple[str, str]:
    """A member's pod whose machine carries neither the operator nor the clients."""
    client = suite.kubectl.get("pod", "client", "-n", suite.client.namespace)
    busy = {pod["spec"].get("nodeName") for pod in (*suite.operator.pods(), client)}
    for pod in demo.pods():
        if pod["spec"]["nodeName"] not in busy:
            return pod["metadata"]["name"], pod["spec"]["nodeName"]
    raise E2EError("operator or clients are on every machine of the cluster")


def _require_machine(suite: Suite, machine: str) -> None:
    conditions = suite.kubectl.get("node", machine)["status"]["conditions"]
    if not any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
        raise NotYetError("not Ready")


def _require_pods(demo: RaftCluster, count: int) -> None:
    if len(demo.pods()) != count:
        raise NotYetError(f"{len(demo.pods())} pods")


def _run(command: str, machine: str) -> None:
    run_command("sh", "-c", command, environment={"NODE": machine}, seconds=120)


_RUNS: tuple[tuple[str, str, Callable[[Suite], None]], ...] = (
    ("scale", "3 -> 5 -> 3 under load", scale),
    ("scale-again", "onto a kept claim, and claims deleted", scale_again),
    ("roll", "rolling restart under load, leader last", roll),
    ("grow-storage", "larger volumes, no restart", grow_storage),
    ("volume-emptied", "a member without its volume is replaced", volume_emptied),
    ("machine-lost", "powered off, its member replaced", machine_lost),
    ("hibernate", "no pods, and back", hibernate),
    ("delete-with-claims", "one node, and whenDeleted: Delete", delete_with_claims),
)
SCENARIOS = (
    *(Scenario(*run) for run in _RUNS),
    *(
        Scenario(
            f"crash-{point.replace(':', '-')}",
            f"the operator is killed {point.replace(':', ' ')}",
            partial(operator_killed, point=point),
        )
        for point in _POINTS
    ),
)
