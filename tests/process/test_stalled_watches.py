"""Row 43 of the catalogue of faults: a thousand watchers of one node, some of which stand still."""

import asyncio
import re
import socket
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import aiohttp
import pytest

from benchmarks.fan_out import fan_out
from raftkv.client import Client
from tests.process.cluster import Cluster, NodeProcess, wait_until

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(240)]

WATCHERS = 1000
STALLED = 20
RATE = 50
SECONDS = 6
VALUE = b"\x61" * (64 << 10)
# What the kernel takes for a connection (4 MiB) and the node for it (1 MiB), and as much again.
WRITES_MAX = 160
# What a reader that stands still lets the kernel keep on its side.
RECEIVE_BYTES = 4 << 10
END_SECONDS_MAX = 30.0

_PUT = re.compile(rb"event: put\ndata: [^\n]*\nid: [0-9a-f]{16}:(\d+)\n\n")


async def test_row_43_who_stands_still_among_a_thousand_watchers_is_cut_and_goes_on_later(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        leader = await cluster.wait_leader()
        stalled = [stack.enter_context(closing(Stalled(leader))) for _ in range(STALLED)]
        for reader in stalled:
            await reader.begin()
        assert await metric(leader, "raftkv_watchers") == STALLED
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(
                fan_out(leader, watchers=WATCHERS - STALLED, rate=RATE, seconds=SECONDS)
            )
            await until_all_watch(leader)
            revisions = await write_until_all_are_cut(leader)
        # The others have noticed nothing.
        result = telling.result()
        print(result.describe())  # noqa: T201 pytest shows it with the failure
        assert result.faults() == []
        assert result.tally.received == (WATCHERS - STALLED) * RATE * SECONDS
        # Who was cut goes on behind what it has read, and has missed nothing.
        for reader in stalled:
            read = await reader.until_cut()
            assert 0 < len(read) < len(revisions)
            assert read + await rest(cluster, after=read[-1], last=revisions[-1]) == revisions


class Stalled:
    """A watch that reads how it begins, and then nothing."""

    def __init__(self, node: NodeProcess) -> None:
        self._port = node.port
        self._socket = socket.socket()
        # Before it is connected: it says so to the other side then.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.setblocking(False)

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        request = b"GET /v1/watch?prefix=stalled/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await loop.sock_sendall(self._socket, request)
        head = b""
        while b"event: progress" not in head:
            piece = await loop.sock_recv(self._socket, 1024)
            assert piece, head
            head += piece

    def close(self) -> None:
        self._socket.close()

    async def until_cut(self) -> list[int]:
        """Read what is left; the revisions that were told whole."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        async with asyncio.timeout(END_SECONDS_MAX):
            with suppress(ConnectionResetError):
                while piece := await loop.sock_recv(self._socket, 1 << 20):
                    data += piece
        return [int(revision) for revision in _PUT.findall(data)]


async def metric(node: NodeProcess, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{node.url}/metrics") as answer:
        text = await answer.text()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def until_all_watch(node: NodeProcess) -> None:
    async def look() -> bool | None:
        return await metric(node, "raftkv_watchers") >= WATCHERS or None

    await wait_until("all watch", look, 2 * END_SECONDS_MAX)


async def write_until_all_are_cut(node: NodeProcess) -> list[int]:
    """The revisions of the writes that it took, and of one more."""
    revisions: list[int] = []
    async with aiohttp.ClientSession() as session:

        async def put() -> None:
            url = f"{node.url}/v1/kv/stalled/{len(revisions)}"
            async with session.put(url, data=VALUE) as answer:
                assert answer.status == 201
                revisions.append(int(answer.headers["X-RaftKV-Revision"]))

        while await metric(node, "raftkv_watches_cut_total") < STALLED:
            assert len(revisions) < WRITES_MAX, "who reads nothing is not cut"
            await put()
        await put()
    return revisions


async def rest(cluster: Cluster, *, after: int, last: int) -> list[int]:
    """What a watch is told that goes on behind a revision, up to another one."""
    revisions: list[int] = []
    async with (
        asyncio.timeout(END_SECONDS_MAX),
        Client(cluster.urls) as client,
        client.watch(prefix=b"stalled/", from_revision=after) as watch,
    ):
        async for event in watch:
            revisions.append(event.revision)
            if event.revision >= last:
                break
    return revisions
