"""What is measured of RaftKV alone: the client library's gathered writes, and the simulation."""

import asyncio
import re
import sys
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.closed_loop import settled_revision
from benchmarks.samples import OURS, Metric, Recorder
from benchmarks.systems import RaftKV
from benchmarks.tool import output_of
from benchmarks.workloads import KEYS, VALUE_BYTES, key
from raftkv.client import Client

PART: Final = "RaftKV alone"
GATHERED: Final = Metric(PART, "client library, 256 tasks, gathered writes", "PUT/s", "higher")
SINGLE: Final = Metric(PART, "client library, 256 tasks, single writes", "PUT/s", "higher")
SIMULATION: Final = Metric(PART, "simulation of the whole node, 2 processes", "steps/s", "higher")
_TASKS: Final = 256
_SECONDS: Final = 4.0
_SIMULATION_SECONDS_MAX: Final = 240.0
_ROOT: Final = Path(__file__).parent.parent


async def client_writes(directory: Path, rounds: int, recorder: Recorder) -> None:
    """The same puts of many tasks, one request each and gathered into transactions."""
    for number in range(rounds):
        with recorder.guard(OURS, f"client library, round {number + 1}"):
            async with RaftKV(directory) as system:
                await _client_round(system, recorder)


async def _client_round(system: RaftKV, recorder: Recorder) -> None:
    value = b"v" * VALUE_BYTES
    urls = [node.url for node in system.nodes]
    for metric in (SINGLE, GATHERED):
        revision = await settled_revision(system)
        async with Client(urls) as client, client.writer() as writer:
            put = writer.put if metric is GATHERED else client.put
            numbers, revisions, deadline = count(), list[int](), perf_counter() + _SECONDS

            async def work() -> None:
                while perf_counter() < deadline:  # noqa: B023 run within this turn
                    done = await put(key(next(numbers) % KEYS).encode(), value)  # noqa: B023
                    revisions.append(done.revision)  # noqa: B023

            await asyncio.gather(*(work() for _ in range(_TASKS)))
        moved = await settled_revision(system) - revision
        # Writes of one transaction share a revision.
        if moved != len(set(revisions)):
            recorder.fault(OURS, f"{metric.what}: {len(set(revisions))} revisions, moved {moved}")
            continue
        recorder.tell(f"{metric.what}: {len(revisions) / _SECONDS:,.0f}/s")
        recorder.add(metric, OURS, len(revisions) / _SECONDS)


async def simulation(recorder: Recorder) -> None:
    """Twenty seeds."""
    with recorder.guard(OURS, "simulation"):
        said = await output_of(
            (sys.executable, "-m", "tests.simulation", "--seeds", "20"),
            _SIMULATION_SECONDS_MAX,
            directory=_ROOT,
        )
        speed = steps_per_second(said)
        recorder.add(SIMULATION, OURS, speed)
        recorder.tell(f"simulation: {speed:,} steps/s")


def steps_per_second(said: str) -> int:
    """What the simulation says of its speed in its last lines."""
    speed = re.search(r"^throughput: (\d+) steps/s", said, re.MULTILINE)
    if speed is None:
        raise RuntimeError(f"the simulation said no speed: {said[-300:]}")
    return int(speed[1])
