"""What a user changes under load: scaled, restarted, another image, grown, asleep, paused."""

from tests.e2e.environment import build_image
from tests.e2e.kubectl import E2EError, NotYetError, wait_until
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.steps import (
    CHANGE_SECONDS,
    WRITES_BETWEEN,
    QuorumWatch,
    member_ids,
    no_failed_request,
    pod_uids,
    require_event,
    require_same_members,
    scale_to,
    wait_changed,
    wait_claims,
    wait_value,
)
from tests.e2e.suite import Suite

_STEADY_WRITES = 500
_LONG_ROUNDS = 5


def scale(suite: Suite) -> None:
    """3 -> 5 -> 3 with `kubectl scale`; claims are kept by default."""
    demo = suite.need_demo()
    with no_failed_request(suite, demo):
        for replicas in (5, 3):
            scale_to(demo, replicas)
            suite.client.wait_for_writes(WRITES_BETWEEN)
    claims = suite.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
    if len(claims) != 5:
        raise E2EError(f"{len(claims)} of 5 claims are left")


def scale_again(suite: Suite) -> None:
    """3 -> 4 onto a claim that an earlier member left, then -> 3 with `whenScaled: Delete`."""
    demo = suite.need_demo()
    with no_failed_request(suite, demo):
        demo.patch_spec(storage={"whenScaled": "Delete"})
        scale_to(demo, 4)
        scale_to(demo, 3)
        # With the one that 5 -> 3 kept: no member is on it, and none will be.
        wait_claims(demo, [f"data-demo-{ordinal}" for ordinal in range(3)])
    demo.patch_spec(storage={"whenScaled": "Retain"})


def down_to_one(suite: Suite) -> None:
    """5 -> 1 in one step, then -> 3; with fewer than three voters a write may wait."""
    demo = suite.need_demo()
    demo.patch_spec(storage={"whenScaled": "Delete"})
    scale_to(demo, 5)
    with no_failed_request(suite, demo):
        suite.client.wait_for_writes(WRITES_BETWEEN)
        demo.patch_spec(replicas=1)
        wait_until("three voters are left", lambda: _require_voters(demo, 3), seconds=120)
        suite.client.mark_load()
        wait_changed(demo)
        suite.client.wait_for_writes(WRITES_BETWEEN)
    pause = suite.row.loads[-1].longest_gap_before_mark_seconds
    suite.row.notes.append(f"longest pause with three voters or more {pause:.2f} s")
    wait_claims(demo, ["data-demo-0"])
    scale_to(demo, 3)
    demo.patch_spec(storage={"whenScaled": "Retain"})


def scale_for_long(suite: Suite) -> None:
    """1 -> 3 -> 7 -> 3 -> 1 five times under load, the quorum watched all the time."""
    suite.need_operator()
    cluster = suite.cluster("long")
    cluster.apply(replicas=1, storage={"size": "64Mi", "whenScaled": "Delete"})
    cluster.wait_settled()
    with QuorumWatch(cluster) as quorum:
        for _ in range(_LONG_ROUNDS):
            for replicas in (3, 7, 3, 1):
                # With one or two voters a change is not free: writes may wait, none may fail.
                with no_failed_request(
                    suite, cluster, is_gap_bound=min(replicas, len(cluster.pods())) >= 3
                ):
                    scale_to(cluster, replicas)
                    suite.client.wait_for_writes(WRITES_BETWEEN)
    suite.row.notes.append(f"the quorum was looked at {quorum.looks} times")
    cluster.discard()


def roll(suite: Suite) -> None:
    """`restartAt`: every pod is another, every member is the same, one planned change of leader."""
    _roll(suite, suite.need_demo(), restartAt="2026-11-21T10:00:00Z")


def roll_image(suite: Suite) -> None:
    """Another image under load."""
    other = build_image(f"{suite.image}-next", suite.kubectl)
    if other is None:
        suite.row.notes.append("skipped: without E2E_BUILD there is no other image")
        return
    demo = suite.need_demo()
    _roll(suite, demo, image=other)
    images = {pod["spec"]["containers"][0]["image"] for pod in demo.pods()}
    if images != {other}:
        raise E2EError(f"the pods run {images}")
    # `roll-broken` brings the first image back.


def _roll(suite: Suite, demo: RaftCluster, **spec: object) -> None:
    pods, members = pod_uids(demo), member_ids(demo)
    with no_failed_request(suite, demo):
        demo.patch_spec(**spec)
        wait_changed(demo)
    left = pods & pod_uids(demo)
    if left:
        raise E2EError(f"{len(left)} pods were not restarted")
    require_same_members(demo, members)


def roll_broken(suite: Suite) -> None:
    """An image that does not exist holds the roll at one pod; the corrected spec cures it."""
    demo = suite.need_demo(is_image_kept=True)
    pods, members = pod_uids(demo), member_ids(demo)
    with no_failed_request(suite, demo):
        demo.patch_spec(image="raftkv:there-is-none", imagePullPolicy="Never")
        wait_value("one pod is held", lambda: len(pods & pod_uids(demo)), 2, CHANGE_SECONDS)
        suite.client.wait_for_writes(_STEADY_WRITES)
        if len(pods & pod_uids(demo)) != 2:
            raise E2EError("the roll went on over a broken pod")
        demo.patch_spec(image=suite.image, imagePullPolicy="IfNotPresent")
        wait_changed(demo)
    require_same_members(demo, members)


