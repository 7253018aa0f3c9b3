"""The Lease: one holder, a fast return, and a wait for one that died (rule 6)."""

import asyncio
from contextlib import suppress

import pytest

from raftkv_operator.errors import NotFoundError
from raftkv_operator.lease import DURATION_SECONDS, LEASE_NAME, Gate, Lease
from tests.operator.fake_kubernetes import RefusedError
from tests.operator.world import World


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def is_open(gate: Gate) -> bool:
    """As a call: the type checker takes a property for a constant."""
    return gate.is_open


def lease(world: World, identity: str, clock: Clock) -> Lease:
    return Lease(world.kube, namespace="default", identity=identity, monotonic=clock)


async def test_rule_06_only_one_takes_it(world: World) -> None:
    clock = Clock()
    one, two = lease(world, "one", clock), lease(world, "two", clock)
    assert await one.try_take()
    assert not await two.try_take()
    assert await one.try_take()


async def test_lease_is_renewed_by_one_request(world: World) -> None:
    clock = Clock()
    one = lease(world, "one", clock)
    assert await one.try_take()
    world.api_requests.clear()
    assert await one.try_take()
    assert world.api_requests == ["update"]


async def test_lease_that_somebody_touched_or_deleted_is_looked_at_again(world: World) -> None:
    clock = Clock()
    one = lease(world, "one", clock)
    assert await one.try_take()
    live = world.kubernetes.get("leases", LEASE_NAME)
    assert live is not None
    world.kubernetes.put("leases", {**live, "spec": {**live["spec"], "holderIdentity": "two"}})
    assert not await one.try_take()
    world.kubernetes.remove("leases", LEASE_NAME)
    assert await one.try_take()
    world.kubernetes.remove("leases", LEASE_NAME)
    assert await one.try_take()


async def test_lease_in_a_namespace_that_is_not_there_is_an_error_that_is_logged(
    world: World,
) -> None:
    """Else the operator would stand still and not say why."""
    text = 'namespaces "gone" not found'
    world.kubernetes.refusals["POST leases/raftkv-operator"] = RefusedError(404, "NotFound", text)
    with pytest.raises(NotFoundError, match=text):
        await lease(world, "one", Clock()).try_take()


async def test_restarted_container_takes_its_own_lease_over_at_once(world: World) -> None:
    assert await lease(world, "pod", Clock()).try_take()
    assert await lease(world, "pod", Clock()).try_take()


async def test_lease_of_a_dead_holder_is_taken_after_it_was_seen_not_to_renew(
    world: World,
) -> None:
    clock = Clock()
    one, two = lease(world, "one", clock), lease(world, "two", clock)
    assert await one.try_take()
    assert not await two.try_take()
    clock.now += DURATION_SECONDS
    assert not await two.try_take()
    clock.now += 1
    assert await two.try_take()
    assert not await one.try_take()


async def test_renewal_by_the_holder_starts_the_wait_anew(world: World) -> None:
    clock = Clock()
    one, two = lease(world, "one", clock), lease(world, "two", clock)
    assert await one.try_take()
    assert not await two.try_take()
    clock.now += DURATION_SECONDS
    assert await one.try_take()
    clock.now += DURATION_SECONDS
    assert not await two.try_take()


async def test_gate_closes_by_itself_before_others_may_act(world: World) -> None:
    clock = Clock()
    one = lease(world, "one", clock)
    assert not is_open(one)
    await one._take_or_renew()
    assert is_open(one)
    world.kubernetes.refusals["PUT leases/raftkv-operator"] = RefusedError(503, "", "away")
    clock.now += DURATION_SECONDS - 1
    await one._take_or_renew()
    assert not is_open(one)


async def test_gate_closes_when_another_holds_the_lease(world: World) -> None:
    clock = Clock()
    one = lease(world, "one", clock)
    await one._take_or_renew()
    live = world.kubernetes.get("leases", "raftkv-operator")
    assert live is not None
    stolen = {**live, "spec": {**live["spec"], "holderIdentity": "two"}}
    world.kubernetes.put("leases", stolen)
    await one._take_or_renew()
    assert not one.is_open


async def test_stopped_operator_gives_the_lease_back(world: World) -> None:
    clock = Clock()
    one, two = lease(world, "one", clock), lease(world, "two", clock)
    await one._take_or_renew()
    task = asyncio.create_task(one.run())
    await world.kubernetes.wait_for_request("PUT leases/raftkv-operator")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not one.is_open
    assert await two.try_take()
