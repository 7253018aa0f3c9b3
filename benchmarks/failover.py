"""The leader is killed under load: when is a write accepted again, and was one lost?

500 puts a second, each with a key of its own, begin at their times at the two nodes that survive,
before, while and after there is a leader, over as many connections as that takes. The first
accepted write is the first acknowledged one that began after the kill. Afterwards all acknowledged
keys must be there, on a cluster that has all three nodes again.
"""

import asyncio
import signal
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Final

from benchmarks.judge import Operation, broken_promises
from benchmarks.open_loop import LoadPlan, addresses, run
from benchmarks.samples import Metric, Recorder
from benchmarks.systems import System, SystemType
from tests.process.cluster import NodeProcess

PART: Final = "Loss of the leader"
FIRST_WRITE: Final = Metric(PART, "SIGKILL: until the first accepted write", "s", "lower", 2)
LONGEST_GAP: Final = Metric(PART, "SIGKILL: longest time without an answer", "s", "lower", 2)
FAILED: Final = Metric(PART, "SIGKILL: writes that failed", "of 3,000", "lower")
TERM_GAP: Final = Metric(PART, "SIGTERM: longest time without an answer", "s", "lower", 2)
TERM_FAILED: Final = Metric(PART, "SIGTERM: writes that failed", "of 3,000", "lower")
RATE: Final = 500
_BEFORE_SECONDS: Final = 1.5
_AFTER_SECONDS: Final = 4.5
_READY_SECONDS_MAX: Final = 60.0


async def run_all(
    systems: Sequence[SystemType],
    directory: Path,
    kills: int,
    terminations: int,
    recorder: Recorder,
) -> None:
    """One cluster of each system, which loses its leader again and again."""
    for system in systems:
        with recorder.guard(system.__name__, "losing leaders"):
            async with system(directory) as running:
                ends = [signal.SIGKILL] * kills + [signal.SIGTERM] * terminations
                for number, how in enumerate(ends):
                    with recorder.guard(running.name, f"{how.name} {number + 1}"):
                        await _lose(running, number, how, recorder)


async def _lose(system: System, number: int, how: signal.Signals, recorder: Recorder) -> None:
    leader = await system.leader()
    prefix = f"kill{number}/"
    load = asyncio.create_task(run(_plan(system, leader, prefix)))
    try:
        await _until_written(system, prefix)
        killed_at = monotonic()
        leader.send_signal(how)
        result = await load
    finally:
        load.cancel()
    assert leader.process is not None
    await asyncio.to_thread(leader.process.wait, 60)
    leader.start()
    await system.wait_ready([leader], _READY_SECONDS_MAX)
    faults = broken_promises(result.history)
    there, done = await system.count(prefix), result.count("done")
    if not done <= there <= len(result.history):
        faults.append(f"of {done} acknowledged keys {there} are there")
    first = first_accepted_seconds(result.history, killed_at)
    if first is None:
        faults.append("no write was accepted any more")
    if recorder.faults(system.name, f"{how.name} {number + 1}", faults):
        return
    assert first is not None
    gap, failed = longest_gap_seconds(result.history, killed_at), len(result.history) - done
    recorder.tell(
        f"{system.name:<8}{how.name} {number + 1}: first write after {first:.2f} s, "
        f"longest gap {gap:.2f} s, {failed} failed"
    )
    if how == signal.SIGKILL:
        recorder.add(FIRST_WRITE, system.name, first)
    recorder.add(LONGEST_GAP if how == signal.SIGKILL else TERM_GAP, system.name, gap)
    recorder.add(FAILED if how == signal.SIGKILL else TERM_FAILED, system.name, failed)


def first_accepted_seconds(history: Sequence[Operation], killed_at: float) -> float | None:
    """From the kill to the first answer to a write that began after it."""
    ends = [each.end for each in history if each.outcome == "done" and each.start >= killed_at]
    return min(ends) - killed_at if ends else None


def longest_gap_seconds(history: Sequence[Operation], killed_at: float) -> float:
    """The longest time between two acknowledgements around and after the kill."""
    ends = sorted(each.end for each in history if each.outcome == "done")
    before = [end for end in ends if end <= killed_at][-1:]
    after = [end for end in ends if end > killed_at]
    times = [*before, *after]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


async def _until_written(system: System, prefix: str) -> None:
    """The load has begun, and gone on for a while: the kill comes amid it."""
    began, seconds = None, 30.0
    deadline = monotonic() + seconds
    while began is None or monotonic() - began < _BEFORE_SECONDS:
        if began is None and await system.count(prefix) > 0:
            began = monotonic()
        if monotonic() > deadline:
            raise TimeoutError(f"no write within {seconds:g} s")
        await asyncio.sleep(0.02)


def _plan(system: System, leader: NodeProcess, prefix: str) -> LoadPlan:
    return LoadPlan(
        system=system.dialect,
        addresses=addresses([node.url for node in system.nodes if node is not leader]),
        rate=RATE,
        seconds=_BEFORE_SECONDS + _AFTER_SECONDS,
        prefix=prefix,
        keys=1,
        has_unique_keys=True,
        connections=64,
        # Requests that hang on a lost leader must not keep later ones from being sent.
        connections_max=3000,
        timeout_seconds=10.0,
    )
