"""Disks that are full, hang or fail, on file systems of their own (`make test-disk`).

Rows 24 to 27 of the catalogue of faults. Each node's data lies on a small ext4 in a file. Whatever
happens, what was acknowledged is there afterwards; who cannot go on says why and ends; the others
serve.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.judge import judge
from tests.process.load import Load
from tests.process.test_leader_kills import wait_for_failover, wait_for_traffic
from tests.process.volume import Volume, Volumes, go_on, volumes

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(240)]

MIB = 1 << 20
ROOMY = 640 * MIB  # sparse: what is not used takes no room on the machine's own disk
VALUE = b"\x5a" * (256 << 10)


@asynccontextmanager
async def cluster_on_volumes(
    directory: Path, count: int = 3, size_bytes: int = ROOMY, extra: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Cluster, Volumes]]:
    with volumes(directory, count, size_bytes) as made:
        async with Cluster(directory, count, extra, ready_seconds=180) as cluster:
            try:
                yield cluster, made
            finally:
                go_on(cluster, made)


async def put(node: NodeProcess, key: str, value: bytes) -> tuple[int, str]:
    """Status and code of the answer; (0, "") if there was none."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.put(f"{node.url}/v1/kv/{key}", data=value) as response,
        ):
            if response.status < 300:
                return response.status, ""
            return response.status, (await response.json(content_type=None))["code"]
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, ""


async def get(node: NodeProcess, key: str) -> bytes | None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{node.url}/v1/kv/{key}") as response,
    ):
        return await response.read() if response.status == 200 else None


async def write_until_it_ends(cluster: Cluster, node: NodeProcess) -> dict[str, bytes]:
    """Values of 256 KiB until the node is gone; those that were acknowledged."""
    acknowledged: dict[str, bytes] = {}
    for number in range(1000):
        value = VALUE + b"%d" % number
        status, _ = await put(node, f"big/{number}", value)
        if status == 201:
            acknowledged[f"big/{number}"] = value
        elif not node.is_running or status == 0:
            break
    await cluster.wait_exit(node, 60.0)
    return acknowledged


def last_words(node: NodeProcess) -> str:
    lines = [line for line in node.log.read_text().splitlines() if "cannot go on" in line]
    assert lines, node.log_tail()
    return lines[-1]


async def check_all(node: NodeProcess, acknowledged: dict[str, bytes]) -> None:
    assert acknowledged, "nothing was written before the disk was full"
    for key, value in acknowledged.items():
        assert await get(node, key) == value, f"{key} is lost"


@pytest.mark.parametrize(
    ("leave_bytes", "what"),
    [
        # The log's next segment finds no room; the store still has some.
        (100 * MIB, "wal"),
        # The store finds no room in the middle of an apply; the log has its segment.
        (6 * MIB, "store"),
    ],
)
async def test_row_25_a_full_disk_ends_a_node_loudly_and_loses_nothing(
    tmp_path: Path, leave_bytes: int, what: str
) -> None:
    async with cluster_on_volumes(tmp_path, 1) as (cluster, made):
        (node,) = cluster.nodes
        volume = made.of(node)
        assert (await put(node, "before", b"1"))[0] == 201
        volume.fill(leave_bytes)
        acknowledged = await write_until_it_ends(cluster, node)
        assert node.process is not None
        assert node.process.returncode == 1
        assert "No space left on device" in last_words(node), what
        # A start on the full disk: either it says that there is no room, or it serves.
        node.start()
        await refused_or_ready(cluster, node)
        node.kill()
        volume.free()
        node.start()
        await cluster.wait_ready()
        await check_all(node, {"before": b"1", **acknowledged})
        assert (await put(node, "after", b"1"))[0] == 201


async def refused_or_ready(cluster: Cluster, node: NodeProcess) -> None:
    async def look() -> bool | None:
        if not node.is_running:
            return True
        status = await cluster.status(node)
        return (status is not None and status["state"] == "running") or None

    await wait_until("it serves, or says that the disk is full", look, 60.0)
    if not node.is_running:
        assert "No space left on device" in last_words(node)


async def test_row_25_a_snapshot_that_finds_no_room_is_refused_and_the_node_serves(
    tmp_path: Path,
) -> None:
    async with cluster_on_volumes(tmp_path, 1) as (cluster, made):
        (node,) = cluster.nodes
        volume = made.of(node)
        for number in range(20):
            assert (await put(node, f"big/{number}", VALUE))[0] == 201
        volume.fill(40 * MIB)
        status, code = await snapshot(node)
        assert (status, code) == (409, "no_snapshot")
        assert (await put(node, "after", b"1"))[0] == 201
        volume.free()
        assert (await snapshot(node))[0] == 200
        assert not list((node.data / "snapshots").glob("*.tmp"))
        assert await get(node, "after") == b"1"


async def snapshot(node: NodeProcess) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{node.url}/v1/maintenance/snapshot") as response,
    ):
        answer = await response.json(content_type=None)
        return response.status, answer.get("reason") or answer.get("code", "")


