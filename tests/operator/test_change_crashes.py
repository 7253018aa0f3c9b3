"""Each scenario of a change, and the operator killed before and after every action that it takes.

A new operator goes on from there, perhaps with another spec.
"""

from typing import Any

import pytest

from raftkv_operator.actions import action_points
from tests.operator.scenarios import SCENARIOS, at_rest, images, play
from tests.operator.world import CrashingFailpoints, new_world

# Of scenarios that were played to their end in this process. Each takes the same way every time.
_PLAYED: dict[str, CrashingFailpoints] = {}


async def played(name: str) -> CrashingFailpoints:
    """The points that a scenario passes when nobody crashes."""
    if name not in _PLAYED:
        async with new_world() as world:
            _PLAYED[name] = (await play(world, SCENARIOS[name])).failpoints
    return _PLAYED[name]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_rule_03_08_10_18_19_change(name: str) -> None:
    assert (await played(name)).reached


# Every how many of a scenario's crash points: `make test` has time for some in each scenario,
# others in the next one; `make test-operator` kills at each.
STEPS = (6, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)]))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_rule_03_08_10_18_19_operator_killed_before_and_after_every_action(
    name: str, step: int
) -> None:
    points = sorted(set((await played(name)).reached))
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
    points = sorted(set((await played(name)).reached))
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
    for name in SCENARIOS:
        passed |= {point.partition(":")[2] for point in (await played(name)).ever}
    # By tests of their own: the one above, and `test_rule_02_crash_around_the_adoption`.
    assert set(action_points()) - passed == {"undrain", "record-adoption"}
