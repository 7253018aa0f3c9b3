"""Live clusters for the alerts: real nodes on loopback, one of them behind a slow network."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from typing_extensions import override

from tests.observability.delay_proxy import DelayProxy
from tests.observability.prometheus import Job
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port


@dataclass
class FaultyNode(NodeProcess):
    """A node on a machine that fails as its file of faults says."""

    def __post_init__(self) -> None:
        self.command = [sys.executable, "-m", "tests.observability.faulty_node", str(self.faults)]

    @property
    def faults(self) -> Path:
        return self.log.with_suffix(".faults")

    def fail(self, **faults: Any) -> None:
        """From now on the machine has these faults and no others."""
        whole = self.faults.with_suffix(".new")
        whole.write_text(json.dumps(faults))
        whole.rename(self.faults)


class FaultyCluster(Cluster):
    """Three nodes on such machines; what peers send to the last one goes through ``proxy``."""

    def __init__(self, directory: Path, extra: Sequence[str] = ()) -> None:
        super().__init__(directory, extra=extra)
        slow = self.nodes[-1]
        port = free_port()
        self.proxy = DelayProxy(port, slow.peer_port)
        there, shown = f"127.0.0.1:{slow.peer_port}", f"127.0.0.1:{port}"
        for node in self.nodes:
            at = list(node.arguments).index("--peers") + 1
            node.arguments = [
                text.replace(there, shown) if number == at else text
                for number, text in enumerate(node.arguments)
            ]
        slow.arguments = [*slow.arguments, "--advertise-peer", shown]

    @override
    def new_node(
        self, name: str, ports: tuple[int, int], more: Sequence[str], data: Path | None = None
    ) -> FaultyNode:
        made = super().new_node(name, ports, more, data)
        return FaultyNode(made.name, *ports, made.data, made.log, made.arguments)

    def faulty(self, node: NodeProcess) -> FaultyNode:
        assert isinstance(node, FaultyNode)
        return node


@dataclass
class Load:
    """Some of everything, a few requests a second, whatever becomes of them."""

    urls: Sequence[str]
    token: str | None = None
    pause_seconds: float = 0.1
    answered: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> "Load":
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        self.session = aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=10.0)
        )
        self._tasks = [asyncio.create_task(work()) for work in (self._requests, self._watch)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.session.close()

    async def _ask(self, method: str, path: str, number: int, **options: Any) -> Any:
        url = self.urls[number % len(self.urls)]
        try:
            async with self.session.request(method, url + path, **options) as response:
                self.answered += 1
                return await response.json(content_type=None) if response.status < 300 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def _requests(self) -> None:
        number = 0
        lease: dict[str, Any] | None = None
        while True:
            number += 1
            key = f"/v1/kv/load/{number % 50}"
            await self._ask("PUT", f"{key}?timeout=1s", number, data=b"x" * 200)
            await self._ask("GET", f"{key}?timeout=1s", number)
            if number % 10 == 1:
                retried = {"Idempotency-Key": f"load-{number}"}
                for at in (number, number + 1):
                    await self._ask("POST", f"{key}?op=append", at, data=b"y", headers=retried)
                await self._ask("GET", "/v1/kv?prefix=load/&limit=5", number)
                await self._ask("POST", "/v1/locks/load", number, json={"ttl": "10s", "owner": "l"})
            if lease is None:
                lease = await self._ask("POST", "/v1/leases", number, json={"ttl": "60s"})
            await asyncio.sleep(self.pause_seconds)

    async def _watch(self) -> None:
        number = 0
        while True:
            number += 1
            url = self.urls[number % len(self.urls)]
            try:
                timeout = aiohttp.ClientTimeout(sock_connect=2.0, sock_read=15.0)
                async with self.session.get(
                    f"{url}/v1/watch?prefix=load/", timeout=timeout
                ) as response:
                    async for _ in response.content:
                        pass
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.5)


def job_of(name: str, cluster: Cluster, token: str | None = None) -> Job:
    return Job(name, {node.name: node.port for node in cluster.nodes}, token)


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Status and JSON."""
    timeout = aiohttp.ClientTimeout(total=20.0)
    async with session.request(method, url, json=body, timeout=timeout) as response:
        return response.status, await response.json(content_type=None)


async def followers(cluster: Cluster) -> list[NodeProcess]:
    leader = await cluster.wait_leader(30.0)
    return [node for node in cluster.running if node is not leader]


async def wait_leads(cluster: Cluster, other_than: NodeProcess) -> NodeProcess:
    """Until another node leads."""

    async def look() -> NodeProcess | None:
        leader = await cluster.leader()
        return leader if leader is not None and leader is not other_than else None

    return await wait_until("another leader", look, 30.0)
