"""What an idle cluster costs: nothing at the API server, and little of a core (rule 13)."""

import time
from typing import Any

import pytest

from tests.operator.world import World

PASSES = 40
# 50 clusters, each looked at every 30 s, may cost 5 % of a core.
PASS_SECONDS_MAX = 0.05 * 30 / 50


@pytest.mark.parametrize(
    ("founded", "spec"),
    [
        (3, {}),
        (9, {"replicas": 9}),
        (3, {"replicas": 0}),
        (3, {"paused": True}),
        # A single voter has no disruption budget, and nobody goes on asking for one.
        (1, {"replicas": 1}),
        (1, {"replicas": 0}),
    ],
)
async def test_rule_13_idle_cluster_costs_no_request_and_little_time(
    world: World, founded: int, spec: dict[str, Any]
) -> None:
    world.apply_cluster(replicas=founded)
    operator = world.operator()
    await world.settle(operator)
    world.apply_cluster(**spec)
    await world.settle(operator)
    world.api_requests.clear()
    asked_before = world.nodes.asked
    began = time.process_time()
    for _ in range(PASSES):
        operator.clock += 30
        assert await operator.reconcile() is None  # nothing to come back for before the resync
    seconds = (time.process_time() - began) / PASSES
    assert world.api_requests == []
    assert seconds < PASS_SECONDS_MAX
    # Each node is asked who it is, and the leader for the members.
    pods = spec.get("replicas", 3)
    assert world.nodes.asked - asked_before == PASSES * (pods + bool(pods))
