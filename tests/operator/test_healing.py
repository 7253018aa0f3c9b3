"""Pods that do not run, volumes and machines that are lost: what is replaced, and what never is."""

from datetime import timedelta

import pytest

from tests.operator.scenarios import at_rest, claims, formed, machine_lost, uids
from tests.operator.world import Operator, World


async def test_rule_05_bad_template_is_cured_without_a_quorum_and_nothing_else(
    world: World,
) -> None:
    operator = await formed(world)
    world.may_lose_quorum = True
    world.nodes.silent |= {"demo-1", "demo-2"}
    await world.settle(operator)
    before = uids(world)
    world.apply_cluster(image="raftkv:2", replicas=5)
    await world.settle(operator)
    after = uids(world)
    assert {name for name in before if before[name] != after[name]} == {"demo-1", "demo-2"}
    assert world.nodes.calls == []
    assert claims(world) == ["data-demo-0", "data-demo-1", "data-demo-2"]
    assert world.condition("Available") == ("False", "QuorumLost")
    world.nodes.silent.clear()
    await world.settle(operator)
    at_rest(world, 5)


async def test_rule_08_machine_is_only_reported_by_default(world: World) -> None:
    operator = await formed(world)
    machine_lost(world)
    await world.settle(operator)
    assert world.nodes.calls == []
    assert world.condition("Degraded") == ("True", "MembersUnhealthy")


async def test_rule_08_no_more_machines_an_hour_than_allowed(world: World) -> None:
    operator = await formed(world, replicas=5, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    await world.settle(operator)
    at_rest(world, 5)
    assert len(world.status()["replacements"]) == 1
    machine_lost(world)
    await world.settle(operator)
    assert "maxPerHour" in world.status()["blockedBy"]
    world.now += timedelta(hours=1)
    await world.settle(operator)
    at_rest(world, 5)


async def test_rule_08_nothing_is_given_up_while_another_voter_is_unwell(world: World) -> None:
    operator = await formed(world, replicas=5, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    world.nodes.silent.add("demo-1")
    await world.settle(operator)
    assert world.nodes.calls == []
    assert len(claims(world)) == 5


async def came_back_before_the_deletion(world: World) -> Operator:
    """The replacement is recorded, then the machine answers again, and all has settled."""
    operator = await formed(world, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    while "after:record-replacement" not in operator.failpoints.reached:
        await world.step(operator)
    world.nodes.silent.clear()
    await world.settle(operator)
    return operator


async def test_rule_08_machine_that_comes_back_before_the_deletion_stays(world: World) -> None:
    await came_back_before_the_deletion(world)
    at_rest(world, 3)
    assert world.nodes.calls == []


@pytest.mark.parametrize("after", ["10m", None])
async def test_rule_08_restart_soon_after_it_came_back_costs_no_claim(
    world: World, after: str | None
) -> None:
    """What was recorded is no leave to delete the claim of a pod that is not lost by now."""
    operator = await came_back_before_the_deletion(world)
    world.apply_cluster(nodeFailure={"replaceAfter": after})
    world.nodes.silent.add("demo-2")  # for seconds: its container is started anew
    pod = world.kubernetes.get("pods", "demo-2")
    assert pod is not None
    now = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": now}]
    world.kubernetes.put("pods", pod, is_spec_changed=False)
    for _ in range(3):
        await world.step(operator)
    assert not {"before:delete-claim", "before:discard-pod"} & operator.failpoints.ever
    world.nodes.silent.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == []


async def test_rule_08_pod_whose_volume_is_on_a_machine_that_is_gone(world: World) -> None:
    """The machine was deleted, so its pod was made anew, and cannot run anywhere."""
    operator = await formed(world, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    pod = world.kubernetes.get("pods", "demo-2")
    assert pod is not None
    pod["metadata"]["uid"] = "made-anew"
    pod["status"]["conditions"] = [
        {"type": "Ready", "status": "False"},
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "2 node(s) didn't match PersistentVolume's node affinity.",
            "lastTransitionTime": "2026-11-21T09:00:00Z",
        },
    ]
    world.kubernetes.put("pods", pod, is_spec_changed=False)
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == ["add demo-2", "replace demo-2"]


async def test_rule_08_restart_that_takes_long_is_no_lost_machine(world: World) -> None:
    operator = await formed(world, nodeFailure={"replaceAfter": "10s"})
    machine_lost(world)
    pod = world.kubernetes.get("pods", "demo-2")
    assert pod is not None
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:30Z"  # the end of its grace period
    world.kubernetes.put("pods", pod, is_spec_changed=False)
    await world.settle(operator)
    assert "replacements" not in world.status()
    world.now += timedelta(seconds=31)
    await world.settle(operator)
    at_rest(world, 3)


async def test_rule_08_volume_lost_again_before_its_learner_caught_up(world: World) -> None:
    operator = await formed(world)
    world.nodes.lose_volume("demo-2")
    world.nodes.lagging.add("demo-2")
    await world.settle(operator)
    assert world.nodes.calls == ["add demo-2"]
    world.nodes.lose_volume("demo-2")
    world.nodes.lagging.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == ["add demo-2", "remove demo-2", "add demo-2", "replace demo-2"]


async def test_rule_08_node_that_has_not_read_its_volume_yet_has_not_lost_it(world: World) -> None:
    operator = await formed(world)
    world.nodes.starting.add("demo-2")
    await world.settle(operator)
    assert world.nodes.calls == []
    world.nodes.starting.clear()
    world.nodes.lagging.add("demo-3")
    world.apply_cluster(replicas=4)
    await world.settle(operator)
    world.nodes.starting.add("demo-3")  # a learner's pod was restarted
    await world.settle(operator)
    assert world.nodes.calls == ["add demo-3"]
