"""Three times as many puts as the system can do, then half as many: how it bears it, and recovers.

Open loop over up to 1,000 connections. A request that found no connection within a second is given
up by its client, and counts as not sent. What was acknowledged must keep its promises throughout.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.judge import broken_promises
from benchmarks.open_loop import LoadPlan, Result, addresses, run
from benchmarks.samples import Metric, Recorder, percentile
from benchmarks.systems import System, SystemType

PART: Final = "Overload"
ACCEPTED: Final = Metric(PART, "3 x peak: accepted", "PUT/s", "higher")
ACCEPTED_P99: Final = Metric(PART, "3 x peak: p99 of what was accepted, once sent", "ms", "lower")
FAILED: Final = Metric(PART, "3 x peak: answered with an error", "% of those sent", "lower", 1)
NORMAL: Final = Metric(PART, "half of the peak afterwards: until p99 is normal", "s", "lower", 1)
AFTER_P99: Final = Metric(PART, "half of the peak afterwards: p99 when normal", "ms", "lower", 1)
_SECONDS: Final = 8.0
_WINDOW_SECONDS: Final = 0.5
#: Normal is what is within twice the median of the second half's windows.
_NORMAL_FACTOR: Final = 2.0
_PROBE_SECONDS: Final = 3.0
_PEAK_DEFAULT: Final = 5000.0


async def run_all(
    systems: Sequence[SystemType],
    directory: Path,
    peaks: dict[str, float],
    recorder: Recorder,
) -> None:
    """Each system once. ``peaks``: the most puts a second over HTTP, of the closed loop."""
    for system in systems:
        with recorder.guard(system.dialect, "overload"):
            async with system(directory) as running:
                await _overload(running, peaks.get(system.dialect, _PEAK_DEFAULT), recorder)


async def _overload(system: System, peak: float, recorder: Recorder) -> None:
    await run(await _plan(system, peak / 4, _PROBE_SECONDS, 0))
    much = await run(await _plan(system, 3 * peak, _SECONDS, 10_000_000))
    less = await run(await _plan(system, peak / 2, _SECONDS, 20_000_000))
    faults = broken_promises([*much.history, *less.history])
    if recorder.faults(system.dialect, "overload", faults):
        return
    sent = max(1, len(much.history))
    recorder.note(
        f"Overload, {system.dialect}: of {3 * peak:,.0f} puts a second that were due the "
        f"generator, which shares the machine, sent {sent / _SECONDS:,.0f}; the others found no "
        "connection in time."
    )
    served = sorted(each.end - each.start for each in much.history if each.outcome == "done")
    if not served:
        recorder.fault(system.dialect, "nothing was accepted under overload")
        return
    normal_seconds, p99_seconds = return_to_normal(less)
    for metric, value in (
        (ACCEPTED, len(served) / _SECONDS),
        (ACCEPTED_P99, percentile(served, 0.99) * 1e3),
        (FAILED, 100 * (sent - len(served)) / sent),
        (NORMAL, normal_seconds),
        (AFTER_P99, p99_seconds * 1e3),
    ):
        recorder.tell(f"{system.dialect:<10}{metric.what}: {value:,.1f} {metric.unit}")
        recorder.add(metric, system.dialect, value)


def return_to_normal(result: Result) -> tuple[float, float]:
    """Seconds until the last window that was not normal ended; and the normal p99, in seconds."""
    windows: dict[int, list[float]] = {}
    first = min(result.due)
    for each, due in zip(result.history, result.due, strict=True):
        slot = int((due - first) / _WINDOW_SECONDS)
        windows.setdefault(slot, []).append(each.end - due)
    p99 = {slot: percentile(sorted(values), 0.99) for slot, values in windows.items()}
    later = sorted(p99[slot] for slot in p99 if slot >= len(p99) // 2)
    normal = percentile(later, 0.5)
    bad = [slot for slot, value in p99.items() if value > _NORMAL_FACTOR * normal]
    return (max(bad) + 1) * _WINDOW_SECONDS if bad else 0.0, normal


async def _plan(system: System, rate: float, seconds: float, first_number: int) -> LoadPlan:
    leader = await system.leader()
    return LoadPlan(
        system=system.dialect,
        addresses=addresses([leader.url]),
        rate=rate,
        seconds=seconds,
        prefix=f"over{first_number}/",
        keys=10_000,
        first_number=first_number,
        connections=64,
        connections_max=1000,
        timeout_seconds=5.0,
        give_up_seconds=1.0,
    )
