"""The caches: they follow, wake the right cluster, and say when they do not follow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from kubernetes_asyncio.client import Configuration

from raftkv_operator import names
from raftkv_operator.kube import Kube
from raftkv_operator.objects import JsonObject
from raftkv_operator.resources import CONFIG_MAP, OWNED_KINDS, POD_MONITOR, SERVICE
from raftkv_operator.watch import Cache, Caches
from tests.operator.world import World


def owned(name: str, cluster: str = "demo") -> JsonObject:
    metadata = {"name": name, "namespace": "default", "labels": names.labels(cluster)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


class Woken:
    """Collects wakes; `until` waits for a fact that a wake must bring."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._event = asyncio.Event()

    def __call__(self, namespace: str, cluster: str) -> None:
        self.seen.append((namespace, cluster))
        self._event.set()

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not fact():
                self._event.clear()
                await self._event.wait()


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(cache.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_rule_12_cache_follows_and_wakes_the_cluster_of_the_label(world: World) -> None:
    woken = Woken()
    world.kubernetes.put("configmaps", owned("first"))
    world.kubernetes.put("configmaps", {**owned("x"), "metadata": {
        "name": "x", "namespace": "default"}})  # fmt: skip
    cache = Cache(world.kube, CONFIG_MAP, "default", woken)
    async with running(cache):
        await woken.until(lambda: cache.get("default", "first"))
        world.kubernetes.put("configmaps", owned("second", "other"))
        await woken.until(lambda: cache.get("default", "second"))
        world.kubernetes.remove("configmaps", "first")
        await woken.until(lambda: cache.get("default", "first") is None)
        assert cache.is_current
    assert cache.get("default", "x") is None
    assert [item["metadata"]["name"] for item in cache.of_cluster("default", "other")] == ["second"]
    assert woken.seen == [
        ("default", "demo"),
        ("default", "other"),
        ("default", "demo"),
    ]


async def test_rule_14_cache_without_its_watch_is_not_current_until_it_lists_again() -> None:
    """Nothing listens: the cache must go on trying, and never claim to be current."""
    kube = Kube(Configuration(host="http://127.0.0.1:1"))
    tried = asyncio.Event()
    original = kube.list

    async def counted(*args: object, **options: object) -> object:
        tried.set()
        return await original(*args, **options)  # type: ignore[arg-type]

    kube.list = counted  # type: ignore[assignment,method-assign]
    cache = Cache(kube, CONFIG_MAP, None, Woken())
    async with kube, running(cache) as task:
        for _ in range(2):
            tried.clear()
            async with asyncio.timeout(20):
                await tried.wait()
        assert not task.done()
        assert not cache.is_current


async def test_objects_that_vanished_unseen_wake_their_cluster(world: World) -> None:
    woken = Woken()
    world.kubernetes.put("configmaps", owned("first"))
    cache = Cache(world.kube, CONFIG_MAP, "default", woken)
    await cache.list()
    world.kubernetes.remove("configmaps", "first")
    del woken.seen[:]
    await cache.list()
    assert woken.seen == [("default", "demo")]


async def test_absent_kind_is_empty_and_current_and_found_when_a_cluster_asks(
    world: World,
) -> None:
    appeared = asyncio.Event()
    cache = Cache(world.kube, POD_MONITOR, "default", Woken(), on_served=appeared.set)
    assert await cache.list() is None
    world.kubernetes.was_asked_for_absent.clear()
    assert cache.is_current
    assert not cache.is_served
    async with running(cache), asyncio.timeout(20):
        await world.kubernetes.was_asked_for_absent.wait()
        world.kubernetes.absent.clear()
        cache.look_for_kind()
        await appeared.wait()
        assert cache.is_served


async def test_own_write_is_seen_before_the_watch_tells(world: World) -> None:
    cache = Cache(world.kube, CONFIG_MAP, "default", Woken())
    cache.put(owned("mine"))
    assert cache.get("default", "mine") is not None


async def test_caches_are_found_by_kind_and_by_what_is_watched(world: World) -> None:
    named = Caches(world.kube, OWNED_KINDS, ["a", "b"], Woken())
    assert len(named.all()) == 2 * len(OWNED_KINDS)
    assert named.of("Service", "a") is not named.of("Service", "b")
    assert named.of("Service", "c") is None
    everywhere = Caches(world.kube, [SERVICE], [], Woken())
    assert everywhere.of("Service", "anything") is everywhere.all()[0]
    assert everywhere.of("ConfigMap", "anything") is None
    assert not everywhere.is_current
    await everywhere.all()[0].list()
    assert everywhere.is_current
