"""Closed loop: as many requests as each system can answer, from a fixed number of clients.

All systems in turn, the order turned around each round. A run of a correct system has no failed
request, keeps its leader, moves the store revision by exactly the writes that were acknowledged
(give or take those in flight when the load stopped), and a checking client beside the load sees a
history that a linearizable store can have. A run that breaks one of these gives no number.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import etcd_tool, wrk
from benchmarks.judge import broken_promises
from benchmarks.open_loop import Generator, LoadPlan, addresses
from benchmarks.samples import ETCD, GRPC, Better, Metric, Recorder
from benchmarks.systems import NODES, System, SystemType, cpu_seconds
from benchmarks.workloads import (
    GET,
    KEY_BYTES,
    KEYS,
    PUT,
    TRANSACTIONS,
    TXN_KEYS,
    VALUE_BYTES,
    Workload,
    key,
    mixed,
)

PART: Final = "Closed loop"
CHECKS_PER_SECOND: Final = 40
_SETTLE_SECONDS: Final = 0.1
_WARM_UP_CONNECTIONS: Final = 64
_WARM_UP_SECONDS_MAX: Final = 30.0
_MIXED_KEYS: Final = 10_000
_MIXED: Final = Workload(
    "90 % GET, 10 % PUT, zipf 0.99", is_write=False, order="cycle", requests=mixed
)


@dataclass(frozen=True)
class Case:
    """One workload from so many clients."""

    workload: Workload
    connections: int
    everywhere: bool = False  # spread over all nodes; else all at the leader
    operations: int = 1  # in a request
    is_mixed: bool = False  # writes are among the requests, in an unknown number

    @property
    def title(self) -> str:
        clients = "1 client" if self.connections == 1 else f"{self.connections} clients"
        where = " over all nodes" if self.everywhere else ""
        return f"{self.workload.name}, {clients}{where}"

    def metric(self, quantity: str) -> Metric:
        """One of `QUANTITIES`."""
        unit, is_better, digits = QUANTITIES[quantity]
        return Metric(f"{PART}: {quantity}", self.title, unit, is_better, digits)


QUANTITIES: Final[dict[str, tuple[str, Better, int]]] = {
    "throughput": ("operations/s", "higher", 0),
    "median latency": ("ms", "lower", 2),
    "p99 latency": ("ms", "lower", 2),
    "CPU of all nodes": ("µs/operation", "lower", 0),
}
PUT_1: Final = Case(PUT, 1)
PUT_64: Final = Case(PUT, 64)
GET_64: Final = Case(GET, 64)
QUICK: Final = (PUT_64, GET_64, PUT_1)
FULL: Final = (
    PUT_1,
    PUT_64,
    Case(PUT, 256),
    Case(PUT, 66, everywhere=True),
    Case(GET, 1),
    GET_64,
    Case(GET, 256),
    Case(GET, 66, everywhere=True),
    Case(_MIXED, 64, is_mixed=True),
    Case(TRANSACTIONS, 16, operations=TXN_KEYS),
)


@dataclass(frozen=True)
class Run:
    """One measured run."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    nodes_cpu_us: float  # a request, all nodes together
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float  # of each measured run
    cases: Sequence[Case]


async def run_all(
    systems: Sequence[SystemType], directory: Path, plan: Plan, recorder: Recorder
) -> None:
    """All rounds."""
    for number in range(plan.rounds):
        for system in systems if number % 2 == 0 else systems[::-1]:
            with recorder.guard(system.__name__, f"round {number + 1}"):
                async with system(directory) as running:
                    await _round(number, running, directory, plan, recorder)


async def _round(
    number: int, system: System, directory: Path, plan: Plan, recorder: Recorder
) -> None:
    await _warm_up(system, directory)
    has_grpc = system.name == ETCD and etcd_tool.binary() is not None
    interfaces = [system.dialect, *([GRPC] if has_grpc else ())]
    writes = count(0, 1_000_000)  # first numbers of what the checking clients write
    for case in plan.cases:
        for interface in interfaces if number % 2 == 0 else interfaces[::-1]:
            if interface == GRPC and case.workload not in (PUT, GET):
                continue  # the tool has no such load
            with recorder.guard(interface, case.title):
                run = await measure(system, interface, case, directory, plan.seconds, next(writes))
                record(recorder, number, interface, case, run)


def record(recorder: Recorder, number: int, interface: str, case: Case, run: Run) -> None:
    """Add what a run measured, unless it broke something."""
    recorder.tell(
        f"round {number + 1}  {interface:<10}{case.title:<42}"
        f"{run.per_second * case.operations:>9,.0f}/s  p99 {run.p99_ms:.1f} ms"
    )
    if recorder.faults(interface, case.title, run.faults):
        return
    recorder.add(case.metric("throughput"), interface, run.per_second * case.operations)
    recorder.add(case.metric("median latency"), interface, run.p50_ms)
    recorder.add(case.metric("p99 latency"), interface, run.p99_ms)
    recorder.add(case.metric("CPU of all nodes"), interface, run.nodes_cpu_us / case.operations)


