"""The client library and the command line against real nodes that are killed meanwhile."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from raftkv.client import (
    Client,
    CompactedError,
    ConditionFailedError,
    LockHeldError,
    RequestFailedError,
    compare,
    op,
)
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

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
    """Store 0, 1, 2, ... under changing keys, each value once."""
    for number in range(WRITES):
        if number in KILLS:
            leader = await cluster.wait_leader()
            leader.kill()
            leader.start()
        await client.put(b"w/%d" % (number % 5), b"%d" % number)
    await client.put(b"w/last", b"")


@pytest.mark.long
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
        assert values == list(range(WRITES))
        # The history says the same as what was seen while it happened.
        async with client.watch(prefix=b"w/", from_revision=0) as again:
            history: list[tuple[int, bytes]] = []
            async with asyncio.timeout(20):
                async for event in again:
                    history.append((event.revision, event.key))
                    if event.key == b"w/last":
                        break
        assert history == seen


@pytest.mark.long
async def test_rule_18_every_increment_is_done_once_while_leaders_die(tmp_path: Path) -> None:
    async with (
        Cluster(tmp_path) as cluster,
        Client(cluster.urls, timeout_seconds=20) as client,
    ):
        for number in range(1, WRITES + 1):
            if number in KILLS:
                leader = await cluster.wait_leader()
                leader.kill()
                leader.start()
            # Four at once, so that a kill finds some on their way.
            if number % 4 == 0:
                calls = [client.increment(b"n/%d" % each) for each in range(4)]
                assert await asyncio.gather(*calls) == [number // 4] * 4


async def test_everything_else_against_three_nodes(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, Client(cluster.urls) as client:
        await transactions(client)
        await leases_and_locks(client)
        await history(client)
        await long_poll(client)
        leader = await cluster.wait_leader()
        led = await client.transfer_leader()
        assert led["leader_name"] != leader.name


async def transactions(client: Client) -> None:
    await client.put(b"stock", b"1")
    sale = (
        client.txn()
        .when(compare.value(b"stock", "=", b"1"), compare.absent(b"sold"))
        .then(op.delete(b"stock"), op.put(b"sold", b"\xff"), op.increment(b"count"))
        .otherwise(op.get(b"sold"))
    )
    assert (await sale.commit()).succeeded
    assert not (await sale.commit()).succeeded
    async with client.batch() as batch:
        for number in range(300):
            await batch.put(b"b/%03d" % number, b"v")
    assert await client.count(b"b/") == 300
    assert len([item async for item in client.stream(b"b/")]) == 300
    assert len([item async for item in client.range(b"b/", page_size=70)]) == 300
    assert (await client.delete_range(b"b/")).deleted == 300


async def leases_and_locks(client: Client) -> None:
    async with client.lease(1) as lease:
        await client.put(b"k", b"v", lease=lease.id)
        found = await client.get_lease(lease.id)
        assert found is not None
        assert found.keys == (b"k",)
    assert await client.get(b"k") is None
    async with client.lock("jobs/é", 5) as lock:
        await client.put(b"k", b"1", fence=lock.fence)
        with pytest.raises(LockHeldError):
            await client.acquire_lock("jobs/é", 5, owner="another")

        async def wait_for_it() -> int:
            async with client.lock("jobs/é", 5) as other:
                return other.token

        waiting = asyncio.create_task(wait_for_it())
        await client.put(b"k", b"2", fence=lock.fence)
    assert await waiting > lock.token
    with pytest.raises(ConditionFailedError):
        await client.put(b"k", b"3", fence=lock.fence)


async def history(client: Client) -> None:
    assert await client.increment(b"once", idempotency_key="k1") == 1
    assert await client.increment(b"once", idempotency_key="k1") == 1
    with pytest.raises(RequestFailedError) as mismatch:
        await client.put(b"once", b"", idempotency_key="k1")
    assert mismatch.value.status == 422
    await client.compact(client.revision - 1)
    with pytest.raises(CompactedError) as lost:
        await client.get(b"once", revision=1)
    assert lost.value.oldest_revision > 1
    with pytest.raises(CompactedError):
        await client.watch(prefix=b"", from_revision=1).__aenter__()
    assert (await client.snapshot())["revision"] == client.revision


async def long_poll(client: Client) -> None:
    written = await client.put(b"polled", b"1")
    changed = await client.wait_for_change(b"polled", after=written.revision - 1)
    assert changed is not None
    assert changed.item is not None
    assert await client.wait_for_change(b"polled", after=written.revision, wait_seconds=0.2) is None
    waiting = asyncio.create_task(client.wait_for_change(b"polled", after=written.revision))
    deleted = await client.delete(b"polled")
    gone = await waiting
    assert gone is not None
    assert (gone.item, gone.revision) == (None, deleted.revision)


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
        token = (await run("lock", "acquire", "jobs")).decode().strip()
        assert (await raftkv(cluster, "lock", "acquire", "jobs"))[0] == 4
        await run("put", "fenced", "v", "--fence", f"jobs:{token}")
        await run("lock", "release", "jobs", token)
        assert (await raftkv(cluster, "put", "fenced", "w", "--fence", f"jobs:{token}"))[0] == 4
        lease = (await run("lease", "grant", "30s")).decode().strip()
        await run("put", "leased", "v", "--lease", lease)
        assert await run("lease", "show", lease) == b"leased\n"
        await run("lease", "revoke", lease)
        assert (await raftkv(cluster, "get", "leased"))[0] == 3
        file = tmp_path / "store.backup"
        saved = json.loads(await run("backup", str(file), "-o", "json"))
        assert saved["size_bytes"] == file.stat().st_size
        result = json.loads(
            await run("bench", "--seconds", "500ms", "--connections", "4", "-o", "json")
        )
        assert all(each["count"] > 0 for each in result["results"])
        assert result["errors"] == {}
        assert await run("ls", "raftkv-bench/", "--count") == b"0\n"


async def test_a_node_joins_leads_and_another_leaves_by_the_command_line(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        await cluster.wait_leader()
        joining = cluster.new_node("n4", (free_port(), free_port()), ())
        joining.start()
        try:
            await join_and_lead(cluster, joining)
            code, _ = await raftkv(cluster, "members", "remove", "n2", "--if-config", "1")
            assert code == 4
            assert (await raftkv(cluster, "members", "remove", "n2"))[0] == 0
            _, listed = await raftkv(cluster, "members", "list")
            assert sorted(line.split(b"\t")[0] for line in listed.splitlines()) == [
                b"n1",
                b"n3",
                b"n4",
            ]
        finally:
            joining.kill()


async def join_and_lead(cluster: Cluster, joining: NodeProcess) -> None:
    async def id_of_it() -> str | None:
        status = await cluster.status(joining)
        is_ready = status is not None and status["state"] == "uninitialised"
        return str(status["member_id"]) if status is not None and is_ready else None

    member_id = await wait_until("n4 has an id", id_of_it, 20)
    code, _ = await raftkv(
        cluster,
        *("members", "add", member_id, "--name", "n4", "--promote"),
        *("--peer-url", f"127.0.0.1:{joining.peer_port}", "--client-url", joining.url),
    )
    assert code == 0

    async def leads() -> bool | None:
        # Refused until it has caught up and votes.
        code, _ = await raftkv(cluster, "transfer", "n4")
        return code == 0 or None

    await wait_until("n4 leads", leads, 30)
    status = await cluster.status(joining)
    assert status is not None
    assert status["role"] == "leader"
