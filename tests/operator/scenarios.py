"""Changes of a formed cluster, each with what must come of it, and how such a cluster is looked at.

The fake nodes fail the test when a needed voter would be removed; the world does when the operator
takes the quorum away.
"""

from collections.abc import Callable
from typing import Any

import pytest

from raftkv_operator.objects import JsonObject
from tests.operator.world import CrashError, Operator, World


async def formed(world: World, **spec: Any) -> Operator:
    """An operator and a settled cluster."""
    world.apply_cluster(**spec)
    operator = world.operator()
    await world.settle(operator)
    assert world.condition("Available") == ("True", "Serving")
    operator.failpoints.reached.clear()
    return operator


def pods(world: World) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.kubernetes.of("pods")]


def claims(world: World) -> list[str]:
    return [item["metadata"]["name"] for item in world.kubernetes.of("persistentvolumeclaims")]


def uids(world: World) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in world.kubernetes.of("pods")}


def images(world: World) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in world.kubernetes.of("pods")}


def reasons(world: World) -> list[str]:
    return [item["reason"] for item in world.kubernetes.of("events")]


def at_rest(world: World, voters: int) -> None:
    """``voters`` voters, as many pods, nothing under way and nothing wrong."""
    wanted = [f"demo-{ordinal}" for ordinal in range(voters)]
    status = world.status()
    assert world.nodes.voters() == pods(world) == wanted
    assert [member["name"] for member in status["members"]] == wanted
    assert status["readyReplicas"] == voters
    assert world.condition("Available") == ("True", "Serving")
    assert world.condition("Degraded") == ("False", "Healthy")
    assert world.condition("Progressing") == ("False", "Settled")
    assert "operation" not in status
    assert len(world.nodes.formed) == 1


# ---- scenarios ------------------------------------------------------------------------------


class Scenario:
    """A settled cluster, what is changed, and what must come of it."""

    def __init__(
        self,
        before: dict[str, Any],
        change: Callable[[World], None],
        expect: Callable[[World], None],
        *,
        then: dict[str, Any] | None = None,
        knows_pod_monitors: bool = False,
    ) -> None:
        self.before = before
        self.knows_pod_monitors = knows_pod_monitors
        self.then = then  # applied and settled before the change
        self.change = change
        self.expect = expect


def apply(**spec: Any) -> Callable[[World], None]:
    return lambda world: world.apply_cluster(**spec)


