"""Row 33 of the catalogue of faults: a member whose disk was restored from an older copy of it.

No file can tell. But its leader remembers what it had acknowledged, and says so in every heartbeat.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.process.cluster import Cluster
from tests.process.judge import judge
from tests.process.load import Load
from tests.process.test_leader_kills import wait_for_traffic

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(240)]


async def test_row_33_an_older_copy_of_a_member_is_told_by_the_leader_and_ends(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, ready_seconds=180) as cluster:
        leader = await cluster.wait_leader()
        member = next(node for node in cluster.nodes if node is not leader)
        others = [node for node in cluster.nodes if node is not member]
        async with Load([node.url for node in others], clients=4, pause_seconds=0.02) as load:
            await wait_for_traffic(load)
            member.kill()
            copy = tmp_path / "copy"
            await asyncio.to_thread(shutil.copytree, member.data, copy)
            member.start()
            await cluster.wait_ready(seconds=180.0)
            await wait_for_traffic(load)
            assert await cluster.wait_leader() is leader, "the machine is too busy for this test"
            member.kill()
            await asyncio.to_thread(shutil.rmtree, member.data)
            await asyncio.to_thread(shutil.copytree, copy, member.data)
            member.start()
            assert await cluster.wait_exit(member, 60.0) == 1
            assert "this node acknowledged its log up to" in member.log.read_text()
            # The others go on without it.
            await wait_for_traffic(load)
            cluster.check_alive(others)
        await load.read_back()
    judge(load.history, tmp_path)
