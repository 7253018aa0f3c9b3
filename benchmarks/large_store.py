"""What a store of a million keys costs: memory, a restart, a snapshot, a new member.

Real processes on loopback, as in the other benchmarks. Every step checks what it measures: a
restarted node must have every key, a new member must be alike, a write must be acknowledged.
"""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any, Final

import aiohttp
import psutil

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

VALUE_BYTES: Final = 256
TXN_KEYS: Final = 128
_LOADERS: Final = 16
_STEP_SECONDS_MAX: Final = 300.0
# Of the load beside a snapshot and a new member: well below what the cluster can do.
_WRITES_PER_SECOND: Final = 300
_BASELINE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Fact:
    """One measured number, and what it says."""

    what: str
    value: str
    note: str = ""


@dataclass
class Latencies:
    """Of writes at a fixed rate, from when each was due."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    def p99_ms(self) -> float:
        return quantiles(self.milliseconds, n=100)[98]

    def max_ms(self) -> float:
        return max(self.milliseconds)


async def measure(directory: Path, keys: int) -> AsyncIterator[Fact]:
    """All facts, one after the other, as they are known."""
    async with Cluster(directory) as cluster, aiohttp.ClientSession() as session:
        before = _resident_bytes(cluster.nodes)
        seconds = await _load(session, await cluster.wait_leader(), keys)
        yield Fact(f"load {keys:,} keys", f"{seconds:.1f} s", f"transactions of {TXN_KEYS} puts")
        await _until_alike(cluster, cluster.nodes)
        leader = await cluster.wait_leader()
        grown = _resident_bytes([leader]) - before // len(cluster.nodes)
        yield Fact("memory of the leader", f"{grown / keys:.0f} B/key", "resident, less its start")
        size = (await _status(cluster, leader))["db_bytes"]
        yield Fact("state machine on disk", f"{size / keys:.0f} B/key", "with its history")
        async for fact in _snapshot(cluster, session):
            yield fact
        async for fact in _restarts(cluster, keys):
            yield fact
        async for fact in _newcomer(cluster, session):
            yield fact


# ---- steps ----------------------------------------------------------------------------------


async def _load(session: aiohttp.ClientSession, leader: NodeProcess, keys: int) -> float:
    """Store all keys; the seconds it took."""
    value = "v" * VALUE_BYTES
    starts = iter(range(0, keys, TXN_KEYS))

    async def work() -> None:
        for start in starts:
            puts = [
                {"op": "put", "key": f"key-{number:09}", "value": value}
                for number in range(start, min(start + TXN_KEYS, keys))
            ]
            body = json.dumps({"compare": [], "success": puts, "failure": []})
            async with session.post(f"{leader.url}/v1/txn", data=body) as response:
                assert response.status == 200, await response.text()

    began = perf_counter()
    await asyncio.gather(*(work() for _ in range(_LOADERS)))
    return perf_counter() - began


async def _snapshot(cluster: Cluster, session: aiohttp.ClientSession) -> AsyncIterator[Fact]:
    """What a snapshot of the leader does to writes."""
    leader = await cluster.wait_leader()
    async with _writing(session, leader) as quiet:
        await asyncio.sleep(_BASELINE_SECONDS)
    async with _writing(session, leader) as during:
        began = perf_counter()
        url = f"{leader.url}/v1/maintenance/snapshot"
        timeout = aiohttp.ClientTimeout(total=_STEP_SECONDS_MAX)
        async with session.post(url, timeout=timeout) as response:
            assert response.status == 200, await response.text()
            size = (await response.json())["size_bytes"]
        seconds = perf_counter() - began
        await asyncio.sleep(1.0)
    _check(quiet, during)
    yield Fact("snapshot while serving", f"{seconds:.1f} s", f"{size / 1e6:.0f} MB")
    yield Fact(
        "p99 of writes, during and before",
        f"{during.p99_ms():.1f} and {quiet.p99_ms():.1f} ms",
        f"{_WRITES_PER_SECOND} writes/s; longest {during.max_ms():.0f} and {quiet.max_ms():.0f} ms",
    )


async def _restarts(cluster: Cluster, keys: int) -> AsyncIterator[Fact]:
    """How long a follower is away: ended, killed, and with its state machine discarded."""
    leader = await cluster.wait_leader()
    node = next(each for each in cluster.nodes if each is not leader)
    for what, number, discard in (
        ("restart after SIGTERM", signal.SIGTERM, False),
        ("restart after SIGKILL", signal.SIGKILL, False),
        ("restart, state machine discarded", signal.SIGKILL, True),
    ):
        node.send_signal(number)
        await cluster.wait_exit(node, 60.0)
        if discard:
            shutil.rmtree(node.data / "store")
        began = perf_counter()
        node.start()
        await cluster.wait_ready([node], _STEP_SECONDS_MAX)
        seconds = perf_counter() - began
        assert (await _status(cluster, node))["keys"] >= keys, "keys are missing"
        yield Fact(what, f"{seconds:.2f} s", "process start to ready")


async def _newcomer(cluster: Cluster, session: aiohttp.ClientSession) -> AsyncIterator[Fact]:
    """An empty node joins as a learner while the leader keeps serving."""
    ports = (free_port(), free_port())
    newcomer = cluster.new_node("n4", ports, ())
    leader = await cluster.wait_leader()
    newcomer.start()
    try:
        member_id = await wait_until(
            "the new node answers", lambda: _member_id(cluster, newcomer), 20.0
        )
        async with _writing(session, leader) as during:
            began = perf_counter()
            member = {
                "id": member_id,
                "name": "n4",
                "peer_url": f"127.0.0.1:{ports[1]}",
                "client_url": newcomer.url,
            }
            async with session.post(f"{leader.url}/v1/cluster/members", json=member) as response:
                assert response.status in (200, 201), await response.text()
            await wait_until(
                "the new node has caught up",
                lambda: _has_caught_up(cluster, leader, newcomer),
                _STEP_SECONDS_MAX,
            )
            seconds = perf_counter() - began
        _check(during)
        yield Fact(
            "an empty follower catches up",
            f"{seconds:.1f} s",
            f"p99 of writes meanwhile {during.p99_ms():.1f} ms",
        )
    finally:
        newcomer.kill()


# ---- parts ----------------------------------------------------------------------------------


@asynccontextmanager
async def _writing(session: aiohttp.ClientSession, leader: NodeProcess) -> AsyncIterator[Latencies]:
    """Writes at a fixed rate inside the context."""
    latencies = Latencies()
    tasks: set[asyncio.Task[None]] = set()
    value = b"w" * VALUE_BYTES

    async def write(number: int, due_at: float) -> None:
        url = f"{leader.url}/v1/kv/writer-{number % 1000}"
        try:
            async with session.put(url, data=value) as response:
                await response.read()
                if response.status not in (200, 201):
                    latencies.failed += 1
        except (aiohttp.ClientError, TimeoutError):
            latencies.failed += 1
        latencies.milliseconds.append((perf_counter() - due_at) * 1e3)

    async def pace() -> None:
        began, number = perf_counter(), 0
        while True:
            due_at = began + number / _WRITES_PER_SECOND
            await asyncio.sleep(max(0.0, due_at - perf_counter()))
            task = asyncio.create_task(write(number, due_at))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1

    pacer = asyncio.create_task(pace())
    try:
        yield latencies
    finally:
        pacer.cancel()
        await asyncio.gather(*tasks)


def _check(*runs: Latencies) -> None:
    assert not any(run.failed for run in runs), "writes failed"


def _resident_bytes(nodes: Sequence[NodeProcess]) -> int:
    return sum(psutil.Process(node.pid).memory_info().rss for node in nodes)


async def _status(cluster: Cluster, node: NodeProcess) -> dict[str, Any]:
    status = await cluster.status(node)
    assert status is not None, f"{node.name} does not answer"
    return status


async def _member_id(cluster: Cluster, node: NodeProcess) -> str | None:
    status = await cluster.status(node)
    member_id = None if status is None else status["member_id"]
    return None if member_id is None or set(member_id) == {"0"} else str(member_id)


async def _has_caught_up(
    cluster: Cluster, leader: NodeProcess, newcomer: NodeProcess
) -> bool | None:
    ahead, behind = await cluster.status(leader), await cluster.status(newcomer)
    if ahead is None or behind is None or behind["keys"] < ahead["keys"]:
        return None
    return ahead["commit_index"] - behind["applied_index"] < _WRITES_PER_SECOND or None


async def _until_alike(cluster: Cluster, nodes: Sequence[NodeProcess]) -> None:
    async def look() -> bool | None:
        statuses = await asyncio.gather(*(cluster.status(node) for node in nodes))
        return len({None if s is None else s["applied_index"] for s in statuses}) == 1 or None

    await wait_until("all nodes to be alike", look, _STEP_SECONDS_MAX)
