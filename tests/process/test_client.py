"""The client library and the command line against real nodes that are killed meanwhile."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from raftkv.client import Client, OutcomeUnknownError
from tests.process.cluster import Cluster

pytestmark = pytest.mark.process

WRITES = 120
KILLS = (30, 70)


async def raftkv(cluster: Cluster, *arguments: str) -> tuple[int, bytes]:
    """Exit code and standard output of a command."""
    endpoints = [part for url in cluster.urls for part in ("--endpoint", url)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raftkv", *arguments, *endpoints),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output


async def write_while_leaders_die(cluster: Cluster, client: Client) -> None:
    """Store 0, 1, 2, ... under changing keys; each value at least once."""
    for number in range(WRITES):
        if number in KILLS:
            leader = await cluster.wait_leader()
            leader.kill()
            leader.start()
        is_done = False
        while not is_done:
            try:
                await client.put(b"w/%d" % (number % 5), b"%d" % number)
                is_done = True
            except OutcomeUnknownError:
                continue  # a put may be repeated
    await client.put(b"w/last", b"")


async def test_a_watch_loses_nothing_and_repeats_nothing_while_leaders_die(
    tmp_path: Path,
) -> None:
    async with (
        Cluster(tmp_path) as cluster,
        Client(cluster.urls, timeout_seconds=20) as client,
        client.watch(prefix=b"w/") as watch,
    ):
        writing = asyncio.create_task(write_while_leaders_die(cluster, client))
        seen: list[tuple[int, bytes]] = []
        values: list[int] = []
        async with asyncio.timeout(60):
            async for event in watch:
                assert event.item is not None
                seen.append((event.revision, event.key))
                if event.key == b"w/last":
                    break
                values.append(int(event.item.value))
        await writing
        revisions = [revision for revision, _ in seen]
        assert revisions == sorted(set(revisions))
        assert sorted(set(values)) == list(range(WRITES))
        # The history says the same as what was seen while it happened.
        async with client.watch(prefix=b"w/", from_revision=0) as again:
            history: list[tuple[int, bytes]] = []
            async with asyncio.timeout(20):
                async for event in again:
                    history.append((event.revision, event.key))
                    if event.key == b"w/last":
                        break
        assert history == seen


async def test_the_command_line_against_three_nodes(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        await cluster.wait_leader()

        async def run(*arguments: str) -> bytes:
            code, output = await raftkv(cluster, *arguments)
            assert code == 0, arguments
            return output

        assert await run("put", "a/../b//", "value") == b"1\n"
        assert await run("get", "a/../b//") == b"value"
        assert await run("incr", "hits", "--by", "5") == b"5\n"
        assert await run("ls", "--keys-only") == b"a/../b//\nhits\n"
        events = await run("watch", "--prefix", "", "--from", "0", "--count", "2", "-o", "json")
        assert [json.loads(line)["revision"] for line in events.splitlines()] == [1, 2]
        members = json.loads(await run("members", "list", "-o", "json"))["members"]
        assert sorted(member["name"] for member in members) == ["n1", "n2", "n3"]
        # Whoever was asked first: only the leader knows how far the others are.
        assert all(member["match_index"] is not None for member in members)
        assert len((await run("status")).splitlines()) == 3
        file = tmp_path / "store.backup"
        saved = json.loads(await run("backup", str(file), "-o", "json"))
        assert saved["size_bytes"] == file.stat().st_size
        result = json.loads(
            await run("bench", "--seconds", "500ms", "--connections", "4", "-o", "json")
        )
        assert all(each["count"] > 0 for each in result["results"])
        assert result["errors"] == {}
        assert await run("ls", "raftkv-bench/", "--count") == b"0\n"