async def measure(  # noqa: PLR0917 all of it is the run
    system: System,
    interface: str,
    case: Case,
    directory: Path,
    seconds: float,
    first_number: int,
) -> Run:
    """One run of one case. The checking client's writes are numbered from ``first_number``."""
    leader = await system.leader()
    urls = [node.url for node in system.nodes] if case.everywhere else [leader.url]
    load = _grpc_load if interface == GRPC else _http_load
    go = await load(system, case, urls, directory, seconds)
    revision = await settled_revision(system)
    checker = Generator(_checks(system, seconds, first_number))
    checking = asyncio.create_task(checker.run())
    cpu_before, began = cpu_seconds(system), perf_counter()
    run = await go()
    used = cpu_seconds(system) - cpu_before
    # The checking client's requests cost CPU too: they are spread over all that was asked.
    checked = CHECKS_PER_SECOND * (perf_counter() - began)
    result = await checking
    moved = await settled_revision(system) - revision
    faults = [*run.faults, *broken_promises(result.history)]
    if result.count("done") < len(result.history) or result.unsent:
        faults.append("requests of the checking client failed")
    if (await system.leader()) is not leader:
        faults.append("the leader changed")
    if not case.is_mixed:
        own = sum(each.kind == "put" for each in result.history)
        fault = revision_fault(
            moved=moved - own,
            acknowledged=run.requests if case.workload.is_write else 0,
            in_flight_max=case.connections if case.workload.is_write else 0,
        )
        faults += [] if fault is None else [fault]
    return Run(
        run.requests,
        run.per_second,
        run.p50_ms,
        run.p99_ms,
        used / max(1.0, run.requests + checked) * 1e6,
        tuple(faults),
    )


_Load = Callable[[], Awaitable[Run]]


async def _http_load(
    system: System, case: Case, urls: Sequence[str], directory: Path, seconds: float
) -> _Load:
    requests = directory / "requests.txt"
    wrk.write_requests(requests, case.workload.requests(system.api, KEYS))

    async def go() -> Run:
        result, _ = await wrk.run(
            urls,
            requests,
            order=case.workload.order,
            connections=case.connections,
            seconds=seconds,
        )
        return Run(
            result.requests,
            result.requests / result.seconds,
            result.p50_ms,
            result.p99_ms,
            0.0,
            tuple(result.faults()),
        )

    return go


async def _grpc_load(
    _system: System, case: Case, urls: Sequence[str], _directory: Path, seconds: float
) -> _Load:
    async def ask(total: int) -> etcd_tool.ToolResult:
        if case.workload is GET:
            return await etcd_tool.gets(urls, clients=case.connections, count=total, key=key(0))
        return await etcd_tool.puts(
            urls,
            clients=case.connections,
            count=total,
            keys=KEYS,
            key_bytes=KEY_BYTES,
            value_bytes=VALUE_BYTES,
        )

    probe = await ask(max(500, case.connections * 30))
    total = etcd_tool.count_for(probe, seconds)

    async def go() -> Run:
        result = await ask(total)
        return Run(
            result.requests, result.per_second, result.p50_ms, result.p99_ms, 0.0, result.errors
        )

    return go


def _checks(system: System, seconds: float, first_number: int) -> LoadPlan:
    return LoadPlan(
        system=system.dialect,
        addresses=addresses([node.url for node in system.nodes]),
        rate=CHECKS_PER_SECOND,
        seconds=seconds,
        prefix=f"check/{first_number}/",
        keys=8,
        read_share=0.5,
        first_number=first_number,
        connections=NODES,
        connections_max=NODES * 3,
    )


def revision_fault(*, moved: int, acknowledged: int, in_flight_max: int) -> str | None:
    """What is wrong with the distance the store revision moved during a run; None: nothing."""
    if acknowledged <= moved <= acknowledged + in_flight_max:
        return None
    return f"{acknowledged} acknowledged writes moved the revision by {moved}"


async def settled_revision(system: System) -> int:
    """The revision once nothing is in flight any more."""
    revision = await system.revision()
    while True:
        await asyncio.sleep(_SETTLE_SECONDS)
        later = await system.revision()
        if later == revision:
            return revision
        revision = later


async def _warm_up(system: System, directory: Path) -> None:
    """Fill every key, and let everything have been done for a while."""
    leader = await system.leader()
    requests = directory / "requests.txt"
    for workload in (TRANSACTIONS, PUT, GET):
        distinct = workload.requests(system.api, KEYS)
        wrk.write_requests(requests, distinct)
        # Transactions fill the keys: each of them must have been sent.
        requests_min = len(distinct) if workload is TRANSACTIONS else 1
        seconds = 2.0
        while True:
            result, _ = await wrk.run(
                [leader.url],
                requests,
                order="cycle",
                connections=4 if workload is TRANSACTIONS else _WARM_UP_CONNECTIONS,
                seconds=seconds,
            )
            if result.requests >= requests_min:
                break
            if seconds > _WARM_UP_SECONDS_MAX:
                raise TimeoutError(f"{result.requests} requests in {seconds:g} s of warming up")
            seconds *= 2
