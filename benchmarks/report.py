"""The numbers for a person: a table on the terminal and `docs/benchmarks.md`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from textwrap import fill
from typing import Final

from rich.table import Table

from benchmarks.large_store import Fact
from benchmarks.machine import Machine
from benchmarks.runs import Plan, Run
from benchmarks.workloads import KEY_BYTES, KEYS, VALUE_BYTES

_HEADINGS: Final = (
    "workload",
    "system",
    "requests/s",
    "range",
    "p50 ms",
    "p99 ms",
    "nodes µs/op",
    "wrk µs/op",
    "ratio",
)
_VALID: Final = (
    "Every run kept its leader, had no failed request, and moved the store revision by exactly "
    "the acknowledged writes (give or take those in flight when the load stopped)."
)
_CAVEATS: Final = (
    "The loop is closed, so the tails are too kind: compare them with each other only. µs/op is "
    "the CPU time, user and system, that all three nodes or wrk used for one request."
)


@dataclass(frozen=True)
class Row:
    """Medians over the rounds of one workload on one system."""

    workload: str
    system: str
    per_second: float
    per_second_min: float
    per_second_max: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    client_cpu_us: float
    ratio: float | None  # of our median to this system's; None for our own row

    def cells(self) -> tuple[str, ...]:
        return (
            self.workload,
            self.system,
            f"{self.per_second:,.0f}",
            f"{self.per_second_min:,.0f} to {self.per_second_max:,.0f}",
            f"{self.p50_ms:.2f}",
            f"{self.p99_ms:.2f}",
            f"{self.server_cpu_us:.0f}",
            f"{self.client_cpu_us:.0f}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
        )


def summarise(runs: Sequence[Run], ours: str) -> list[Row]:
    """One row a workload and system, in the order of the runs; ours first."""
    rows = []
    for workload in dict.fromkeys(run.workload for run in runs):
        of_workload = [run for run in runs if run.workload == workload]
        systems = sorted({run.system for run in of_workload}, key=lambda name: (name != ours, name))
        our_median = median(run.per_second for run in of_workload if run.system == ours)
        for system in systems:
            row = _row(workload, system, [run for run in of_workload if run.system == system])
            rows.append(row if system == ours else _with_ratio(row, our_median))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    shown = Table(title="Medians; ratio: ours over theirs, above 1 is faster")
    for number, heading in enumerate(_HEADINGS):
        shown.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row.cells(), style=None if row.ratio is None else "dim")
    return shown


def facts_table(facts: Sequence[Fact]) -> Table:
    """For the terminal."""
    shown = Table(title="One store of many keys, and many watchers")
    for heading in ("what", "measured", "how"):
        shown.add_column(heading, no_wrap=True)
    for fact in facts:
        shown.add_row(fact.what, fact.value, fact.note)
    return shown


def markdown(  # noqa: PLR0917 all of it is the page
    rows: Sequence[Row],
    runs: Sequence[Run],
    facts: Sequence[Fact],
    machine: Machine,
    plan: Plan,
    systems: Sequence[str],
) -> str:
    """The page `docs/benchmarks.md`."""
    faults = [f"- {run.workload}, {run.system}: {fault}" for run in runs for fault in run.faults]
    if faults:
        verdict = ["**Some runs broke an invariant; their numbers are void:**", *faults]
    else:
        verdict = [_paragraph(_VALID)]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit.",
        "",
        _paragraph(
            f"Systems: {'; '.join(systems)}. Three nodes each, default settings, fsync on, one "
            f"system at a time on the same disk, {plan.rounds} rounds with the order turned "
            "around each time."
        ),
        "",
        _paragraph(f"Machine: {machine.describe()}."),
        "",
        _paragraph(
            f"Load: wrk with {plan.connections} keep-alive connections to the leader, one "
            f"unpipelined HTTP request an operation, {plan.seconds:g} s a run after a warm-up, "
            f"{KEYS:,} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES} bytes. {_CAVEATS}"
        ),
        "",
        *verdict,
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "|---|---|" + "---:|" * (len(_HEADINGS) - 2),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
        _paragraph(
            "Medians of the rounds; range: slowest and fastest round; ratio: our median over "
            "theirs, so that above 1 is faster."
        ),
        "",
        *(_facts_section(facts) if facts else ()),
    ]
    return "\n".join(lines)


def _facts_section(facts: Sequence[Fact]) -> list[str]:
    return [
        "## A large store, and many watchers",
        "",
        _paragraph(
            "RaftKV alone, measured once, on three nodes. Every step checks what it measures: a "
            "restarted node has every key, no write failed, no watcher missed an event."
        ),
        "",
        "| what | measured | how |",
        "|---|---|---|",
        *(f"| {fact.what} | {fact.value} | {fact.note} |" for fact in facts),
        "",
    ]


def _paragraph(text: str) -> str:
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _row(workload: str, system: str, runs: Sequence[Run]) -> Row:
    def middle(of: Callable[[Run], float]) -> float:
        return median(of(run) for run in runs)

    return Row(
        workload=workload,
        system=system,
        per_second=middle(lambda run: run.per_second),
        per_second_min=min(run.per_second for run in runs),
        per_second_max=max(run.per_second for run in runs),
        p50_ms=middle(lambda run: run.load.p50_ms),
        p99_ms=middle(lambda run: run.load.p99_ms),
        server_cpu_us=middle(lambda run: run.server_cpu_us),
        client_cpu_us=middle(lambda run: run.client_cpu_us),
        ratio=None,
    )


def _with_ratio(row: Row, our_median: float) -> Row:
    return replace(row, ratio=our_median / row.per_second)
