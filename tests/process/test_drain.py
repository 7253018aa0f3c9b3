"""SIGTERM to a real node: not ready at once, served until the time is over, then exit code 0."""

import asyncio
import signal
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.process.cluster import Cluster, wait_until

pytestmark = pytest.mark.process


async def test_operator_rule_15_drain_of_the_leader(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", "1.5")) as cluster:
        leader = await cluster.wait_leader()
        async with aiohttp.ClientSession() as client:
            async with client.put(f"{leader.url}/v1/kv/a", data=b"1") as response:
                assert response.status == 201
                assert response.headers.get("Connection") != "close"
            told_at = monotonic()
            leader.send_signal(signal.SIGTERM)

            async def not_ready() -> bool | None:
                async with client.get(f"{leader.url}/readyz") as response:
                    return response.status == 503 or None

            await wait_until("not ready", not_ready, 1)
            served = 0
            while True:
                # New connections all the time: the listener is open until the end.
                try:
                    async with client.put(f"{leader.url}/v1/kv/a", data=b"2") as response:
                        assert response.status == 200
                        assert (
                            monotonic() - told_at < 0.5 or response.headers["Connection"] == "close"
                        )
                        served += 1
                except aiohttp.ClientConnectorError:
                    break
                await asyncio.sleep(0.01)
            elapsed = monotonic() - told_at
            assert await cluster.wait_exit(leader, 5) == 0
            assert 1.4 <= elapsed < 5
            assert served > 20
            cluster.nodes.remove(leader)
            successor = await cluster.wait_leader()
            async with client.get(f"{successor.url}/v1/kv/a") as response:
                assert await response.read() == b"2"


async def test_nodes_that_all_drain_do_not_throw_leadership_at_each_other(tmp_path: Path) -> None:
    # As when a StatefulSet or its cluster is deleted.
    async with Cluster(tmp_path, extra=("--drain-seconds", "2")) as cluster:
        await cluster.wait_leader()
        async with aiohttp.ClientSession() as client:
            url = cluster.nodes[0].url
            for node in cluster.nodes:
                node.send_signal(signal.SIGTERM)
            told_at = monotonic()
            terms = []
            while monotonic() - told_at < 1.5:
                async with client.put(f"{url}/v1/kv/a", data=b"1") as response:
                    assert response.status in (200, 201)
                async with client.get(f"{url}/v1/status") as response:
                    terms.append((await response.json())["term"])
        for node in cluster.nodes:
            assert await cluster.wait_exit(node, 10) == 0
        # Each of the three may pass it on in the first moment and once a second after that.
        assert terms[-1] - terms[0] <= 6


async def test_two_signals_end_a_node_soon_and_in_order(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", "30")) as cluster:
        node = cluster.nodes[0]
        told_at = monotonic()
        node.send_signal(signal.SIGTERM)
        node.send_signal(signal.SIGINT)
        assert await cluster.wait_exit(node, 5) == 0
        assert monotonic() - told_at < 4
        assert node.log.read_text().rstrip().splitlines()[-1].count("stopped") == 1
