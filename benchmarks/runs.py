"""The rounds: every system in turn, the order turned around each time, and what makes a run count.

A run of a correct system has no failed request, keeps its leader, and moves the store revision by
exactly the writes that were acknowledged, give or take those in flight when the load stopped. A
number from any other run is a bug report: it is shown as one and makes `make bench` fail.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import wrk
from benchmarks.systems import System
from benchmarks.workloads import KEYS, WORKLOADS, Workload

_SETTLE_SECONDS: Final = 0.2

_Load = Callable[[float], Awaitable[tuple[wrk.WrkResult, float]]]


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float  # of each measured run
    warmup_seconds: float
    connections: int


@dataclass(frozen=True)
class Run:
    """One measured run of one workload on one system."""

    system: str
    workload: str
    load: wrk.WrkResult
    server_cpu_us: float  # microseconds a request, all nodes together
    client_cpu_us: float
    faults: tuple[str, ...]

    @property
    def per_second(self) -> float:
        """Answered requests."""
        return self.load.requests / self.load.seconds


async def run_all(
    systems: Sequence[Callable[[Path], System]],
    directory: Path,
    plan: Plan,
    tell: Callable[[str], None],
) -> list[Run]:
    """All rounds; ``tell`` hears what is going on."""
    runs = []
    for number in range(plan.rounds):
        for system in systems if number % 2 == 0 else systems[::-1]:
            async with system(directory) as running:
                for workload in WORKLOADS:
                    run = await _measure(running, workload, directory, plan)
                    runs.append(run)
                    tell(_describe(number, run))
    return runs


async def _measure(system: System, workload: Workload, directory: Path, plan: Plan) -> Run:
    requests = directory / "requests.txt"
    wrk.write_requests(requests, workload.requests(system.api, KEYS))
    leader = await system.leader_url()

    async def load(seconds: float) -> tuple[wrk.WrkResult, float]:
        return await wrk.run(
            leader,
            requests,
            order=workload.order,
            connections=plan.connections,
            seconds=seconds,
        )

    await _warm_up(load, plan.warmup_seconds, KEYS if workload.is_write else 0)
    revision = await _settled_revision(system)
    server_seconds = system.cpu_seconds()
    result, client_seconds = await load(plan.seconds)
    server_seconds = system.cpu_seconds() - server_seconds
    moved = await _settled_revision(system) - revision
    faults = result.faults()
    if await system.leader_url() != leader:
        faults.append("the leader changed")
    fault = revision_fault(
        moved=moved,
        acknowledged=result.requests if workload.is_write else 0,
        in_flight_max=plan.connections if workload.is_write else 0,
    )
    if fault is not None:
        faults.append(fault)
    return Run(
        system=system.name,
        workload=workload.name,
        load=result,
        server_cpu_us=server_seconds / max(1, result.requests) * 1e6,
        client_cpu_us=client_seconds / max(1, result.requests) * 1e6,
        faults=tuple(faults),
    )


def revision_fault(*, moved: int, acknowledged: int, in_flight_max: int) -> str | None:
    """What is wrong with the distance the store revision moved during a run; None: nothing."""
    if acknowledged <= moved <= acknowledged + in_flight_max:
        return None
    return f"{acknowledged} acknowledged writes moved the revision by {moved}"


async def _warm_up(load: _Load, seconds: float, requests_min: int) -> None:
    """Load until one run made ``requests_min``: writes in order have then filled every key."""
    while (await load(seconds))[0].requests < requests_min:
        seconds *= 2


async def _settled_revision(system: System) -> int:
    """The revision once nothing is in flight any more."""
    revision = await system.revision()
    while True:
        await asyncio.sleep(_SETTLE_SECONDS)
        later = await system.revision()
        if later == revision:
            return revision
        revision = later


def _describe(number: int, run: Run) -> str:
    faults = f"  INVALID: {'; '.join(run.faults)}" if run.faults else ""
    return (
        f"round {number + 1}  {run.system:<8}{run.workload:<26}{run.per_second:>10,.0f}/s  "
        f"p99 {run.load.p99_ms:.1f} ms{faults}"
    )
