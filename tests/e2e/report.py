"""What a scenario showed, and the table at the end."""

from dataclasses import dataclass, field

from tests.e2e.load import Load


@dataclass
class Row:
    """One scenario's line."""

    name: str
    behaviour: str
    seconds: float = 0.0
    failure: str = ""  # empty: passed
    loads: list[Load] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_HEADER = ("scenario", "behaviour", "seconds", "sent", "failed", "retried", "write pause", "")


def render(rows: list[Row]) -> str:
    """The table: a line for each scenario; without a load its columns stay empty."""
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    numeric = range(2, 7)
    text = [
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    return "\n".join(text)


def render_page(rows: list[Row], about: str) -> str:
    """The table as Markdown, for docs; ``about`` is the machine and the whole time."""
    lines = [
        "# End-to-end scenarios: one run",
        "",
        f"Written by `make e2e` on {about}. Loads come from every machine: 24 connections, 224 "
        "requests a second of GET, PUT, append and DELETE. Failed: any status of 500 and above, "
        "any second broken connection. Each history was judged linearizable.",
        "",
        "| scenario | behaviour | seconds | requests | failed | retried | longest write pause | |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    lines += [f"| {' | '.join(cell.replace('|', ' ') for cell in _cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "FAILED" if row.failure else "; ".join(row.notes)
    head = (row.name, row.behaviour, f"{row.seconds:.1f}")
    if not row.loads:
        return (*head, "", "", "", "", verdict)
    return (
        *head,
        str(sum(load.sent for load in row.loads)),
        str(sum(load.failed for load in row.loads)),
        str(sum(load.again for load in row.loads)),
        f"{max(load.longest_gap_seconds for load in row.loads):.2f} s",
        verdict,
    )
