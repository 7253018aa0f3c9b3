"""Changes of a formed cluster in whole passes: scaled, restarted, asleep, grown.

What is lost and replaced is in `test_healing.py`; crashes in between in `test_change_crashes.py`.
"""

import pytest

from raftkv_operator.objects import JsonObject
from tests.operator.fake_kubernetes import RefusedError
from tests.operator.scenarios import (
    asleep,
    at_rest,
    claims,
    formed,
    grown,
    images,
    pods,
    reasons,
    template_size,
    uids,
)
from tests.operator.world import World


async def test_rule_19_scaled_one_at_a_time_by_learners_that_are_promoted(world: World) -> None:
    operator = await formed(world)
    world.apply_cluster(replicas=5)
    await world.settle(operator)
    expected = ["add demo-3", "promote demo-3", "add demo-4", "promote demo-4"]
    assert world.nodes.calls == expected


async def test_rule_19_down_drains_then_removes_from_the_highest_and_leader_hands_over(
    world: World,
) -> None:
    operator = await formed(world, replicas=5)
    (cluster,) = world.nodes.formed.values()
    cluster.leader = next(id_ for id_, name in cluster.voters.items() if name == "demo-4")
    world.apply_cluster(replicas=3)
    await world.settle(operator)
    expected = ["transfer demo-0", "drain demo-4", "remove demo-4", "drain demo-3", "remove demo-3"]
    assert world.nodes.calls == expected


async def test_rule_19_learner_that_lags_is_not_promoted(world: World) -> None:
    operator = await formed(world)
    world.nodes.lagging.add("demo-3")
    world.apply_cluster(replicas=4)
    await world.settle(operator)
    assert world.nodes.calls == ["add demo-3"]
    status = world.status()
    assert status["operation"]["type"] == "ScaleUp"
    assert status["operation"]["step"] == "PromoteLearner"
    assert status["plan"] == ["promote demo-3"]
    assert status["blockedBy"] == "waiting for demo-3 to catch up"
    world.apply_cluster(replicas=3)  # no longer wanted
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == ["add demo-3", "remove demo-3"]


async def test_rule_19_member_stays_while_any_slice_holds_its_address(world: World) -> None:
    operator = await formed(world)
    world.kubernetes.stuck_slices.add("demo")
    world.apply_cluster(replicas=2)
    await world.settle(operator)
    assert world.nodes.calls == ["drain demo-2"]
    assert world.status()["blockedBy"] == "waiting for demo-2 to leave the EndpointSlices"
    world.kubernetes.stuck_slices.clear()
    before = operator.clock
    while "remove demo-2" not in world.nodes.calls:
        await world.step(operator)
    assert operator.clock - before > 3.0
    await world.settle(operator)
    at_rest(world, 2)


async def test_rule_18_next_pod_waits_until_clients_are_routed_to_the_last(world: World) -> None:
    operator = await formed(world)
    world.apply_cluster(image="raftkv:2")
    while "after:stop-pod" not in operator.failpoints.reached:
        await world.step(operator)
    world.kubernetes.stuck_slices.add("demo")
    await world.settle(operator)
    assert world.nodes.calls == ["drain demo-2"]
    expected = "waiting for demo-2 to serve again: not in the EndpointSlices yet"
    assert world.status()["blockedBy"] == expected
    world.kubernetes.stuck_slices.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert images(world) == {"raftkv:2"}


async def test_rule_19_undrained_when_the_spec_grows_back_before_the_removal(world: World) -> None:
    operator = await formed(world)
    world.apply_cluster(replicas=2)
    while "after:drain" not in operator.failpoints.reached:
        await world.step(operator)
    world.apply_cluster(replicas=3)
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == ["drain demo-2", "undrain demo-2"]


async def test_rule_19_member_that_is_needed_for_the_quorum_stays(world: World) -> None:
    operator = await formed(world)
    world.nodes.silent.add("demo-0")
    world.apply_cluster(replicas=2)
    await world.settle(operator)
    assert world.nodes.calls == []
    assert "no majority" in world.status()["blockedBy"]
    world.nodes.silent.clear()
    await world.settle(operator)
    at_rest(world, 2)


async def test_rule_07_scaled_up_onto_a_kept_claim_adds_the_same_id_again(world: World) -> None:
    operator = await formed(world)
    ids = [member["id"] for member in world.status()["members"]]
    world.apply_cluster(replicas=2)
    await world.settle(operator)
    kept = world.kubernetes.get("persistentvolumeclaims", "data-demo-2")
    world.apply_cluster(replicas=3)
    await world.settle(operator)
    at_rest(world, 3)
    assert world.kubernetes.get("persistentvolumeclaims", "data-demo-2") == kept
    assert [member["id"] for member in world.status()["members"]] == ids
    expected = ["drain demo-2", "remove demo-2", "add demo-2", "promote demo-2"]
    assert world.nodes.calls == expected


async def test_rule_07_kept_claim_of_another_cluster_is_reported_and_left_alone(
    world: World,
) -> None:
    operator = await formed(world)
    world.apply_cluster(replicas=2)
    await world.settle(operator)
    world.nodes.volumes["demo-2"].cluster_id = "other"
    world.nodes.volumes["demo-2"].is_removed = False
    kept = world.kubernetes.get("persistentvolumeclaims", "data-demo-2")
    world.apply_cluster(replicas=3)
    await world.settle(operator)
    assert world.condition("Degraded") == ("True", "ForeignData")
    assert "data-demo-2" in world.status()["blockedBy"]
    assert world.nodes.voters() == ["demo-0", "demo-1"]
    assert world.kubernetes.get("persistentvolumeclaims", "data-demo-2") == kept