def lose_volume(*lost: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for pod in lost:
            world.nodes.lose_volume(pod)

    return change


def rest(voters: int, **more: Callable[[World], bool]) -> Callable[[World], None]:
    def expect(world: World) -> None:
        at_rest(world, voters)
        for name, check in more.items():
            assert check(world), name

    return expect


def asleep(world: World) -> None:
    assert pods(world) == []
    assert claims(world) == ["data-demo-0", "data-demo-1", "data-demo-2"]
    assert world.condition("Available") == ("False", "Hibernated")
    assert world.condition("Degraded") == ("False", "Healthy")
    hibernated = [member["pod"] for member in world.status()["hibernated"]]
    assert sorted(hibernated) == ["demo-0", "demo-1", "demo-2"]


def machine_lost(world: World) -> None:
    """demo-2's node is powered off: nothing answers, and Kubernetes says so for an hour."""
    world.nodes.silent.add("demo-2")
    pod = world.kubernetes.get("pods", "demo-2")
    assert pod is not None
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T09:00:00Z"}
    pod["status"]["conditions"] = [condition]
    world.kubernetes.put("pods", pod, is_spec_changed=False)
    remove = world.kubernetes.on_claim_gone

    def revive(name: str) -> None:
        remove(name)
        world.nodes.silent.discard(name)

    world.kubernetes.on_claim_gone = revive


def broken_pod(world: World) -> None:
    """demo-2 runs an image that never starts, and the spec is corrected."""
    pod = world.kubernetes.get("pods", "demo-2")
    assert pod is not None
    world.nodes.broken.add(pod["metadata"]["uid"])
    world.apply_cluster(image="raftkv:2")


def owned(world: World) -> bool:
    """Whether all claims go with the cluster."""
    claims = world.kubernetes.of("persistentvolumeclaims")
    return all(claim["metadata"].get("ownerReferences") for claim in claims)


def switched(world: World) -> list[JsonObject]:
    """The objects that a setting can switch off."""
    plurals = ("networkpolicies", "poddisruptionbudgets", "podmonitors")
    return [item for plural in plurals for item in world.kubernetes.of(plural)]


def sizes(world: World) -> set[str]:
    return {
        item["spec"]["resources"]["requests"]["storage"]
        for item in world.kubernetes.of("persistentvolumeclaims")
    }


def template_size(world: World) -> str:
    item = world.kubernetes.get("statefulsets", "demo")
    assert item is not None
    template = item["spec"]["volumeClaimTemplates"][0]
    return str(template["spec"]["resources"]["requests"]["storage"])


def grown(world: World) -> bool:
    return sizes(world) == {"2Gi"} and template_size(world) == "2Gi"


SCENARIOS = {
    "rule-19-up": Scenario({}, apply(replicas=5), rest(5)),
    "rule-19-down": Scenario(
        {"replicas": 5},
        apply(replicas=3),
        rest(3, kept=lambda world: len(claims(world)) == 5),
    ),
    "rule-19-to-one": Scenario({}, apply(replicas=1), rest(1)),
    "rule-07-up-onto-a-kept-claim": Scenario(
        {},
        apply(replicas=3),
        rest(3, kept=lambda world: len(world.nodes.volumes) == 3),
        then={"replicas": 2},
    ),
    "rule-03-scaled-claims-deleted": Scenario(
        {"replicas": 5, "storage": {"whenScaled": "Delete"}},
        apply(replicas=3),
        rest(3, deleted=lambda world: claims(world) == [f"data-demo-{i}" for i in range(3)]),
    ),
    "rule-18-image": Scenario(
        {}, apply(image="raftkv:2"), rest(3, image=lambda world: images(world) == {"raftkv:2"})
    ),
    "rule-18-restart": Scenario({}, apply(restartAt="2026-11-21T10:00:00Z"), rest(3)),
    "rule-20-image-of-one": Scenario(
        {"replicas": 1},
        apply(image="raftkv:2"),
        rest(1, image=lambda world: images(world) == {"raftkv:2"}),
    ),
    "rule-18-19-image-and-up": Scenario(
        {},
        apply(image="raftkv:2", replicas=5),
        rest(5, image=lambda world: images(world) == {"raftkv:2"}),
    ),
    "rule-08-volume-lost": Scenario(
        {},
        lose_volume("demo-1"),
        rest(3, told=lambda world: "MemberReplaced" in reasons(world)),
    ),
    "rule-08-two-of-five-volumes-lost": Scenario(
        {"replicas": 5}, lose_volume("demo-1", "demo-4"), rest(5)
    ),
    "rule-08-machine-lost": Scenario(
        {"nodeFailure": {"replaceAfter": "10m"}}, machine_lost, rest(3)
    ),
    "rule-05-broken-pod-cured": Scenario({}, broken_pod, rest(3)),
    "rule-03-owned-claims": Scenario(
        {}, apply(storage={"whenDeleted": "Delete"}, replicas=4), rest(4, owned=owned)
    ),
    "rule-13-switched-off": Scenario(
        {"monitoring": {"podMonitor": True}},
        apply(
            monitoring={"podMonitor": False},
            networkPolicy={"enabled": False},
            podDisruptionBudget={"enabled": False},
        ),
        rest(3, gone=lambda world: switched(world) == []),
        knows_pod_monitors=True,
    ),
    "rule-03-hibernate": Scenario({}, apply(replicas=0), asleep),
    "rule-10-growth": Scenario({}, apply(storage={"size": "2Gi"}), rest(3, grown=grown)),
}


async def play(
    world: World,
    scenario: Scenario,
    crash_at: str | None = None,
    *,
    meanwhile: dict[str, Any] | None = None,
) -> Operator:
    """The scenario; with ``crash_at``, a new operator goes on, perhaps with another spec."""
    if scenario.knows_pod_monitors:
        world.kubernetes.absent.clear()
    operator = await formed(world, **scenario.before)
    if scenario.then is not None:
        world.apply_cluster(**scenario.then)
        await world.settle(operator)
        operator.failpoints.reached.clear()
    scenario.change(world)
    if crash_at is not None:
        operator.crash_at(crash_at)
        with pytest.raises(CrashError):
            await world.settle(operator)
        operator = world.operator()
    if meanwhile is not None:
        world.apply_cluster(**meanwhile)
    await world.settle(operator)
    if meanwhile is None:
        scenario.expect(world)
    return operator
