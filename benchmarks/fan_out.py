"""`python -m benchmarks.fan_out`: one node tells many watchers, and nobody misses anything.

The part of `make bench` does it for both systems, etcd over its JSON gateway.

Three nodes; all watchers are on the leader, which also takes the writes: the hardest place. Writes
begin at fixed times whatever became of those before (open loop), and the time of an event counts
from when its write was to begin: it includes the write. Source: reference/performance.md (W4).
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import aiohttp
import click
import msgspec
import psutil

from benchmarks.samples import OURS, Metric, Recorder
from benchmarks.systems import Etcd, RaftKV, SystemType
from benchmarks.watchers import BUCKET_SECONDS, END_SECONDS_MAX, KEYS, Tally
from tests.process.cluster import Cluster, NodeProcess

PART: Final = "Watchers"
_RATE: Final = 100.0
_ROOT: Final = Path(__file__).parent.parent
_READY_SECONDS_MAX: Final = 60.0


class FanOut(msgspec.Struct):
    """What came of a run."""

    tally: Tally  # of all watchers
    write_seconds: list[float]  # until each write was acknowledged, ascending
    node_cpu_share: float  # of one core, by the node that was watched
    client_cpu_share: float  # of one core, by all that watched
    memory_bytes_each: int  # of the node, for one watcher

    def describe(self) -> str:
        """One line for a person."""
        tally, writes = self.tally, self.write_seconds
        acknowledged = ", ".join(
            f"p{100 * share:g} {1000 * writes[int(share * (len(writes) - 1))]:.1f} ms"
            for share in (0.5, 0.99)
        )
        shares = ", ".join(
            f"p{100 * share:g} {1000 * tally.percentile_seconds(share):.1f} ms"
            for share in (0.5, 0.9, 0.99, 0.999)
        )
        slowest = 1000 * (max(tally.buckets, default=0) + 1) * BUCKET_SECONDS
        return (
            f"{tally.watchers} watchers, {len(writes)} writes (acknowledged {acknowledged}):"
            f" {tally.received} events received,"
            f" {tally.lost} lost, {tally.doubled} doubled, {tally.broken} streams broken; {shares},"
            f" max {slowest:.1f} ms; {tally.received / max(1, tally.reads):.2f} events a read;"
            f" CPU: node {self.node_cpu_share:.2f}, watchers {self.client_cpu_share:.2f};"
            f" {self.memory_bytes_each} bytes of memory a watcher"
        )

    def faults(self) -> list[str]:
        """What no watcher should see."""
        tally = self.tally
        counted = {
            f"events lost, or later than {END_SECONDS_MAX:g} s": tally.lost,
            "events doubled or out of order": tally.doubled,
            "streams broken off": tally.broken,
        }
        return [f"{count} {what}" for what, count in counted.items() if count]

    def record(self, system: str, recorder: Recorder) -> None:
        """Add what goes into the table."""
        tally = self.tally
        on = f"{tally.watchers:,} watchers"
        for what, unit, value in (
            (f"{on}: from a write to its event, p50", "ms", 1e3 * tally.percentile_seconds(0.5)),
            (f"{on}: from a write to its event, p99", "ms", 1e3 * tally.percentile_seconds(0.99)),
            (f"{on}: CPU of the node", "cores", self.node_cpu_share),
            (f"{on}: memory of one", "kB", self.memory_bytes_each / 1000),
        ):
            recorder.add(Metric(PART, what, unit, "lower", 2), system, value)


async def run_all(
    systems: Sequence[SystemType],
    directory: Path,
    counts: Sequence[int],
    seconds: float,
    recorder: Recorder,
) -> None:
    """Each system once, with so many watchers after each other."""
    for system in systems:
        for watchers in counts:
            with recorder.guard(system.dialect, f"{watchers} watchers"):
                async with system(directory) as running:
                    leader = await running.leader()
                    result = await fan_out(
                        leader,
                        system=running.dialect,
                        watchers=watchers,
                        rate=_RATE,
                        seconds=seconds,
                    )
                recorder.tell(f"{running.dialect:<10}{result.describe()}")
                if not recorder.faults(running.dialect, f"{watchers} watchers", result.faults()):
                    result.record(running.dialect, recorder)


async def fan_out(
    node: NodeProcess,
    *,
    watchers: int,
    rate: float,
    seconds: float,
    processes: int = 1,
    system: str = OURS,
) -> FanOut:
    """Watch ``node`` while it takes ``rate`` writes a second for ``seconds``."""
    before_bytes = psutil.Process(node.pid).memory_info().rss
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.watchers", str(node.port), str(watchers // processes), system),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        for _ in range(processes)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            async with asyncio.timeout(_READY_SECONDS_MAX):
                assert await child.stdout.readline() == b"ready\n", "watchers could not begin"
        pids = [child.pid for child in children]
        memory_bytes = psutil.Process(node.pid).memory_info().rss - before_bytes
        node_cpu, client_cpu = _cpu_seconds(node.pid), _cpu_seconds(*pids)
        began_at = monotonic()
        write_seconds = await _write(node.url, system, rate, seconds)
        took_seconds = monotonic() - began_at
        node_cpu = _cpu_seconds(node.pid) - node_cpu
        client_cpu = _cpu_seconds(*pids) - client_cpu
        tallies = []
        for child in children:
            said, _ = await asyncio.wait_for(
                child.communicate(b"end %d\n" % len(write_seconds)), END_SECONDS_MAX + 15
            )
            tallies.append(msgspec.json.decode(said, type=Tally))
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
    return FanOut(
        _sum(tallies),
        write_seconds,
        node_cpu / took_seconds,
        client_cpu / took_seconds,
        memory_bytes // watchers,
    )


async def _write(url: str, system: str, rate: float, seconds: float) -> list[float]:
    """Put ``rate`` values a second; the seconds until each was acknowledged."""
    api = RaftKV.api if system == OURS else Etcd.api
    count = round(rate * seconds)
    began_at = monotonic()
    locks = [asyncio.Lock() for _ in range(KEYS)]
    timeout = aiohttp.ClientTimeout(total=30)
    took_seconds: list[float] = []

    async def put(number: int, due_at: float) -> None:
        place, key = divmod(number, KEYS)
        asked = api.put(f"fan/{key}", f"{place} {due_at:.6f}")
        async with (
            locks[key],
            session.request(asked.method, url + asked.path, data=asked.body.encode()) as answer,
        ):
            assert answer.status in (200, 201), await answer.text()
        took_seconds.append(monotonic() - due_at)

    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
        for number in range(count):
            due_at = began_at + number / rate
            if (early := due_at - monotonic()) > 0:
                await asyncio.sleep(early)
            group.create_task(put(number, due_at))
    return sorted(took_seconds)


def _cpu_seconds(*pids: int) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def _sum(tallies: list[Tally]) -> Tally:
    buckets: Counter[int] = Counter()
    for tally in tallies:
        buckets.update(tally.buckets)
    total: Callable[[str], int] = lambda name: sum(getattr(tally, name) for tally in tallies)  # noqa: E731
    return Tally(
        total("watchers"), total("received"), total("lost"), total("doubled"), total("broken"),
        total("reads"), dict(buckets),
    )  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--watchers", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--rate", type=click.FloatRange(0.1), default=100.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True)
@click.option("--nodes", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=_ROOT / ".bench",
    help="Where the nodes keep their data.  [default: .bench]",
)
def main(  # noqa: PLR0917 click passes them by name
    watchers: int, rate: float, seconds: float, processes: int, nodes: int, directory: Path
) -> None:
    """Measure how one node tells many watchers."""
    directory.mkdir(parents=True, exist_ok=True)

    async def run() -> FanOut:
        with TemporaryDirectory(dir=directory) as scratch:
            async with Cluster(Path(scratch), nodes) as cluster:
                leader = await cluster.wait_leader()
                return await fan_out(
                    leader, watchers=watchers, rate=rate, seconds=seconds, processes=processes
                )

    result = asyncio.run(run())
    click.echo(result.describe())
    if result.tally.lost or result.tally.doubled or result.tally.broken:
        sys.exit("events were lost, doubled or cut off")


if __name__ == "__main__":
    main()
