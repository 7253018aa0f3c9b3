"""`python -m benchmarks`: measure part by part, write `docs/benchmarks.md` and its plots.

A part that fails is told in the page and loses nothing else; every part has a limit of time. What
was measured is kept in `.bench/last.json` after each part.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click
import msgspec

from benchmarks import (
    alone,
    closed_loop,
    etcd_tool,
    failover,
    fan_out,
    latency,
    overload,
    plots,
    store,
    wrk,
)
from benchmarks.machine import inspect_machine
from benchmarks.report import Conditions, Outcome, markdown, section, summary
from benchmarks.samples import JSON, Measured, Recorder, rows
from benchmarks.systems import Etcd, RaftKV, SystemType
from benchmarks.workloads import KEY_BYTES, KEYS, TRANSACTIONS, VALUE_BYTES

_ROOT: Final = Path(__file__).parent.parent
_PAGE: Final = _ROOT / "docs" / "benchmarks.md"
_BESIDE: Final = _ROOT / "docs" / "benchmarks"
_PARTS: Final = ("closed", "open", "failover", "store", "watch", "overload", "alone")
_QUICK_PARTS: Final = ("closed", "open", "failover", "store")
_ETCD_HINT: Final = (
    "etcd is not on the path, so RaftKV runs alone. Releases: https://github.com/etcd-io/etcd;"
    " or build it with Go, and set ETCD=/path/to/etcd."
)
_TOOL_HINT: Final = (
    "etcd's benchmark tool is not on the path (as etcd-benchmark) and ETCD_BENCHMARK does not name"
    " it, so gRPC is left out: go build go.etcd.io/etcd/v3/tools/benchmark."
)


class _Settings(msgspec.Struct, frozen=True):
    """How long and how often."""

    is_quick: bool
    rounds: int
    closed_seconds: float
    open_seconds: float
    kills: int
    terminations: int
    keys: int
    idle_seconds: float

    def describe(self) -> str:
        return (
            f"{'Only the bars' if self.is_quick else 'All parts'}: {self.rounds} rounds, "
            f"{self.closed_seconds:g} s a run in closed loop and {self.open_seconds:g} s in open "
            f"loop, {self.kills} leaders killed; {KEYS:,} keys of "
            f"{KEY_BYTES} bytes, values of {VALUE_BYTES} bytes."
        )


_FULL: Final = _Settings(
    is_quick=False,
    rounds=5,
    closed_seconds=2.0,
    open_seconds=3.0,
    kills=7,
    terminations=3,
    keys=1_000_000,
    idle_seconds=30.0,
)
_QUICK: Final = _Settings(
    is_quick=True,
    rounds=3,
    closed_seconds=2.0,
    open_seconds=3.0,
    kills=3,
    terminations=0,
    keys=100_000,
    idle_seconds=8.0,
)
_Part = Callable[[Path, Recorder], Awaitable[None]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="The bars alone, with fewer rounds and keys.")
@click.option("--only", multiple=True, type=click.Choice(_PARTS), help="This part; repeatable.")
@click.option("--rounds", type=click.IntRange(1), help="Instead of 5, or 3 with --quick.")
@click.option("--keys", type=click.IntRange(1000), help="Of the large store.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=_ROOT / ".bench",
    help="Where all nodes keep their data: a real disk.  [default: .bench]",
)
@click.option("--write/--no-write", default=True, help="Write docs/benchmarks.md and its plots.")
@click.option("--again", is_flag=True, help="Measure nothing: write the page of the last run.")
def main(  # noqa: PLR0917 click passes them by name
    quick: bool,
    only: Sequence[str],
    rounds: int | None,
    keys: int | None,
    directory: Path,
    write: bool,
    again: bool,
) -> None:
    """Measure RaftKV beside etcd on this machine."""
    last = directory / "last.json"
    if again:
        _write(msgspec.json.decode(last.read_bytes(), type=Outcome))
        return
    if wrk.binary() is None:
        raise click.ClickException("wrk is not on the path; Debian and Ubuntu: apt install wrk")
    # An interruption ends the nodes, however it comes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = _QUICK if quick else _FULL
    settings = msgspec.structs.replace(
        settings, rounds=rounds or settings.rounds, keys=keys or settings.keys
    )
    directory.mkdir(parents=True, exist_ok=True)
    conditions = _conditions(directory, settings)
    outcome = Outcome(conditions, Measured())
    with TemporaryDirectory(dir=directory) as scratch:
        parts = only or (_QUICK_PARTS if quick else _PARTS)
        asyncio.run(_run(parts, settings, Path(scratch), outcome, last))
    click.echo(summary(outcome.measured))
    if write:
        _write(outcome)
    if outcome.measured.faults:
        sys.exit(f"{len(outcome.measured.faults)} faults: what they touch has no number")


def _conditions(directory: Path, settings: _Settings) -> Conditions:
    machine = inspect_machine(directory)
    if machine.file_system == "tmpfs":
        raise click.ClickException("that directory is in memory: fsync would cost nothing there")
    click.echo(machine.describe())
    if not machine.is_quiet:
        click.echo("The machine is busy with other things: this is a rehearsal.")
    names = [RaftKV.describe()]
    if Etcd.binary() is None:
        click.echo(_ETCD_HINT)
    else:
        names.append(Etcd.describe())
        if etcd_tool.binary() is None:
            click.echo(_TOOL_HINT)
    return Conditions(
        machine=machine,
        systems=tuple(names),
        rounds=settings.rounds,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        plan=settings.describe(),
    )


async def _run(
    names: Sequence[str], settings: _Settings, scratch: Path, outcome: Outcome, last: Path
) -> None:
    systems: list[SystemType] = [RaftKV, *([Etcd] if Etcd.binary() is not None else ())]
    measured = outcome.measured
    parts = _parts(systems, settings, measured)
    for name in names:
        title, seconds_max, part = parts[name]
        recorder = Recorder(title, measured, click.echo)
        click.echo(f"---- {title}")
        with recorder.guard("both", "the whole part"):
            async with asyncio.timeout(seconds_max):
                await part(scratch, recorder)
        last.write_bytes(msgspec.json.encode(outcome))  # noqa: ASYNC240 nothing runs beside it


def _parts(
    systems: Sequence[SystemType], settings: _Settings, measured: Measured
) -> dict[str, tuple[str, float, _Part]]:
    """Title, limit of time in seconds, and what to do."""
    cases = closed_loop.QUICK if settings.is_quick else closed_loop.FULL
    plan = closed_loop.Plan(settings.rounds, settings.closed_seconds, cases)

    async def closed(scratch: Path, recorder: Recorder) -> None:
        await closed_loop.run_all(systems, scratch, plan, recorder)

    async def opened(scratch: Path, recorder: Recorder) -> None:
        peak = _peaks(measured).get(JSON)
        await latency.run_all(
            systems,
            scratch,
            settings.rounds,
            settings.open_seconds,
            wanted=latency.cases(peak, is_quick=settings.is_quick),
            recorder=recorder,
        )

    async def lost(scratch: Path, recorder: Recorder) -> None:
        await failover.run_all(systems, scratch, settings.kills, settings.terminations, recorder)

    async def watched(scratch: Path, recorder: Recorder) -> None:
        await fan_out.run_all(systems, scratch, (100, 1000), 10.0, recorder)

    async def overloaded(scratch: Path, recorder: Recorder) -> None:
        await overload.run_all(systems, scratch, _peaks(measured), recorder)

    async def by_itself(scratch: Path, recorder: Recorder) -> None:
        await alone.client_writes(scratch, settings.rounds, recorder)
        await alone.simulation(recorder)

    stored = partial(_store, systems, settings)
    return {
        "closed": (closed_loop.PART, 1200.0, closed),
        "open": (latency.PART, 600.0, opened),
        "failover": (failover.PART, 600.0, lost),
        "store": (store.PART, 1200.0, stored),
        "watch": (fan_out.PART, 300.0, watched),
        "overload": (overload.PART, 240.0, overloaded),
        "alone": (alone.PART, 400.0, by_itself),
    }


async def _store(
    systems: Sequence[SystemType], settings: _Settings, scratch: Path, recorder: Recorder
) -> None:
    await store.run_all(
        systems,
        scratch,
        settings.keys,
        settings.idle_seconds,
        recorder,
        is_quick=settings.is_quick,
    )


def _peaks(measured: Measured) -> dict[str, float]:
    """The most puts a second of each interface in the closed loop: the median with 64 clients."""
    metric = closed_loop.PUT_64.metric("throughput")
    values: dict[str, list[float]] = {}
    for sample in measured.samples:
        if sample.metric == metric:
            values.setdefault(sample.system, []).append(sample.value)
    return {system: median(each) for system, each in values.items()}


def _write(outcome: Outcome) -> None:
    _BESIDE.mkdir(exist_ok=True)
    drawn = _draw(outcome.measured)
    for name, svg in drawn.items():
        (_BESIDE / name).write_text(svg)
    _PAGE.write_text(markdown(outcome, list(drawn), _beside()))
    click.echo(f"written: {_PAGE.relative_to(_ROOT)}")


def _draw(measured: Measured) -> dict[str, str]:
    table = rows(measured.samples)
    throughput = closed_loop.PUT_64.metric("throughput").part
    transactions = TRANSACTIONS.name  # another scale
    drawn = {
        "throughput.svg": plots.bars(
            "Operations a second in closed loop (more is better)",
            [
                row
                for row in table
                if row.metric.part == throughput and not row.metric.what.startswith(transactions)
            ],
        ),
        "latency.svg": plots.bars(
            "p99 in open loop, milliseconds (less is better)",
            [
                row
                for row in table
                if row.metric.part.startswith(latency.PART) and row.metric.what.endswith("p99")
            ],
        ),
        "failover.svg": plots.bars(
            "After the loss of a leader, seconds (less is better)",
            [row for row in table if row.metric.part == failover.PART and row.metric.unit == "s"],
        ),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def _beside() -> list[str]:
    """What other commands measured and left beside the page, as lists of flat JSON objects."""
    return [
        line
        for path in sorted(_BESIDE.glob("*.json"))
        for line in section(path.stem, json.loads(path.read_text()))
    ]


if __name__ == "__main__":
    main()