def grow_storage(suite: Suite) -> None:
    """Larger volumes without a restart."""
    demo = suite.need_demo()
    pods = pod_uids(demo)
    with no_failed_request(suite, demo):
        demo.patch_spec(storage={"size": "1100Mi"})
        demo.wait_condition("StorageResize", "True", seconds=60)
        suite.client.wait_for_writes(WRITES_BETWEEN)
    claims = suite.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
    sizes = {item["spec"]["resources"]["requests"]["storage"] for item in claims}
    template = demo.stateful_set()["spec"]["volumeClaimTemplates"][0]["spec"]
    sizes.add(template["resources"]["requests"]["storage"])
    if sizes != {"1100Mi"}:
        raise E2EError(f"the sizes are {sizes}")
    if pod_uids(demo) != pods:
        raise E2EError("a pod was restarted")


def grow_refused(suite: Suite) -> None:
    """A storage class that cannot grow: said in the API's own words, and nothing else stops."""
    if suite.kubectl.find("storageclass", "fixed") is None:
        suite.row.notes.append("skipped: there is no storage class 'fixed' that refuses growth")
        return
    suite.need_operator()
    cluster = suite.cluster("fixed")
    cluster.apply(replicas=1, storage={"size": "64Mi", "storageClassName": "fixed"})
    cluster.wait_settled()
    cluster.patch_spec(storage={"size": "128Mi"})
    said = cluster.wait_condition("StorageResize", "False", "Refused", seconds=60)["message"]
    if "resize" not in said:
        raise E2EError(f"the API server's sentence is missing: {said!r}")
    # Scaling goes on all the same, with the old size.
    cluster.patch_spec(replicas=3)
    wait_value("three pods", lambda: len(cluster.pods()), 3, CHANGE_SECONDS)
    cluster.wait_settled(seconds=CHANGE_SECONDS)
    cluster.discard()


def hibernate(suite: Suite) -> None:
    """`replicas: 0` and back: no pod, the same members, the same data."""
    demo = suite.need_demo()
    before = member_ids(demo)
    demo.put("asleep", "kept")
    demo.patch_spec(replicas=0)
    demo.wait_condition("Available", "False", "Hibernated", seconds=60)
    wait_value("the pods are gone", lambda: len(demo.pods()), 0, 90)
    demo.patch_spec(replicas=3)
    wait_changed(demo)
    require_same_members(demo, before)
    if demo.get("asleep") != "kept":
        raise E2EError(f"woke with {demo.get('asleep')!r}")


def paused(suite: Suite) -> None:
    """`paused: true`: drift and changes are left alone, then caught up with."""
    demo = suite.need_demo()
    budget = ("poddisruptionbudget", demo.name, "-n", demo.namespace)
    demo.patch_spec(paused=True)
    demo.wait_condition("Paused", "True", seconds=30)
    suite.kubectl("delete", *budget)
    demo.patch_spec(replicas=4)
    demo.wait_condition("Paused", "True", seconds=30)  # for the new spec
    suite.start_load(demo, is_patient=True)
    suite.client.wait_for_writes(_STEADY_WRITES)
    suite.stop_load()
    if suite.kubectl.find(*budget) is not None or len(demo.pods()) != 3:
        raise E2EError("a paused cluster was changed")
    demo.patch_spec(replicas=3, paused=False)
    demo.wait_condition("Paused", "False", seconds=30)
    wait_value("the budget is back", lambda: suite.kubectl.find(*budget) is not None, True)
    wait_changed(demo)


def delete_with_claims(suite: Suite) -> None:
    """`whenDeleted: Delete`: a single node, restarted first, then gone with its claim."""
    suite.need_operator()
    cluster = suite.cluster("gone")
    cluster.apply(replicas=1, storage={"size": "64Mi", "whenDeleted": "Delete"})
    cluster.wait_settled()
    cluster.patch_spec(restartAt="2026-11-21T10:00:00Z")
    wait_changed(cluster)
    require_event(cluster, "NotFree")
    cluster.delete()
    wait_claims(cluster, [])


def _require_voters(demo: RaftCluster, count: int) -> None:
    voters = sum(member["voter"] for member in demo.status()["members"])
    if voters > count:
        raise NotYetError(f"{voters} voters")


SCENARIOS = (
    Scenario("scale", "3 -> 5 -> 3 under load", scale),
    Scenario("scale-again", "onto a kept claim, and claims deleted", scale_again),
    Scenario("down-to-one", "5 -> 1 under load, and back to 3", down_to_one),
    Scenario("roll", "rolling restart under load, leader last", roll),
    Scenario("roll-image", "another image under load", roll_image),
    Scenario("roll-broken", "an image that does not exist, then one that does", roll_broken),
    Scenario("grow-storage", "larger volumes, no restart", grow_storage),
    Scenario("hibernate", "no pods, and back", hibernate),
    Scenario("paused", "nothing is changed while paused", paused),
)
LIGHT_SCENARIOS = (
    Scenario("grow-refused", "the storage class cannot grow", grow_refused),
    Scenario("delete-with-claims", "one node, and whenDeleted: Delete", delete_with_claims),
)
LONG_SCENARIOS = (
    Scenario("scale-long", "1 -> 3 -> 7 -> 3 -> 1 five times under load", scale_for_long),
)