async def test_rule_07_member_that_was_switched_off_when_it_was_removed(world: World) -> None:
    operator = await formed(world)
    world.nodes.silent.add("demo-2")
    world.apply_cluster(replicas=2)
    await world.settle(operator)
    at_rest(world, 2)
    world.nodes.silent.clear()
    world.apply_cluster(replicas=3)
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == ["remove demo-2", "add demo-2", "promote demo-2"]


async def test_rule_18_followers_first_and_leader_last_after_it_handed_over(world: World) -> None:
    operator = await formed(world)
    before = uids(world)
    world.apply_cluster(image="raftkv:2")
    await world.settle(operator)
    assert world.nodes.calls == [
        "drain demo-2", "drain demo-1", "transfer demo-1", "drain demo-0"
    ]  # fmt: skip
    assert not set(before.values()) & set(uids(world).values())
    assert reasons(world).count("RollingRestart") == 2  # begun and done


async def test_rule_18_broken_new_pod_holds_the_roll_and_a_corrected_spec_cures_it(
    world: World,
) -> None:
    operator = await formed(world)
    world.apply_cluster(image="raftkv:wrnog")
    while "after:stop-pod" not in operator.failpoints.reached:
        await world.step(operator)
    world.nodes.silent.add("demo-2")  # the image cannot be pulled
    await world.settle(operator)
    assert images(world) == {"raftkv:dev", "raftkv:wrnog"}
    assert "waiting for demo-2" in world.status()["blockedBy"]
    cured = world.kubernetes.get("pods", "demo-2")
    assert cured is not None
    world.apply_cluster(image="raftkv:2")
    while uids(world).get("demo-2") == cured["metadata"]["uid"]:
        await world.step(operator)
    assert len(set(uids(world)) - {"demo-2"}) == 2
    world.nodes.silent.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert images(world) == {"raftkv:2"}


async def test_rule_20_user_hears_first_that_a_restart_is_not_free(world: World) -> None:
    operator = await formed(world, replicas=1)
    before = uids(world)
    world.apply_cluster(image="raftkv:2")
    while "NotFree" not in reasons(world):
        assert uids(world) == before
        await world.step(operator)
    await world.settle(operator)
    at_rest(world, 1)


@pytest.mark.parametrize("replicas", [1, 3, 5])
async def test_rule_03_woken_with_exactly_the_recorded_members_then_to_spec(
    world: World, replicas: int
) -> None:
    operator = await formed(world)
    ids = {member["id"] for member in world.status()["members"]}
    world.apply_cluster(replicas=0)
    await world.settle(operator)
    asleep(world)
    world.apply_cluster(replicas=replicas)
    await world.settle(world.operator())
    at_rest(world, replicas)
    assert ids >= {member["id"] for member in world.status()["members"]} or replicas == 5
    assert "hibernated" not in world.status()
    assert len(world.nodes.bootstraps) == 1


async def test_rule_03_not_hibernated_while_nobody_knows_the_members(world: World) -> None:
    operator = await formed(world)
    world.nodes.silent |= {"demo-1", "demo-2"}
    world.apply_cluster(replicas=0)
    await world.settle(operator)
    assert len(pods(world)) == 3
    assert "hibernated" not in world.status()


async def test_rule_03_claims_go_with_the_cluster_only_if_asked(world: World) -> None:
    operator = await formed(world, storage={"whenDeleted": "Delete"})
    world.apply_cluster(storage={"whenDeleted": "Retain"})
    await world.settle(operator)
    for claim in world.kubernetes.of("persistentvolumeclaims"):
        assert not claim["metadata"]["ownerReferences"]
    world.apply_cluster(storage={"whenDeleted": "Delete"})
    await world.settle(operator)
    at_rest(world, 3)
    world.kubernetes.remove("raftkvclusters", "demo")
    assert claims(world) == []


async def test_rule_10_refused_growth_holds_nothing_back(world: World) -> None:
    operator = await formed(world)
    for ordinal in range(3):
        world.kubernetes.refusals[f"PATCH persistentvolumeclaims/data-demo-{ordinal}"] = (
            RefusedError(403, "Forbidden", "only dynamically provisioned claims can be resized")
        )
    world.apply_cluster(storage={"size": "2Gi"}, image="raftkv:2")
    for _ in range(40):
        await world.step(operator)
    assert images(world) == {"raftkv:2"}
    assert world.condition("StorageResize") == ("False", "Refused")
    assert "dynamically provisioned" in world.status()["blockedBy"]
    assert template_size(world) == "1Gi"
    world.kubernetes.refusals.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert grown(world)


async def test_rule_10_growth_restarts_no_pod(world: World) -> None:
    operator = await formed(world)
    before = uids(world)
    world.apply_cluster(storage={"size": "2Gi"})
    await world.settle(operator)
    assert uids(world) == before


async def test_rule_21_budget_is_lowered_before_a_member_leaves(world: World) -> None:
    operator = await formed(world, replicas=5)

    def budget() -> JsonObject:
        item = world.kubernetes.get("poddisruptionbudgets", "demo")
        assert item is not None
        return dict(item["spec"])

    assert budget()["maxUnavailable"] == 2
    world.apply_cluster(replicas=3)
    while "before:remove-member" not in operator.failpoints.reached:
        await world.step(operator)
    assert budget()["maxUnavailable"] == 1
