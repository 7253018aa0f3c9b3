"""The operator's reconcile loop as a process.

    python -m tests.observability.operator_process PORT FILE

Work queue, reconciler and metrics are the operator's own; Kubernetes is the fake one of the unit
tests, over HTTP, and so are the nodes. FILE holds JSON, read before every look at the world:
{"is_refusing": true, "is_silent": true}.
"""

import asyncio
import json
import random
import sys
from pathlib import Path

from aiohttp import web

from raftkv_operator.metrics import build_app
from raftkv_operator.work_queue import WorkQueue
from tests.operator.fake_kubernetes import RefusedError
from tests.operator.world import KEY, World, new_world

LOOK_SECONDS = 0.5
REFUSED = "PATCH services/demo"


def follow(world: World, path: Path) -> None:
    """Make the world as the file says."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        told = {}
    if told.get("is_refusing"):
        world.kubernetes.refusals[REFUSED] = RefusedError(403, "Forbidden", "no such right")
        if world.kubernetes.get("services", "demo") is not None:
            world.kubernetes.remove("services", "demo")
    else:
        world.kubernetes.refusals.pop(REFUSED, None)
    if told.get("is_silent"):
        world.nodes.silent |= {pod["metadata"]["name"] for pod in world.kubernetes.of("pods")}
    else:
        world.nodes.silent.clear()


async def run(port: int, path: Path) -> None:
    async with new_world() as world:
        world.may_lose_quorum = True
        world.apply_cluster()
        operator = world.operator()
        world.kube.on_request = operator.metrics.count_api_request
        await world.settle(operator)
        runner = web.AppRunner(build_app(operator.metrics), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

        async def process(_key: object) -> float | None:
            return await operator.reconcile()

        queue = WorkQueue(
            process,
            resync_seconds=LOOK_SECONDS,
            on_error=operator.metrics.reconcile_errors_total.inc,
            rng=random.Random(1),
        )
        while True:
            follow(world, path)
            world.kubernetes.run_stateful_sets()
            world.sync_readiness()
            await operator.see()
            queue.wake(KEY)
            await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
