"""Changes of a formed cluster in whole passes: scaled, restarted, healed, asleep, grown.

Each scenario is also run with the operator killed before and after every action that it takes, and
goes on from there with a new operator. The fake nodes fail the test when a needed voter would be
removed; the world does when the operator takes the quorum away.
"""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from raftkv_operator.actions import action_points
from raftkv_operator.objects import JsonObject
from tests.operator.fake_kubernetes import RefusedError
from tests.operator.world import CrashError, Operator, World, new_world


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as made:
        yield made


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


@pytest.mark.parametrize("name", SCENARIOS)
async def test_rule_03_08_10_18_19_change(world: World, name: str) -> None:
    await play(world, SCENARIOS[name])


# Every how many of a scenario's crash points: `make test` has time for some in each scenario,
# others in the next one; `make test-operator` kills at each.
STEPS = (6, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)]))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_rule_03_08_10_18_19_operator_killed_before_and_after_every_action(
    name: str, step: int
) -> None:
    async with new_world() as world:
        operator = await play(world, SCENARIOS[name])
        points = sorted(set(operator.failpoints.reached))
    assert len(points) > 4
    for point in points[list(SCENARIOS).index(name) % step :: step]:
        async with new_world() as world:
            await play(world, SCENARIOS[name], crash_at=point)


# What is changed while nobody is there, after a crash anywhere in the scenario of that name.
MEANWHILE: dict[str, dict[str, Any]] = {
    "rule-18-19-image-and-up": {"replicas": 2, "image": "raftkv:3"},
    "rule-19-down": {"replicas": 5},
    "rule-03-hibernate": {"replicas": 3},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", MEANWHILE)
async def test_rule_03_18_19_spec_changes_while_the_operator_is_dead(name: str, step: int) -> None:
    async with new_world() as world:
        operator = await play(world, SCENARIOS[name])
        points = sorted(set(operator.failpoints.reached))
    spec = MEANWHILE[name]
    undrained = 0
    for point in points[::step]:
        async with new_world() as world:
            await play(world, SCENARIOS[name], crash_at=point, meanwhile=spec)
            at_rest(world, spec["replicas"])
            assert images(world) == {spec.get("image", "raftkv:dev")}
            assert len(world.nodes.bootstraps) == 1
            undrained += sum(call.startswith("undrain") for call in world.nodes.calls)
    assert undrained > 0 or name != "rule-19-down" or step > 1


async def test_every_crash_point_is_passed_by_some_scenario() -> None:
    """A new action without a scenario fails here. Each is run with a crash at all its points."""
    passed: set[str] = set()
    for scenario in SCENARIOS.values():
        async with new_world() as world:
            operator = await play(world, scenario)
            passed |= {point.partition(":")[2] for point in operator.failpoints.ever}
    # By tests of their own: the one above, and `test_rule_02_crash_around_the_adoption`.
    assert set(action_points()) - passed == {"undrain", "record-adoption"}


# ---- details --------------------------------------------------------------------------------


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


async def test_rule_20_user_hears_first_that_a_restart_is_not_free(world: World) -> None:
    operator = await formed(world, replicas=1)
    before = uids(world)
    world.apply_cluster(image="raftkv:2")
    while "NotFree" not in reasons(world):
        assert uids(world) == before
        await world.step(operator)
    await world.settle(operator)
    at_rest(world, 1)


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


async def test_rule_08_machine_that_comes_back_before_the_deletion_stays(world: World) -> None:
    operator = await formed(world, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    while "after:record-replacement" not in operator.failpoints.reached:
        await world.step(operator)
    world.nodes.silent.clear()
    await world.settle(operator)
    at_rest(world, 3)
    assert world.nodes.calls == []


@pytest.mark.parametrize("after", ["10m", None])
async def test_rule_08_restart_soon_after_it_came_back_costs_no_claim(
    world: World, after: str | None
) -> None:
    """What was recorded is no leave to delete the claim of a pod that is not lost by now."""
    operator = await formed(world, nodeFailure={"replaceAfter": "10m"})
    machine_lost(world)
    while "after:record-replacement" not in operator.failpoints.reached:
        await world.step(operator)
    world.nodes.silent.clear()
    await world.settle(operator)
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


@pytest.mark.parametrize("seed", range(20))
async def test_rule_05_08_19_random_changes_crashes_and_losses_converge(seed: int) -> None:
    """Nothing needed is removed, no quorum is taken, and in the end everything is as asked."""
    random = Random(seed)
    async with new_world() as world:
        operator = await formed(world)
        replicas = 3
        for _ in range(8):
            replicas = misfortune(world, random, replicas)
            if random.random() < 0.5:
                operator = await crash_somewhere(world, operator, random)
            for _ in range(random.randrange(12)):
                await world.step(operator)
            world.nodes.silent.clear()
        await world.settle(operator)
        replicas = replicas or 3
        world.apply_cluster(replicas=replicas)
        await world.settle(operator)
        at_rest(world, replicas)
        assert len(world.nodes.bootstraps) == 1


def misfortune(world: World, random: Random, replicas: int) -> int:
    """One change of the spec, or one loss that the quorum bears; returns the wanted voters."""
    can_lose_one = len(world.nodes.voters()) > 2 and world.nodes.is_well()
    match random.randrange(9):
        case 0 | 1:
            replicas = random.randint(1, 6)
            world.apply_cluster(replicas=replicas)
        case 2:
            world.apply_cluster(restartAt=f"2026-11-21T10:00:{random.randrange(60):02}Z")
        case 3:
            world.apply_cluster(image=f"raftkv:{random.randrange(9)}")
        case 4:
            replicas = 0
            world.apply_cluster(replicas=0)
        case 5:
            world.apply_cluster(storage={"whenScaled": random.choice(("Retain", "Delete"))})
        case 6 if can_lose_one:
            world.nodes.silent.add(random.choice(world.nodes.voters()))
        case 7 if can_lose_one:
            world.nodes.lose_volume(random.choice(world.nodes.voters()))
        case _:
            pass
    return replicas


async def crash_somewhere(world: World, operator: Operator, random: Random) -> Operator:
    """Die at some point, if it comes within a few rounds; a new operator takes over."""
    point = random.choice(action_points())
    operator.crash_at(f"{random.choice(('before', 'after'))}:{point}")
    try:
        for _ in range(6):
            await world.step(operator)
    except CrashError:
        pass
    return world.operator()
