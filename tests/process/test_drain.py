"""SIGTERM to a real node: not ready at once, served until the time is over, then exit code 0."""

import asyncio
import signal
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.process.cluster import Cluster, wait_until
from tests.process.ports import free_port

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


async def test_operator_rule_15_a_drain_ends_under_a_load_that_comes_back(tmp_path: Path) -> None:
    """Clients that connect anew after each closed answer keep nobody from going home."""
    async with Cluster(tmp_path, extra=("--drain-seconds", "1")) as cluster:
        leader = await cluster.wait_leader()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client:
            served = [0]

            async def come_back(number: int) -> None:
                while True:
                    try:
                        url = f"{leader.url}/v1/kv/{number}"
                        async with client.put(url, data=b"1") as response:
                            assert response.status in (200, 201), await response.text()
                            served[0] += 1
                    except aiohttp.ClientConnectorError:
                        return  # the listener is closed

            clients = [asyncio.create_task(come_back(number)) for number in range(64)]

            async def is_loaded() -> bool | None:
                return served[0] > 500 or None

            await wait_until("the load runs", is_loaded, 10)
            told_at = monotonic()
            leader.send_signal(signal.SIGTERM)
            assert await cluster.wait_exit(leader, 6) == 0
            assert 1 <= monotonic() - told_at < 3
            # Nobody was cut off: every client ended at a closed door, not in an error.
            await asyncio.gather(*clients)


async def test_a_node_that_never_was_ready_ends_at_once(tmp_path: Path) -> None:
    async with Cluster(tmp_path, count=1, extra=("--drain-seconds", "30")) as cluster:
        ports = free_port(), free_port()
        lonely = cluster.new_node("lonely", ports, ("--drain-seconds", "30"))
        cluster.nodes.append(lonely)
        lonely.start()

        async def is_up() -> bool | None:
            status = await cluster.status(lonely)
            return status is not None or None

        await wait_until("it answers", is_up, 10)
        told_at = monotonic()
        lonely.send_signal(signal.SIGTERM)
        assert await cluster.wait_exit(lonely, 5) == 0
        assert monotonic() - told_at < 2


async def test_requests_left_at_the_end_are_answered_not_cut_off(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", "0")) as cluster:
        node, *others = cluster.nodes
        for other in others:
            other.kill()
        async with aiohttp.ClientSession() as client:
            asked = asyncio.create_task(
                client.put(f"{node.url}/v1/kv/a?timeout=60s", data=b"1").__aenter__()
            )

            async def is_pending() -> bool | None:
                status = await cluster.status(node)
                return (status is not None and status["pending_requests"] > 0) or None

            await wait_until("the write is pending", is_pending, 5)
            for number in (signal.SIGTERM, signal.SIGINT):
                node.send_signal(number)
            answer = await asked
            problem = await answer.json(content_type=None)
            answer.release()
            assert (answer.status, problem["outcome"]) == (504, "unknown")
        assert await cluster.wait_exit(node, 5) == 0


@pytest.mark.long
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
        # Who was told a moment later may have taken it before.
        assert terms[-1] - terms[0] <= 2


async def test_two_signals_end_a_node_soon_and_in_order(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", "30")) as cluster:
        node = cluster.nodes[0]
        told_at = monotonic()
        node.send_signal(signal.SIGTERM)
        node.send_signal(signal.SIGINT)
        assert await cluster.wait_exit(node, 5) == 0
        assert monotonic() - told_at < 4
        assert node.log.read_text().rstrip().splitlines()[-1].count("stopped") == 1
