"""Members lose their disk, or come back with it, while clients write: over a follower's API."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.judge import judge
from tests.process.load import Load

pytestmark = pytest.mark.process


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, body: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    async with session.request(method, url, json=body) as response:
        return response.status, await response.json()


async def members_by_id(session: aiohttp.ClientSession, node: NodeProcess) -> dict[str, Any]:
    _, cluster = await ask(session, "GET", f"{node.url}/v1/cluster")
    return {member["id"]: member for member in cluster["members"]}


async def test_rule_14_a_member_that_lost_its_disk_is_replaced_in_one_step(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, aiohttp.ClientSession() as session:
        leader = await cluster.wait_leader()
        lost, asked = (node for node in cluster.nodes if node is not leader)
        before = await cluster.status(lost)
        assert before is not None
        survivors = [leader.url, asked.url]
        newcomer = cluster.new_node(lost.name, (lost.port, lost.peer_port), (), tmp_path / "new")
        async with Load(survivors, pause_seconds=0.005) as load:
            lost.send_signal(signal.SIGKILL)
            await cluster.wait_exit(lost, 5.0)
            newcomer.start()
            try:
                new_id = await wait_until("its new id", lambda: own_id(cluster, newcomer), 20.0)
                assert new_id != before["member_id"]
                members = f"{asked.url}/v1/cluster/members"
                await join(session, members, newcomer, new_id)
                await wait_until(
                    "the replacement",
                    lambda: replace(session, members, before["member_id"], new_id),
                    30.0,
                )
                after = await members_by_id(session, leader)
                assert before["member_id"] not in after
                assert after[new_id]["voter"]
                await cluster.wait_ready([newcomer])
            finally:
                newcomer.kill()
        # Without the new one again: two of three votes are left, so it did take the place.
        await load.read_back()
        status, problem = await ask(
            session, "POST", members, described(newcomer, before["member_id"])
        )
        assert (status, problem["reason"]) == (409, "id_reused")
    judge(load.history, tmp_path)


async def test_operator_rule_07_a_removed_member_comes_back_with_its_disk(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, aiohttp.ClientSession() as session:
        leader = await cluster.wait_leader()
        leaving, asked = (node for node in cluster.nodes if node is not leader)
        before = await cluster.status(leaving)
        assert before is not None
        member_id = before["member_id"]
        members = f"{asked.url}/v1/cluster/members"
        async with Load([leader.url, asked.url], pause_seconds=0.005) as load:
            status, answer = await ask(session, "DELETE", f"{members}/{member_id}")
            assert status == 200, answer
            leaving.send_signal(signal.SIGKILL)
            await cluster.wait_exit(leaving, 5.0)
            leaving.start()
            body = {**described(leaving, member_id), "rejoin": True}

            async def rejoin() -> bool | None:
                status, answer = await ask(session, "POST", members, body)
                assert status == 200 or answer["reason"] == "change_in_progress", answer
                return status == 200 or None

            async def promote() -> bool | None:
                status, answer = await ask(session, "POST", f"{members}/{member_id}/promote")
                known = {"learner_lags", "change_in_progress"}
                assert status == 200 or answer["reason"] in known, answer
                return status == 200 or None

            await wait_until("it is a learner", rejoin, 20.0)
            await wait_until("it votes", promote, 30.0)
            await cluster.wait_ready([leaving])
            after = await members_by_id(session, leader)
            assert after[member_id]["voter"]
        await load.read_back()
    judge(load.history, tmp_path)


def described(node: NodeProcess, member_id: str) -> dict[str, str]:
    return {
        "id": member_id,
        "name": node.name,
        "peer_url": f"127.0.0.1:{node.peer_port}",
        "client_url": node.url,
    }


async def own_id(cluster: Cluster, node: NodeProcess) -> str | None:
    status = await cluster.status(node)
    return status["member_id"] if status and status["state"] == "uninitialised" else None


async def join(
    session: aiohttp.ClientSession, members: str, node: NodeProcess, member_id: str
) -> None:
    """Add it as a learner, as soon as the old holder of its name counts as silent."""

    async def call() -> bool | None:
        status, answer = await ask(session, "POST", members, described(node, member_id))
        if status in (200, 201):
            return True
        assert answer["reason"] in {"already_member", "change_in_progress"}, answer
        await asyncio.sleep(0.1)
        return None

    await wait_until("the learner is added", call, 20.0)


async def replace(session: aiohttp.ClientSession, members: str, old: str, new: str) -> bool | None:
    status, answer = await ask(session, "POST", f"{members}/{old}/replace", {"by": new})
    if status == 200:
        return True
    assert answer["reason"] in {"learner_lags", "change_in_progress"}, answer
    return None
