"""What a store of a million keys costs RaftKV: restarts, a snapshot, a new member.

Real processes on loopback, as in the other benchmarks. Every step checks what it measures: a
restarted node must have every key, a new member must be alike, a write must be acknowledged.
"""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from time import perf_counter
from typing import Any, Final

import aiohttp

from benchmarks.samples import OURS, Metric, Recorder
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

PART: Final = "A large store, RaftKV alone"
VALUE_BYTES: Final = 256
_STEP_SECONDS_MAX: Final = 300.0
# Of the load beside a snapshot and a new member: well below what the cluster can do.
_WRITES_PER_SECOND: Final = 300
_BASELINE_SECONDS: Final = 10.0


@dataclass
class Latencies:
    """Of writes at a fixed rate, from when each was due."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    def p99_ms(self) -> float:
        return quantiles(self.milliseconds, n=100)[98]

    def max_ms(self) -> float:
        return max(self.milliseconds)


async def measure(cluster: Cluster, keys: int, recorder: Recorder) -> None:
    """Snapshot, restarts and a new member of a cluster that has so many keys."""
    async with aiohttp.ClientSession() as session:
        await _snapshot(cluster, session, recorder)
        await _restarts(cluster, keys, recorder)
        await _newcomer(cluster, session, recorder)


# ---- steps ----------------------------------------------------------------------------------


async def _snapshot(cluster: Cluster, session: aiohttp.ClientSession, recorder: Recorder) -> None:
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
    _add(recorder, f"snapshot of {size / 1e6:.0f} MB while serving", "s", seconds)
    at = f"{_WRITES_PER_SECOND} writes/s"
    _add(recorder, f"p99 of {at}, no snapshot", "ms", quiet.p99_ms())
    _add(recorder, f"p99 of {at}, during a snapshot", "ms", during.p99_ms())
    _add(recorder, f"longest of {at}, during a snapshot", "ms", during.max_ms())


async def _restarts(cluster: Cluster, keys: int, recorder: Recorder) -> None:
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
        _add(recorder, f"follower, {what}: until ready", "s", seconds)


async def _newcomer(cluster: Cluster, session: aiohttp.ClientSession, recorder: Recorder) -> None:
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
        _add(recorder, "an empty member catches up", "s", seconds)
        at = f"{_WRITES_PER_SECOND} writes/s"
        _add(recorder, f"p99 of {at}, while it does", "ms", during.p99_ms())
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


def _add(recorder: Recorder, what: str, unit: str, value: float) -> None:
    recorder.tell(f"{what}: {value:.2f} {unit}")
    recorder.add(Metric(PART, what, unit, "lower", 2), OURS, value)


def _check(*runs: Latencies) -> None:
    assert not any(run.failed for run in runs), "writes failed"


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