async def test_row_25_the_leaders_full_disk_costs_its_leadership_only(tmp_path: Path) -> None:
    async with cluster_on_volumes(tmp_path) as (cluster, made):
        leader = await cluster.wait_leader()
        async with Load(cluster.urls, clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            made.of(leader).fill(4 * MIB)
            acknowledged = await write_until_it_ends(cluster, leader)
            assert "No space left on device" in last_words(leader)
            await wait_for_failover(load)
            made.of(leader).free()
            leader.start()
            await cluster.wait_ready()
            await check_all(leader, acknowledged)
        await load.read_back()
    judge(load.history, tmp_path)


async def test_row_24_a_disk_that_turns_read_only_ends_the_leader_and_the_quorum_lives(
    tmp_path: Path,
) -> None:
    async with cluster_on_volumes(tmp_path) as (cluster, made):
        leader = await cluster.wait_leader()
        async with Load(cluster.urls, clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            made.of(leader).fail()
            assert await cluster.wait_exit(leader, 60.0) == 1
            words = last_words(leader)
            assert "Read-only file system" in words or "Input/output error" in words
            await wait_for_failover(load)
            # Started on it again, it says so and ends; nothing is written anywhere else.
            leader.start()
            assert await cluster.wait_exit(leader, 60.0) == 1
            made.of(leader).repair()
            leader.start()
            await cluster.wait_ready()
            await wait_for_traffic(load)
        await load.read_back()
    judge(load.history, tmp_path)


async def term_of(cluster: Cluster) -> int:
    statuses = [await cluster.status(node) for node in cluster.running]
    return max(int(status["term"]) for status in statuses if status is not None)


Stop = Callable[[Volume], None]  # `Volume.stall`: the disk hangs; `Volume.freeze`: the file system


async def hold(volume: Volume, stop: Stop, seconds: float) -> float:
    """The volume is stopped for so long; for how long it was."""
    began_at = monotonic()
    stop(volume)
    try:
        await asyncio.sleep(seconds)
    finally:
        volume.go_on()
    return monotonic() - began_at


async def test_row_26_a_leaders_disk_that_hangs_under_3_s_changes_nothing(tmp_path: Path) -> None:
    async with cluster_on_volumes(tmp_path) as (cluster, made):
        leader = await cluster.wait_leader()
        async with Load(cluster.urls, clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            term = await term_of(cluster)
            held_seconds = await hold(made.of(leader), Volume.stall, 1.5)
            assert held_seconds < 3.0, "the machine is too busy for this test"
            await wait_for_traffic(load)
            assert (await cluster.wait_leader(), await term_of(cluster)) == (leader, term)
        await load.read_back()
        cluster.check_alive(cluster.nodes)
    judge(load.history, tmp_path)


async def test_row_26_a_leaders_disk_that_hangs_over_3_s_moves_the_leadership(
    tmp_path: Path,
) -> None:
    async with cluster_on_volumes(tmp_path) as (cluster, made):
        leader = await cluster.wait_leader()
        others = [node.url for node in cluster.nodes if node is not leader]
        async with Load(others, clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            frozen = asyncio.create_task(hold(made.of(leader), Volume.stall, 12.0))
            await asyncio.sleep(0.1)
            began_at = monotonic()
            await wait_until("another one leads", lambda: other_leader(cluster, leader), 11.0)
            moved_seconds = monotonic() - began_at
            await wait_for_failover(load)
            assert not frozen.done(), "it moved only once the disk was back"
            assert moved_seconds >= 2.5, "it did not wait for the disk at all"
            await frozen
            # It did not end, and follows again.
            await cluster.wait_ready()
            cluster.check_alive(cluster.nodes)
        load.urls = cluster.urls
        await load.read_back()
    judge(load.history, tmp_path)


async def other_leader(cluster: Cluster, before: NodeProcess) -> NodeProcess | None:
    for node in cluster.running:
        if node is not before:
            status = await cluster.status(node)
            if status is not None and status["role"] == "leader":
                return node
    return None


@pytest.mark.parametrize(
    ("role", "stop"),
    [("leader", Volume.stall), ("follower", Volume.freeze), ("leader", Volume.freeze)],
)
async def test_row_26_a_disk_that_hangs_over_20_s_ends_the_node(
    tmp_path: Path, role: str, stop: Stop
) -> None:
    async with cluster_on_volumes(tmp_path) as (cluster, made):
        leader = await cluster.wait_leader()
        node = leader if role == "leader" else next(n for n in cluster.nodes if n is not leader)
        others = [each.url for each in cluster.nodes if each is not node]
        async with Load(others, clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            term = await term_of(cluster)
            stopped = asyncio.create_task(hold(made.of(node), stop, 35.0))

            async def gave_up() -> bool | None:
                return "cannot go on" in node.log.read_text() or not node.is_running or None

            await wait_until("it gives up", gave_up, 34.0)
            assert not stopped.done()
            await wait_for_failover(load)
            if role == "follower":
                assert (await other_leader(cluster, node), await rest_term(cluster, node)) == (
                    leader,
                    term,
                )
            await stopped
            # Linux lets nobody end who hangs in the kernel: now it can.
            assert await cluster.wait_exit(node, 60.0) == 1
            assert "20 s" in last_words(node)
            node.start()
            await cluster.wait_ready()
        load.urls = cluster.urls
        await load.read_back()
    judge(load.history, tmp_path)


async def rest_term(cluster: Cluster, without: NodeProcess) -> int:
    """The highest term that the others know: one that hangs would not answer."""
    statuses = [await cluster.status(node) for node in cluster.running if node is not without]
    return max(int(status["term"]) for status in statuses if status is not None)
