"""A backup of a real cluster, and a new cluster out of it, by the command line."""

import json
import subprocess
from pathlib import Path

import aiohttp
import pytest

from raftkv.kv.restoring import REVISION_JUMP
from tests.process.cluster import COMMAND, Cluster
from tests.process.ports import free_port

pytestmark = pytest.mark.process


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60
    )


async def test_rule_20_a_backup_becomes_a_new_cluster(tmp_path: Path) -> None:
    file, data = tmp_path / "store.backup", tmp_path / "restored"
    async with Cluster(tmp_path) as cluster, aiohttp.ClientSession() as session:
        for number in range(50):
            url = f"{cluster.urls[number % 3]}/v1/kv/key-{number}"
            async with session.put(url, data=b"value %d" % number) as response:
                assert response.status == 201
        status = await cluster.status(cluster.nodes[0])
        assert status is not None
        made = run("backup", str(file), "--endpoint", cluster.urls[1])
        assert made.returncode == 0, made.stderr

    peer_port, port = free_port(), free_port()
    addresses = ("--peer-url", f"127.0.0.1:{peer_port}", "--client-url", f"http://127.0.0.1:{port}")
    restored = run("restore", str(file), "--data", str(data), "--id", "r1", *addresses)
    assert restored.returncode == 0, restored.stderr
    assert "50 keys" in restored.stdout
    again = run("restore", str(file), "--data", str(data), "--id", "r1", *addresses)
    assert again.returncode == 1
    assert "not empty" in again.stderr

    empty = Cluster(tmp_path, 0)
    node = empty.new_node("r1", (port, peer_port), (), data)
    node.start()
    try:
        async with empty, aiohttp.ClientSession() as session:
            await empty.wait_ready([node])
            async with session.get(f"{node.url}/v1/kv/key-7") as response:
                assert await response.read() == b"value 7"
                assert int(response.headers["X-RaftKV-Revision"]) >= REVISION_JUMP + 50
            async with session.put(f"{node.url}/v1/kv/key-7", data=b"new") as response:
                assert response.status == 200
                assert json.loads(await response.read())["revision"] > REVISION_JUMP + 50
            new = await empty.status(node)
            assert new is not None
            assert new["cluster_id"] != status["cluster_id"]
    finally:
        node.kill()


async def test_row_29_a_backup_that_was_damaged_is_not_restored(tmp_path: Path) -> None:
    file, data = tmp_path / "store.backup", tmp_path / "restored"
    async with Cluster(tmp_path, 1) as cluster:
        made = run("backup", str(file), "--endpoint", cluster.urls[0])
        assert made.returncode == 0, made.stderr
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1  # behind the header, before the trailer
    file.write_bytes(content)
    addresses = ("--peer-url", "127.0.0.1:1", "--client-url", "http://127.0.0.1:2")
    refused = run("restore", str(file), "--data", str(data), "--id", "r1", *addresses)
    assert refused.returncode == 1
    assert "hash does not match" in refused.stderr
