"""The work queue: one pass at a time for each cluster, wakes coalesced, errors contained."""

import asyncio
import random
from collections.abc import Callable

import pytest

from raftkv_operator.clusters import ClusterKey, Clusters
from raftkv_operator.errors import KubeError
from raftkv_operator.work_queue import WorkQueue
from tests.operator.examples import body

ONE, TWO = ClusterKey("default", "one"), ClusterKey("default", "two")


class Passes:
    """Records passes; each does what the test put under its number."""

    def __init__(self) -> None:
        self.keys: list[ClusterKey] = []
        self.effects: dict[int, Callable[[], float | None]] = {}
        self.errors = 0
        self.running = 0
        self.release = asyncio.Event()
        self.release.set()
        self._changed = asyncio.Event()

    async def __call__(self, key: ClusterKey) -> float | None:
        self.running += 1
        assert self.running == 1 or len(set(self.keys)) > 1
        self.keys.append(key)
        self._changed.set()
        await self.release.wait()
        self.running -= 1
        effect = self.effects.get(len(self.keys))
        return effect() if effect is not None else None

    def count_error(self) -> None:
        self.errors += 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.keys) < count:
                self._changed.clear()
                await self._changed.wait()


def queue_of(passes: Passes, *, resync_seconds: float = 3600) -> WorkQueue:
    return WorkQueue(
        passes,
        resync_seconds=resync_seconds,
        on_error=passes.count_error,
        rng=random.Random(1),
    )


async def test_wakes_during_a_pass_cause_one_more() -> None:
    passes = Passes()
    passes.release.clear()
    queue = queue_of(passes)
    queue.wake(ONE)
    await passes.until(1)
    for _ in range(10):
        queue.wake(ONE)
    passes.release.set()
    await passes.until(2)
    queue.wake(TWO)
    await passes.until(3)
    assert passes.keys == [ONE, ONE, TWO]
    await queue.close()


async def test_pass_says_when_to_look_again() -> None:
    passes = Passes()
    passes.effects = {1: lambda: 0.0, 2: lambda: 0.01}
    queue = queue_of(passes)
    queue.wake(ONE)
    await passes.until(3)
    await queue.close()


async def test_rule_11_cluster_is_looked_at_without_any_wake() -> None:
    passes = Passes()
    queue = queue_of(passes, resync_seconds=0.01)
    queue.wake(ONE)
    await passes.until(5)
    await queue.close()


@pytest.mark.parametrize("error", [KubeError("away"), RuntimeError("a bug")])
async def test_error_is_counted_and_stops_nothing(error: Exception) -> None:
    def fail() -> float | None:
        raise error

    passes = Passes()
    passes.effects = {1: fail}
    queue = queue_of(passes)
    queue.wake(ONE)
    await passes.until(1)
    queue.wake(ONE)
    await passes.until(2)
    queue.wake(TWO)
    await passes.until(3)
    assert passes.errors == 1
    await queue.close()


async def test_removed_cluster_is_not_processed_again_until_woken() -> None:
    passes = Passes()
    queue = queue_of(passes, resync_seconds=0.01)
    queue.wake(ONE)
    await passes.until(1)
    queue.remove(ONE)
    queue.remove(ONE)
    queue.wake(TWO)
    await passes.until(len(passes.keys) + 3)
    assert set(passes.keys[-3:]) == {TWO}
    queue.wake(ONE)
    async with asyncio.timeout(20):
        while passes.keys[-1] != ONE:
            await passes.until(len(passes.keys) + 1)
    await queue.close()


def test_rule_13_own_status_write_does_not_wake() -> None:
    clusters = Clusters()
    item = body()
    key = ClusterKey("default", "demo")
    assert clusters.put(item)
    metadata = {**item["metadata"], "resourceVersion": "2"}
    assert not clusters.put({**item, "metadata": metadata, "status": {"term": 1}})
    assert clusters.put({**item, "metadata": {**metadata, "generation": 2}})
    assert clusters.put({**item, "metadata": {**metadata, "uid": "another"}})
    assert len(clusters) == 1
    clusters.remove(key)
    assert key not in clusters
    assert clusters.put(item)
