"""The page `docs/benchmarks.md`, made of what was measured."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Final

import msgspec

from benchmarks.bars import BARS
from benchmarks.machine import Machine
from benchmarks.samples import (
    ETCD,
    GRPC,
    JSON,
    OURS,
    Measured,
    Metric,
    Row,
    Statistics,
    Verdict,
    judge,
    ratio,
    rows,
    standing,
)

_THEIRS: Final = (GRPC, JSON, ETCD)
_WIDTH: Final = 100
#: Of results that lie beside the page.
_COMMANDS: Final = {
    "reconcile": "make bench-reconcile",
    "service": "python -m benchmarks.service",
}


class Conditions(msgspec.Struct, frozen=True):
    """Under which everything was measured."""

    machine: Machine
    systems: tuple[str, ...]  # names and versions
    rounds: int
    date: str  # as year-month-day
    plan: str  # how long, how often


class Outcome(msgspec.Struct, frozen=True):
    """A run of the benchmark, as it is kept in a file beside the page."""

    conditions: Conditions
    measured: Measured


def markdown(outcome: Outcome, plots: Sequence[str], more: Sequence[str] = ()) -> str:
    """The whole page. ``plots``: file names below `benchmarks/`; ``more``: sections at the end."""
    measured = outcome.measured
    table = rows(measured.samples)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. How it measures is at the end.",
        "",
        *_rehearsal(outcome.conditions),
        "## The bars",
        "",
        _paragraph(
            "Set before anything was measured. Ratio: our median over theirs; in brackets the "
            "range of the rounds."
        ),
        "",
        *bars_table(judge(BARS, table)),
        "",
        *_faults(measured),
    ]
    for plot in plots:
        title = plot.removesuffix(".svg").replace("_", " ")
        lines += [f"![{title}](benchmarks/{plot})", ""]
    for part in dict.fromkeys(row.metric.part for row in table):
        of_part = [row for row in table if row.metric.part == part]
        lines += [f"## {part}", "", *part_table(of_part), ""]
    lines += [*more, *_conditions(outcome)]
    return "\n".join(lines)


def bars_table(verdicts: Sequence[Verdict]) -> list[str]:
    """One line a bar; what was not reached is said as loudly as what was."""
    lines = [
        "| bar | RaftKV | etcd | ratio | bar | aim | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for verdict in verdicts:
        bar = verdict.bar
        sign = "≥" if bar.metric.better == "higher" else "≤"
        said = "**missed**"
        if verdict.ratio is None:
            said = "not measured"
        elif verdict.is_reached:
            said = "reached"
        lines.append(
            f"| {bar.title} | {cell(bar.metric, verdict.ours)} | {cell(bar.metric, verdict.theirs)}"
            f" | {'-' if verdict.ratio is None else f'{verdict.ratio:.2f}'}"
            f" | {sign} {bar.limit:g} | {bar.aim:g} | {said} |"
        )
    return lines


def part_table(of_part: Sequence[Row]) -> list[str]:
    """One line a metric, with a ratio and a verdict for each interface of etcd that has it."""
    present = [name for name in _THEIRS if any(name in row.systems for row in of_part)]
    heads = ["", "unit", OURS]
    for name in present:
        heads += [name, "ratio", ""]
    lines = [
        "| " + " | ".join(heads) + " |",
        "|---|---|---:|" + "---:|---:|---|" * len(present),
    ]
    for row in of_part:
        ours = row.systems.get(OURS)
        cells = [row.metric.what, row.metric.unit, cell(row.metric, ours)]
        for name in present:
            theirs = row.systems.get(name)
            share = None if ours is None or theirs is None else ratio(ours, theirs)
            cells.append(cell(row.metric, theirs))
            if share is None or ours is None or theirs is None:
                cells += ["-", ""]
            else:
                cells += [f"{share:.2f}", standing(row.metric, ours, theirs)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cell(metric: Metric, found: Statistics | None) -> str:
    """Median and range, or a dash."""
    if found is None:
        return "-"
    middle = f"{found.median:,.{metric.digits}f}"
    if found.count == 1:
        return middle
    return f"{middle} ({found.low:,.{metric.digits}f} to {found.high:,.{metric.digits}f})"


def section(name: str, entries: Sequence[Mapping[str, object]]) -> list[str]:
    """What another command measured: one column an entry, one row a field."""
    if not entries:
        return []
    how = _COMMANDS.get(name)
    fields = list(dict.fromkeys(field for entry in entries for field in entry))
    lines = [f"## {name.capitalize()}", "", *([f"Measured by `{how}`.", ""] if how else ())]
    for place, field in enumerate(fields):
        cells = [_plain(entry.get(field, "-")) for entry in entries]
        lines.append(f"| {field.replace('_', ' ')} | {' | '.join(cells)} |")
        if place == 0:
            lines.append("|---" + "|---:" * len(entries) + "|")
    return [*lines, ""]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(measured: Measured) -> str:
    """The bars, for the terminal."""
    lines = []
    for verdict in judge(BARS, rows(measured.samples)):
        said = "not measured" if verdict.ratio is None else f"{verdict.ratio:.2f}"
        missed = "-" if verdict.ratio is None else "MISSED"
        mark = "reached" if verdict.is_reached else missed
        lines.append(f"{mark:<8} {verdict.bar.title}: {said} (bar {verdict.bar.limit:g})")
    return "\n".join(lines)


def _rehearsal(conditions: Conditions) -> list[str]:
    if conditions.machine.is_quiet:
        return []
    return [
        _paragraph(
            f"**A rehearsal: the machine was {conditions.machine.busy_share:.0%} busy with other "
            "things when this began. These figures do not count.**"
        ),
        "",
    ]


def _faults(measured: Measured) -> list[str]:
    if not measured.faults:
        return [
            _paragraph(
                "Every run kept its leader, failed no request but where nodes were killed, and "
                "showed a history that a linearizable store can have."
            ),
            "",
        ]
    return [
        "**Some runs broke an invariant or could not be made. They have no number below:**",
        "",
        *(f"- {fault.part}, {fault.system}: {fault.what}" for fault in measured.faults),
        "",
    ]


def _conditions(outcome: Outcome) -> list[str]:
    conditions = outcome.conditions
    paragraphs = [
        f"{conditions.date}. Systems: {'; '.join(conditions.systems)}. Three nodes each, on "
        "loopback, no flags but names, addresses and directories, so fsync on, TLS off; one system "
        "at a time on the same disk, the order turned around each round. All nodes and the load "
        "share the machine.",
        f"Machine: {conditions.machine.describe()}.",
        conditions.plan,
        "Closed loop: wrk for HTTP (one unpipelined request an operation, keep-alive), etcd's own "
        "benchmark tool for gRPC, with one connection a client for writes and up to eight for "
        "reads, which is what it is fastest with; its reads ask for one key, wrk's for all. "
        "Clients are connected to the leader unless it says otherwise. CPU is user and system "
        "time of all three nodes. Latencies of a closed loop are too kind, since a stall also "
        "stops the clients: compare them with each other only.",
        "Open loop: requests begin at fixed times whatever became of others, and a latency counts "
        "from when its request was due. The same generator asks both systems, over HTTP.",
        "A median is of the rounds; 'even' means that the ranges overlap. A run counts only if the "
        "leader stayed, no request failed, the store revision moved by exactly the acknowledged "
        "writes, and the history of a checking client beside the load is right: revisions are "
        "unique and grow with time, no read is older than what was acknowledged before it began. "
        "Of the open loop, overload and lost leaders the whole history is checked, and for lost "
        "leaders that every acknowledged key is there.",
        *outcome.measured.notes,
    ]
    repeat = [
        "To repeat it: `make bench` (about 25 minutes) or `make bench-quick` (the bars alone, "
        "about 5 minutes), with `wrk` and `etcd` on the path, or `ETCD=/path/to/etcd`, and etcd's "
        "tool as `etcd-benchmark` on the path, or `ETCD_BENCHMARK=/path/to/it` (`go build "
        "go.etcd.io/etcd/v3/tools/benchmark`). `python -m benchmarks --only PART` measures a part, "
        "`python -m benchmarks --again` writes this page anew from the samples of the last run. "
        "`python -m benchmarks.service` measures a put through the Service, on the Kubernetes that "
        "KUBECONFIG names."
    ]
    lines = ["## How it was measured", ""]
    for text in [*paragraphs, *repeat]:
        lines += [_paragraph(text), ""]
    return lines


def _paragraph(text: str) -> str:
    return fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
