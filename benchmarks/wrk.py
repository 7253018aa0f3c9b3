"""Runs `wrk`, the closed-loop load generator, with the requests of one workload.

Its latencies are those of a closed loop: a stall of the server also stops the clients, so the
tails are too kind. They are for comparison within one run only.
"""

import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.tool import output_of
from benchmarks.workloads import Request

_SCRIPTS: Final = Path(__file__).parent / "scripts"
_GRACE_SECONDS: Final = 30.0


class WrkResult(msgspec.Struct, frozen=True):
    """One run: answered requests, latencies and everything that went wrong."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    connect_errors: int
    read_errors: int
    write_errors: int
    timeouts: int
    bad_status: int  # answers of 400 and above

    def faults(self) -> list[str]:
        """What must not happen on a healthy cluster, in words."""
        counted = {
            "connections refused": self.connect_errors,
            "broken reads": self.read_errors,
            "broken writes": self.write_errors,
            "timeouts": self.timeouts,
            "answers of 400 and above": self.bad_status,
        }
        return [f"{count} {what}" for what, count in counted.items() if count]


def binary() -> str | None:
    """The program, or None when it is not installed."""
    return shutil.which("wrk")


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """The file that the script reads."""
    lines = (f"{request.method} {request.path} {request.body}".rstrip() for request in requests)
    path.write_text("\n".join(lines) + "\n")


async def run(
    urls: Sequence[str], requests: Path, *, order: str, connections: int, seconds: float
) -> tuple[WrkResult, float]:
    """Load ``urls`` for about ``seconds``; the result and the CPU seconds wrk itself used.

    Each URL gets a thread and an equal share of the connections.
    """
    return await _run(urls, _SCRIPTS / "requests.lua", [str(requests), order], connections, seconds)


async def fill(
    url: str, dialect: str, first: int, step: int, *, connections: int, seconds: float
) -> tuple[WrkResult, float]:
    """Put new keys `bench/NUMBER`, from ``first`` on, ``step`` apart, as long as it is told."""
    arguments = [dialect, str(first), str(step)]
    return await _run([url], _SCRIPTS / "fill.lua", arguments, connections, seconds)


async def _run(
    urls: Sequence[str],
    script: Path,
    arguments: Sequence[str],
    connections: int,
    seconds: float,
) -> tuple[WrkResult, float]:
    command = [
        *(binary() or "wrk", "--threads", str(len(urls)), "--connections", str(connections)),
        *("--duration", f"{max(1, round(seconds))}s", "--timeout", "10s"),
        *("--script", str(script), urls[0], "--", *arguments),
    ]
    before_seconds = _children_cpu_seconds()
    output = await output_of(
        command, seconds + _GRACE_SECONDS, environment={"BENCH_URLS": " ".join(urls)}
    )
    last_line = output.rstrip().splitlines()[-1]
    used_seconds = _children_cpu_seconds() - before_seconds
    return msgspec.json.decode(last_line, type=WrkResult), used_seconds


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
