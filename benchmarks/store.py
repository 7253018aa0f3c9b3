"""A store of a million keys, on both systems: memory and disk a key, mixed load, restart of all.

Both are filled with single puts. (Transactions would fill it sooner, but leave etcd with large
entries in its memory, which are no property of the keys.) Memory is what the kernel counts as
resident, pages of mapped files included, after a while without load, less what it was before.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from time import monotonic
from typing import Final

from benchmarks import closed_loop, etcd_tool, large_store, wrk
from benchmarks.samples import ETCD, Metric, Recorder
from benchmarks.systems import RaftKV, System, SystemType, resident_bytes
from benchmarks.workloads import KEY_BYTES, VALUE_BYTES, Workload, key, mixed
from tests.process.cluster import wait_until

PART: Final = "A large store"
MEMORY: Final = Metric(PART, "resident memory of a node, mean of three", "B/key", "lower")
_MEMORY_LEADER: Final = Metric(PART, "resident memory of the leader", "B/key", "lower")
_DISK: Final = Metric(PART, "store on disk, with its history", "B/key", "lower")
_FILL: Final = Metric(PART, "filling, the load of the note below", "PUT/s", "higher")
_READ_AGAIN: Final = Metric(
    PART, "SIGKILL of all nodes: until a linearizable read", "s", "lower", 2
)
_READY_AGAIN: Final = Metric(PART, "SIGKILL of all nodes: until all are ready", "s", "lower", 2)
_IDLE_BEFORE_SECONDS: Final = 5.0
_CHUNK_SECONDS_MAX: Final = 20.0
_FILL_CONNECTIONS: Final = 256
#: Far more than were put between the first and the last of those in flight at a time.
_FILL_AGAIN: Final = 20 * _FILL_CONNECTIONS
_FILL_SECONDS_MAX: Final = 400.0
_RESTART_SECONDS_MAX: Final = 300.0


async def run_all(
    systems: Sequence[SystemType],
    directory: Path,
    keys: int,
    idle_seconds: float,
    recorder: Recorder,
    *,
    is_quick: bool,
) -> None:
    """Each system once."""
    recorder.note(
        f"The large store has {keys:,} keys of {KEY_BYTES} bytes with values of {VALUE_BYTES} "
        f"bytes, put one by one from {_FILL_CONNECTIONS} clients: RaftKV by wrk, etcd by its own "
        "tool over gRPC where there is one, else by wrk over JSON. Memory was read after "
        f"{idle_seconds:g} s without load."
    )
    for system in systems:
        with recorder.guard(system.__name__, "a large store"):
            async with system(directory) as running:
                await _measure(running, directory, keys, idle_seconds, recorder, is_quick=is_quick)


async def _measure(
    system: System,
    directory: Path,
    keys: int,
    idle_seconds: float,
    recorder: Recorder,
    *,
    is_quick: bool,
) -> None:
    await asyncio.sleep(_IDLE_BEFORE_SECONDS)
    before = resident_bytes(system.nodes)
    has_grpc = system.name == ETCD and etcd_tool.binary() is not None
    per_second = await (_fill_by_grpc if has_grpc else _fill)(system, keys)
    await closed_loop.settled_revision(system)
    await asyncio.sleep(idle_seconds)
    there = await system.count("")
    if there < keys:
        recorder.fault(system.name, f"{keys} keys were written and {there} are there")
        return
    grown = [
        (after - first) / there
        for after, first in zip(resident_bytes(system.nodes), before, strict=True)
    ]
    leader = system.nodes.index(await system.leader())
    for metric, value in (
        (_FILL, per_second),
        (MEMORY, mean(grown)),
        (_MEMORY_LEADER, grown[leader]),
        (_DISK, await system.disk_bytes() / there),
    ):
        recorder.tell(f"{system.name:<8}{metric.what}: {value:,.0f} {metric.unit}")
        recorder.add(metric, system.name, value)
    if is_quick:
        return
    with recorder.guard(system.dialect, "mixed load"):
        await _mixed(system, directory, keys, recorder, has_grpc=has_grpc)
    with recorder.guard(system.name, "SIGKILL of all"):
        await _kill_all(system, there, recorder)
    if isinstance(system, RaftKV):
        with recorder.guard(system.name, "snapshot, restarts, new member"):
            await large_store.measure(system.cluster, keys, recorder)


async def _fill(system: System, keys: int) -> float:
    """Put keys 0 to ``keys`` by wrk, which runs for a time: there may be some more at the end."""
    leader = await system.leader()
    done, next_number, seconds = 0, 0, 2.0
    loading_seconds = 0.0
    while next_number < keys:
        result, _ = await wrk.fill(
            leader.url,
            system.dialect,
            next_number,
            1,
            connections=_FILL_CONNECTIONS,
            seconds=seconds,
        )
        if faults := result.faults():
            raise RuntimeError(", ".join(faults))
        done += result.requests
        # Some of the last numbers were in flight at the end, and may not be there: once more.
        next_number += max(result.requests - _FILL_AGAIN, result.requests // 2)
        loading_seconds += result.seconds
        if loading_seconds > _FILL_SECONDS_MAX:
            raise TimeoutError(f"{next_number} keys within {loading_seconds:.0f} s")
        left_seconds = (keys - next_number) / max(1.0, done / loading_seconds)
        seconds = min(_CHUNK_SECONDS_MAX, max(1.0, left_seconds + 1.0))
    return done / loading_seconds


async def _fill_by_grpc(system: System, keys: int) -> float:
    leader = await system.leader()
    result = await etcd_tool.puts(
        [leader.url],
        clients=_FILL_CONNECTIONS,
        count=keys,
        keys=keys,
        key_bytes=KEY_BYTES,
        value_bytes=VALUE_BYTES,
        seconds_max=_FILL_SECONDS_MAX,
    )
    if result.errors:
        raise RuntimeError(", ".join(result.errors))
    return result.per_second


async def _mixed(
    system: System, directory: Path, keys: int, recorder: Recorder, *, has_grpc: bool
) -> None:
    """Reads and writes over all keys, as `closed_loop` does it over a few."""
    workload = Workload(
        f"90 % GET, 10 % PUT, zipf 0.99, {keys:,} keys",
        is_write=False,
        order="cycle",
        requests=lambda api, _: mixed(api, keys, etcd_tool.sequential_key if has_grpc else key),
    )
    case = closed_loop.Case(workload, 64, is_mixed=True)
    run = await closed_loop.measure(system, system.dialect, case, directory, 5.0, 10_000_000)
    closed_loop.record(recorder, 0, system.dialect, case, run)


async def _kill_all(system: System, keys: int, recorder: Recorder) -> None:
    await closed_loop.settled_revision(system)
    for node in system.nodes:
        node.kill()
    began = monotonic()
    for node in system.nodes:
        node.start()

    async def read() -> int | None:
        try:
            return await system.count("bench/000000000")
        except Exception:  # noqa: BLE001 nothing serves yet, in whatever way
            return None

    await wait_until("a linearizable read", read, _RESTART_SECONDS_MAX)
    read_again = monotonic() - began
    await system.wait_ready(system.nodes, _RESTART_SECONDS_MAX)
    ready_again = monotonic() - began
    if (there := await system.count("")) < keys:
        recorder.fault(system.name, f"of {keys} keys {there} are there after a SIGKILL of all")
        return
    for metric, value in ((_READ_AGAIN, read_again), (_READY_AGAIN, ready_again)):
        recorder.tell(f"{system.name:<8}{metric.what}: {value:.2f} s")
        recorder.add(metric, system.name, value)
