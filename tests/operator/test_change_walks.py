"""Random changes, losses and crashes of the operator, one after the other."""

from random import Random

import pytest

from raftkv_operator.actions import action_points
from tests.operator.scenarios import at_rest, formed
from tests.operator.world import CrashError, Operator, World, new_world


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
