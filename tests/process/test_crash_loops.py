"""SIGKILL again and again at the moments that storage cares about (`make chaos`).

Row 34 of the catalogue of faults, and 11, 12 and 16: while snapshots are made and segments dropped,
while a snapshot is received and installed, and while a node recovers from the kill before. Settings
are tiny, so that one of these is always under way; the histories are judged.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.judge import judge
from tests.process.load import Load

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = int(os.environ.get("CRASH_KILLS", "30"))
TINY = ("--snapshot-min-bytes", "4096", "--history-keep", "1s")


def snapshots_of(node: NodeProcess) -> set[str]:
    """The names of its snapshots at this moment: entry and term."""
    return {path.name for path in (node.data / "snapshots").glob("*.snapshot")}


async def fill(session: aiohttp.ClientSession, node: NodeProcess, random: Random) -> None:
    """Ballast, so that a snapshot takes its time."""
    for number in range(12):
        async with session.put(
            f"{node.url}/v1/kv/ballast/{number}", data=random.randbytes(500_000)
        ) as response:
            assert response.status in (200, 201)


async def test_row_34_kills_while_snapshots_are_made_and_segments_dropped(tmp_path: Path) -> None:
    random = Random(34)
    async with (
        Cluster(tmp_path, 1, TINY, ready_seconds=180) as cluster,
        aiohttp.ClientSession() as session,
    ):
        (node,) = cluster.nodes
        made: set[str] = set()
        await fill(session, node, random)
        async with Load(cluster.urls, clients=6, pause_seconds=0.003) as load:
            for number in range(KILLS):
                await wait_for_answers(load, 30)
                made |= snapshots_of(node)
                # One is asked for, and the kill comes while it is made, or segments go after it.
                asked = asyncio.create_task(ask_for_snapshot(session, node))
                if number % 3 == 2:
                    await asked
                    made |= snapshots_of(node)
                else:
                    await asyncio.sleep(random.uniform(0.0, 0.6))
                node.kill()
                await asked
                node.start()
                # While it recovers from the kill before: every other time, at any moment.
                if random.random() < 0.5:
                    await asyncio.sleep(random.uniform(0.0, 1.5))
                    node.kill()
                    node.start()
                await cluster.wait_ready(seconds=180.0)
        await load.read_back()
    judge(load.history, tmp_path)
    assert len(made) >= KILLS // 3, f"only {len(made)} snapshots were made"


async def ask_for_snapshot(session: aiohttp.ClientSession, node: NodeProcess) -> None:
    """Whatever comes of it."""
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with session.post(f"{node.url}/v1/maintenance/snapshot") as response:
            await response.read()


async def wait_for_answers(load: Load, count: int) -> None:
    enough = len(load.history) + count

    async def look() -> bool | None:
        return len(load.history) >= enough or None

    await wait_until("the load goes on", look, 120.0)


async def test_row_34_kills_while_a_snapshot_is_received_and_installed(tmp_path: Path) -> None:
    random = Random(35)
    async with (
        Cluster(tmp_path, 3, TINY, ready_seconds=180) as cluster,
        aiohttp.ClientSession() as session,
    ):
        leader = await cluster.wait_leader()
        await fill(session, leader, random)
        follower = next(node for node in cluster.nodes if node is not leader)
        others = [node.url for node in cluster.nodes if node is not follower]
        installed: set[str] = set()
        kills = 0
        async with Load(others, clients=4, pause_seconds=0.01) as load:
            while kills < KILLS:
                # Down for as long as it takes to be behind what the log of the others holds.
                follower.kill()
                sent = await forget_the_log(session, cluster, follower)
                follower.start()
                for _ in range(5):
                    await asyncio.sleep(random.uniform(0.2, 1.6))
                    installed |= snapshots_of(follower) & sent
                    follower.kill()
                    kills += 1
                    follower.start()
                await cluster.wait_ready(seconds=180.0)
                installed |= snapshots_of(follower) & sent
        load.urls = cluster.urls
        await load.read_back()
    judge(load.history, tmp_path)
    assert installed, "no snapshot was ever sent"


async def forget_the_log(
    session: aiohttp.ClientSession, cluster: Cluster, missing: NodeProcess
) -> set[str]:
    """Let the others hold nothing before a snapshot, on disk or in memory; their snapshots."""
    names: set[str] = set()
    others = [node for node in cluster.nodes if node is not missing]
    for node in others:
        async with session.post(f"{node.url}/v1/maintenance/snapshot") as response:
            assert response.status == 200, await response.text()
        names |= snapshots_of(node)
        node.kill()
        node.start()
        await cluster.wait_ready(others, 180.0)
    return names
