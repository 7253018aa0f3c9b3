"""Real nodes that find each other by `--peers`, and one that must not found twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

pytestmark = pytest.mark.process


async def test_a_wiped_founder_founds_no_second_cluster(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        founder, *others = cluster.nodes
        before = await status(cluster, founder)
        founder.kill()
        shutil.rmtree(founder.data)
        founder.start()

        async def refused() -> bool | None:
            return "which does not list this node" in founder.log.read_text() or None

        await wait_until("the refusal is logged", refused, 10)
        wiped = await status(cluster, founder)
        assert (wiped["state"], wiped["cluster_id"]) == ("uninitialised", None)
        assert wiped["member_id"] != before["member_id"]
        assert f"does not list this node ({wiped['member_id']})" in founder.log.read_text()
        for node in others:
            assert (await status(cluster, node))["cluster_id"] == before["cluster_id"]
        assert founder.log.read_text().count("which does not list this node") == 1


async def test_the_classic_bare_form_without_the_node_itself(tmp_path: Path) -> None:
    async with Cluster(tmp_path, count=3) as cluster:
        for node in cluster.nodes:
            node.kill()
        ports = [(free_port(), free_port()) for _ in range(3)]
        bare = []
        for number, pair in enumerate(ports):
            others = ",".join(f"localhost:{peer}" for client, peer in ports if client != pair[0])
            directory = tmp_path / f"bare{number}"
            node = cluster.new_node(f"b{number}", pair, ("--peers", others), directory)
            node.arguments = without_id(node)
            bare.append(node)
        cluster.nodes = bare
        for node in bare:
            node.start()
        await cluster.wait_ready()
        names = {(await status(cluster, node))["name"] for node in bare}
        assert names == {f"127.0.0.1:{peer}" for _, peer in ports}


def without_id(node: NodeProcess) -> list[str]:
    arguments = list(node.arguments)
    at = arguments.index("--id")
    return arguments[:at] + arguments[at + 2 :]


async def status(cluster: Cluster, node: NodeProcess) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        return await cluster.status(node)

    return await wait_until(f"{node.name} answers", look, 10)
