"""Restarts that nobody should notice: all nodes at once, and one after the other under load."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.recorder import attempt, recording_session
from tests.process.cluster import Cluster, wait_until
from tests.process.judge import judge
from tests.process.load import Load

pytestmark = pytest.mark.process

DRAIN_SECONDS = 2.0
EXIT_SECONDS_MAX = DRAIN_SECONDS + 8.0


async def test_kill_of_all_nodes_at_once_under_load_loses_nothing(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        async with Load(cluster.urls, pause_seconds=0.002) as load:
            await wait_until("enough writes", lambda: many(load, 400), 30.0)
            for node in cluster.nodes:
                node.send_signal(signal.SIGKILL)
            for node in cluster.nodes:
                assert await cluster.wait_exit(node, 5.0) == -signal.SIGKILL
        await start_again(cluster)
        await load.read_back()
    judge(load.history, tmp_path)


@pytest.mark.long
async def test_sigterm_of_all_nodes_at_once_keeps_everything(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", "0")) as cluster:
        async with Load(cluster.urls, pause_seconds=0.002) as load:
            await wait_until("enough writes", lambda: many(load, 400), 30.0)
        for node in cluster.nodes:
            node.send_signal(signal.SIGTERM)
        for node in cluster.nodes:
            assert await cluster.wait_exit(node, EXIT_SECONDS_MAX) == 0
        await start_again(cluster)
        await load.read_back()
    judge(load.history, tmp_path)


async def start_again(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.start()
    await cluster.wait_ready()


async def many(load: Load, count: int) -> bool | None:
    return len(load.acknowledged_writes()) >= count or None


@pytest.mark.long
async def test_rolling_sigterm_fails_no_request_that_is_sent_once_more(tmp_path: Path) -> None:
    async with Cluster(tmp_path, extra=("--drain-seconds", str(DRAIN_SECONDS))) as cluster:
        async with patient_clients(cluster.urls) as clients:
            for node in cluster.nodes:
                await clients.wait_for_more(100)
                node.send_signal(signal.SIGTERM)
                assert await cluster.wait_exit(node, EXIT_SECONDS_MAX) == 0
                node.start()
                await cluster.wait_ready([node])
        assert not clients.failed, clients.failed[:5]


@dataclass
class PatientClients:
    """Clients that try a request at most twice, the second time on another node.

    They write each key once, always with the same value, so that sending a write whose outcome is
    unknown again is harmless, and read it back.
    """

    urls: Sequence[str]
    done: int = 0
    failed: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for_more(self, count: int) -> None:
        """Until ``count`` more requests were answered, or one failed."""
        enough = self.done + count

        async def look() -> bool | None:
            return self.done >= enough or bool(self.failed) or None

        await wait_until("requests go on", look, 15.0)

    async def run(self, client: int) -> None:
        async with recording_session(7.0) as session:
            count = 0
            while not self.stopping.is_set():
                count += 1
                key, value = f"{client}/{count}", f"value {client} {count}"
                write = Operation(client, key, Kind.PUT, 0, argument=value)
                await self._try_twice(session, client + count, write)
                read = await self._try_twice(
                    session, client + count + 1, Operation(client, key, Kind.GET, 0)
                )
                if read is not None and read.value != value:
                    self.failed.append(f"{key} reads {read.value!r}")

    async def _try_twice(
        self, session: aiohttp.ClientSession, place: int, asked: Operation
    ) -> Operation | None:
        told = []
        for turn in range(2):
            url = self.urls[(place + turn) % len(self.urls)]
            operation = await attempt(session, url, asked)
            if operation.certainty is Certainty.KNOWN:
                self.done += 1
                return operation
            told.append(f"{operation.certainty.value} from {url}")
        self.failed.append(f"{asked.kind.value} {asked.key}: {', '.join(told)}")
        return None


@asynccontextmanager
async def patient_clients(urls: Sequence[str]) -> AsyncIterator[PatientClients]:
    clients = PatientClients(urls)
    tasks = [asyncio.create_task(clients.run(number)) for number in range(8)]
    try:
        yield clients
    finally:
        clients.stopping.set()
        await asyncio.gather(*tasks)
