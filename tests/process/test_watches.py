"""Watches of real nodes: many at once, and through everything that happens to a node."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from benchmarks.fan_out import fan_out
from raftkv.client import Client, Event, Watch
from tests.process.cluster import Cluster, NodeProcess

pytestmark = pytest.mark.process

WATCHERS = 5
END = b"w/end"


async def test_many_watchers_of_one_node_miss_nothing_and_see_nothing_twice(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.wait_leader()
        result = await fan_out(leader, watchers=200, rate=100, seconds=3)
        print(result.describe())  # noqa: T201 pytest shows it with the failure
        assert (result.tally.lost, result.tally.doubled, result.tally.broken) == (0, 0, 0)
        assert result.tally.received == 200 * 300


@pytest.mark.timeout(120)
@pytest.mark.long
async def test_watches_are_whole_through_kills_pauses_and_drains(tmp_path: Path) -> None:
    """Each watcher sees exactly the history, in its order, wherever it had to go on."""
    async with Cluster(tmp_path, extra=("--drain-seconds", "1")) as cluster:
        is_over = asyncio.Event()
        begun = asyncio.Barrier(WATCHERS + 1)
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(follow(cluster, begun)) for _ in range(WATCHERS)]
            await begun.wait()
            writing = group.create_task(write(cluster, is_over))
            for harm in (kill, drain, pause, kill):
                await harm(cluster, await cluster.wait_leader())
                await cluster.wait_ready()
                await asyncio.sleep(0.5)
            is_over.set()
        async with (
            Client(cluster.urls) as client,
            client.watch(prefix=b"w/", from_revision=0) as past,
        ):
            history = await until_end(past)
        assert len(history) >= writing.result() > 100
        revisions = [event.revision for event in history]
        assert revisions == sorted(set(revisions))
        for task in seen:
            assert task.result() == history


async def follow(cluster: Cluster, begun: asyncio.Barrier) -> list[Event]:
    """All that a watcher is told until the last key is written."""
    async with Client(cluster.urls) as client, client.watch(prefix=b"w/") as watch:
        await begun.wait()
        return await until_end(watch)


async def until_end(watch: Watch) -> list[Event]:
    events = []
    async for event in watch:
        events.append(event)
        if event.key == END:
            break
    return events


async def write(cluster: Cluster, is_over: asyncio.Event) -> int:
    """Write to all nodes in turn, whatever becomes of it; how many were acknowledged."""
    timeout = aiohttp.ClientTimeout(total=0.5)
    acknowledged, number = 0, 0
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def put(key: bytes) -> bool:
            node = cluster.nodes[number % len(cluster.nodes)]
            url = f"{node.url}/v1/kv/{key.decode()}"
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.put(url, data=b"%d" % number) as answer:
                    return answer.status in (200, 201)
            return False

        while not is_over.is_set():
            number += 1
            acknowledged += await put(b"w/%d" % (number % 10))
            await asyncio.sleep(0.002)
        while not await put(END):
            number += 1
    return acknowledged


async def kill(_cluster: Cluster, node: NodeProcess) -> None:
    node.kill()
    node.start()


async def drain(cluster: Cluster, node: NodeProcess) -> None:
    node.send_signal(signal.SIGTERM)
    assert await cluster.wait_exit(node, 10) == 0
    node.start()


async def pause(_cluster: Cluster, node: NodeProcess) -> None:
    node.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5)
    node.send_signal(signal.SIGCONT)
