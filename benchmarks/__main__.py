"""`python -m benchmarks`: run the rounds, print the table, write `docs/benchmarks.md`."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
from rich.console import Console

from benchmarks import large_store, wrk
from benchmarks.fan_out import fan_out
from benchmarks.large_store import Fact
from benchmarks.machine import inspect_machine
from benchmarks.report import facts_table, markdown, summarise, table
from benchmarks.runs import Plan, run_all
from benchmarks.systems import NODES, Etcd, RaftKV, System
from tests.process.cluster import Cluster

_ROOT: Final = Path(__file__).parent.parent
_PAGE: Final = _ROOT / "docs" / "benchmarks.md"
_PIPE_COLUMNS: Final = 120  # of a table that nobody looks at while it is made
_ETCD_HINT: Final = (
    "etcd is not on the path, so RaftKV runs alone. Releases: https://github.com/etcd-io/etcd;"
    " or build it with Go, and set ETCD=/path/to/etcd."
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(1), default=8.0, show_default=True, help="Of each run."
)
@click.option("--warmup-seconds", type=click.FloatRange(1), default=2.0, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=_ROOT / ".bench",
    help="Where all nodes keep their data: a real disk.  [default: .bench]",
)
@click.option(
    "--store-keys",
    type=click.IntRange(0),
    default=1_000_000,
    show_default=True,
    help="Of the large store; 0: leave it out.",
)
@click.option(
    "--watchers",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="That are told 100 writes a second for a minute; 0: leave them out.",
)
@click.option("--write/--no-write", default=True, help="Write docs/benchmarks.md.")
def main(  # noqa: PLR0917 click passes them by name
    rounds: int,
    seconds: float,
    warmup_seconds: float,
    connections: int,
    directory: Path,
    store_keys: int,
    watchers: int,
    write: bool,
) -> None:
    """Measure RaftKV beside etcd on this machine."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    if wrk.binary() is None:
        raise click.ClickException("wrk is not on the path; Debian and Ubuntu: apt install wrk")
    systems: list[Callable[[Path], System]] = [RaftKV]
    names = [RaftKV.describe()]
    if Etcd.binary() is None:
        console.print(_ETCD_HINT, soft_wrap=True)
    else:
        systems.append(Etcd)
        names.append(Etcd.describe())
    directory.mkdir(parents=True, exist_ok=True)
    machine = inspect_machine(directory)
    if machine.file_system == "tmpfs":
        raise click.ClickException("that directory is in memory: fsync would cost nothing there")
    console.print(machine.describe(), soft_wrap=True)
    plan = Plan(rounds, seconds, warmup_seconds, connections)
    with TemporaryDirectory(dir=directory) as scratch:
        runs = asyncio.run(run_all(systems, Path(scratch), plan, console.print))
        facts = asyncio.run(_measure_facts(Path(scratch), store_keys, watchers, console.print))
    rows = summarise(runs, RaftKV.name)
    console.print(table(rows))
    if facts:
        console.print(facts_table(facts))
    if write:
        _PAGE.write_text(markdown(rows, runs, facts, machine, plan, names))
        console.print(f"written: {_PAGE.relative_to(_ROOT)}")
    if any(run.faults for run in runs):
        sys.exit("some runs broke an invariant: their numbers are void")


async def _measure_facts(
    directory: Path, store_keys: int, watchers: int, tell: Callable[[str], None]
) -> list[Fact]:
    facts = []
    if store_keys:
        with TemporaryDirectory(dir=directory) as scratch:
            async for fact in large_store.measure(Path(scratch), store_keys):
                tell(f"{fact.what}: {fact.value}  ({fact.note})")
                facts.append(fact)
    if watchers:
        with TemporaryDirectory(dir=directory) as scratch:
            async with Cluster(Path(scratch), NODES) as cluster:
                leader = await cluster.wait_leader()
                result = await fan_out(leader, watchers=watchers, rate=100.0, seconds=60.0)
        tell(result.describe())
        facts += result.facts()
    return facts


if __name__ == "__main__":
    main()
