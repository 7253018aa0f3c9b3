"""Row 15 of the catalogue of faults: the kernel ends a node that wants more memory than it may.

To the node that is a SIGKILL at the moment of the greatest load, amid large writes, at a place
that nobody chose.
"""

import asyncio
from pathlib import Path
from signal import SIGKILL

import aiohttp
import pytest

from raftkv.client import Client
from tests.linearizability.history import Kind, Operation
from tests.linearizability.recorder import attempt, recording_session
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.judge import judge, summary
from tests.process.load import Load
from tests.process.memory_group import memory_group
from tests.process.test_leader_kills import wait_for_failover, wait_for_traffic

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

MIB = 1 << 20
# Beyond what the node has of its own when the load begins. The end of the log in memory and what
# waits for the disk need more, but not at once: some large writes are acknowledged before.
TIGHT_BYTES = 24 * MIB
ROOMY_BYTES = 1024 * MIB
LARGE_WRITERS = 8
LARGE_WRITES_MAX = 200  # of each
LARGE_VALUE = "x" * (MIB // 8)


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_row_15_a_node_that_is_ended_for_want_of_memory_loses_nothing_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    with memory_group(role) as group:
        cluster = Cluster(tmp_path)
        node, *others = cluster.nodes
        node.command = group.command(*node.command)
        async with cluster:
            assert group.pids == [node.pid]
            await lead(cluster, node if role == "leader" else others[0])
            async with Load([each.url for each in others], clients=4) as load:
                await wait_for_traffic(load)
                group.limit(group.private_bytes + TIGHT_BYTES)
                large = await write_until_it_ends(cluster, node)
                assert node.process is not None
                assert (node.process.returncode, group.kills) == (-SIGKILL, 1)
                assert any(write.is_effective_write for write in large)
                await wait_for_failover(load)
                await wait_for_traffic(load)
                cluster.check_alive(others)
                group.limit(ROOMY_BYTES)
                node.start()
                await cluster.wait_ready()
                await wait_until_caught_up(cluster, node, others[0])
                await wait_for_traffic(load)
            load.history += large
            load.urls = cluster.urls
            await load.read_back()
            assert (group.kills, group.pids) == (1, [node.pid])
    judge(load.history, tmp_path)
    with capsys.disabled():
        print(  # noqa: T201 the numbers are what the run is for
            f"\nthe {role} was ended amid large writes ({summary(large)}); all: "
            f"{summary(load.history)}"
        )


async def lead(cluster: Cluster, node: NodeProcess) -> None:
    """The leadership goes to this node."""
    if await cluster.wait_leader() is not node:
        status = await cluster.status(node)
        assert status is not None
        async with Client(cluster.urls) as client:
            await client.transfer_leader(status["member_id"])
    assert await cluster.wait_leader() is node, "the machine is too busy for this test"


async def write_until_it_ends(cluster: Cluster, node: NodeProcess) -> list[Operation]:
    """Large values through this node, each under a key of its own; what became of each."""
    done: list[Operation] = []

    async def write(session: aiohttp.ClientSession, writer: int) -> None:
        for count in range(LARGE_WRITES_MAX):
            if not node.is_running:
                break
            # Clients that the load does not have. What is acknowledged must be there at the end.
            key = f"ledger/large/{writer}/{count}"
            asked = Operation(100 + writer, key, Kind.PUT, 0, argument=LARGE_VALUE)
            done.append(await attempt(session, node.url, asked))

    async with recording_session(20.0) as session:
        await asyncio.gather(*(write(session, writer) for writer in range(LARGE_WRITERS)))
    await cluster.wait_exit(node, 10.0)
    return done


async def wait_until_caught_up(cluster: Cluster, node: NodeProcess, other: NodeProcess) -> None:
    """Until it has applied what the other had when it was asked."""
    ahead = await cluster.status(other)
    assert ahead is not None

    async def look() -> bool | None:
        status = await cluster.status(node)
        return (status is not None and status["applied_index"] >= ahead["applied_index"]) or None

    await wait_until(f"{node.name} has caught up", look, 60.0)
