"""Open loop: what a client waits at a fixed rate, counted from when each request was due.

The rates are the same for both systems: fixed ones, and half of the most puts that etcd's JSON
gateway did in this run's closed loop. The same generator asks both, over HTTP. Before, it shows on
a server that answers at once that it can do several times the highest rate.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.judge import broken_promises
from benchmarks.open_loop import LoadPlan, Result, addresses, run
from benchmarks.samples import Metric, Recorder, percentile
from benchmarks.systems import System, SystemType
from tests.process.ports import free_port

PART: Final = "Open loop"
SHARES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
HALF_OF_PEAK: Final = "half of etcd's JSON peak"
#: Used for the half of the peak when there was no closed loop to say what the peak is.
_HALF_OF_PEAK_DEFAULT: Final = 3000.0
_HEADROOM: Final = 3.0
_KEYS: Final = 10_000
_ROOT: Final = Path(__file__).parent.parent
_SELF_TEST_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Case:
    """A rate, and what share of it are reads."""

    rate: float
    read_share: float = 0.0
    name: str = ""  # instead of the rate

    def metric(self, kind: str, quantity: str) -> Metric:
        """Of ``kind`` "PUT" or "GET", one of `SHARES`."""
        at = self.name or f"{self.rate:,.0f}/s"
        mix = f" among {self.read_share:.0%} GET" if self.read_share else ""
        what = f"{kind} at {at}{mix}, {quantity}"
        return Metric(f"{PART}: latency from when a request was due", what, "ms", "lower", 2)


def cases(peak: float | None, *, is_quick: bool) -> list[Case]:
    """What to measure, given etcd's most JSON puts a second."""
    half = Case(_HALF_OF_PEAK_DEFAULT if peak is None else peak / 2, name=HALF_OF_PEAK)
    if is_quick:
        return [half]
    return [Case(500), Case(1000), Case(2000), half, Case(2000, read_share=0.9)]


async def run_all(
    systems: Sequence[SystemType],
    directory: Path,
    rounds: int,
    seconds: float,
    *,
    wanted: Sequence[Case],
    recorder: Recorder,
) -> None:
    """All rounds; the order of the systems turns around each time."""
    await self_test(max(case.rate for case in wanted), recorder)
    for number in range(rounds):
        for system in systems if number % 2 == 0 else systems[::-1]:
            with recorder.guard(system.__name__, f"round {number + 1}"):
                async with system(directory) as running:
                    await _round(number, running, seconds, wanted, recorder)


async def _round(
    number: int, system: System, seconds: float, wanted: Sequence[Case], recorder: Recorder
) -> None:
    await run(await _plan(system, Case(1000), 2.0, 0, "bench/"))
    for place, case in enumerate(wanted, start=1):
        with recorder.guard(system.dialect, f"{case.rate:,.0f}/s"):
            plan = await _plan(system, case, seconds, place * 10_000_000, f"open{place}/")
            leader = await system.leader()
            result = await run(plan)
            faults = broken_promises(result.history)
            if result.unsent or result.count("done") < len(result.history):
                failed = len(result.history) - result.count("done") + result.unsent
                faults.append(f"{failed} requests failed")
            if (await system.leader()) is not leader:
                faults.append("the leader changed")
            recorder.tell(describe(number, system.dialect, case, result))
            if recorder.faults(system.dialect, f"{case.rate:,.0f}/s", faults):
                continue
            for kind in ("PUT", "GET") if case.read_share else ("PUT",):
                ordered = result.latencies(kind.lower())
                for name, share in SHARES.items():
                    recorder.add(
                        case.metric(kind, name), system.dialect, percentile(ordered, share) * 1e3
                    )


def describe(number: int, system: str, case: Case, result: Result) -> str:
    """One line for a person."""
    ordered = result.latencies("put")
    said = ", ".join(
        f"{name} {percentile(ordered, share) * 1e3:.1f}"
        for name, share in SHARES.items()
        if ordered
    )
    return (
        f"round {number + 1}  {system:<10}open loop {case.rate:>7,.0f}/s  PUT {said} ms; "
        f"generator late by {result.late_seconds * 1e3:.1f} ms at most"
    )


async def _plan(
    system: System, case: Case, seconds: float, first_number: int, prefix: str
) -> LoadPlan:
    leader = await system.leader()
    return LoadPlan(
        system=system.dialect,
        addresses=addresses([leader.url]),
        rate=case.rate,
        seconds=seconds,
        prefix=prefix,
        keys=_KEYS,
        read_share=case.read_share,
        zipf=0.99 if case.read_share else 0.0,
        first_number=first_number,
        connections=64,
        connections_max=256,
    )


async def self_test(rate: float, recorder: Recorder) -> None:
    """What the generator itself costs at three times ``rate``; a note, and no number of ours."""
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.empty_server", str(port)),
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(20):
            await server.stdout.readline()
        plan = LoadPlan(
            system="RaftKV",
            addresses=(("127.0.0.1", port),),
            rate=_HEADROOM * rate,
            seconds=_SELF_TEST_SECONDS,
            prefix="empty/",
            keys=_KEYS,
        )
        result = await run(plan)
    finally:
        server.kill()
        await server.wait()
    recorder.note(self_test_note(rate, result))


def self_test_note(rate: float, result: Result) -> str:
    """What the self-test says of the generator."""
    took = max(each.end for each in result.history) - min(result.due)
    done = len(result.history) / max(took, _SELF_TEST_SECONDS)
    p99_ms = percentile(result.latencies("put"), 0.99) * 1e3
    said = (
        f"The open-loop generator was tried on a server that answers at once: it was to do "
        f"{_HEADROOM * rate:,.0f} requests a second, did {done:,.0f}, and "
        f"added {p99_ms:.2f} ms (p99)."
    )
    if done < 0.98 * _HEADROOM * rate:
        said += (
            f" That is less than {_HEADROOM:.0f} times the highest rate below: where the generator "
            "is slow, its own delays are in the latencies of both systems."
        )
    return said
