"""Runs etcd's own load tool, `benchmark`, for its gRPC interface.

It makes a given number of requests rather than running for a given time, so a short run first says
how many that is. Its reads ask for one key over and over.
"""

import os
import re
import shutil
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.tool import output_of

_COUNT_MIN: Final = 200
#: Reads are fastest over few connections, writes over one a client: measured, and in etcd's favour.
_READ_CONNECTIONS_MAX: Final = 8
_RATE: Final = re.compile(r"Requests/sec:\s*([0-9.]+)")
_PERCENTILE: Final = re.compile(r"^\s*([0-9.]+)% in ([0-9.e+-]+) secs", re.MULTILINE)


class ToolResult(msgspec.Struct, frozen=True):
    """One run."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: tuple[str, ...]


def binary() -> str | None:
    """The program: `ETCD_BENCHMARK`, or `etcd-benchmark` on the path; None: there is neither."""
    return shutil.which(os.environ.get("ETCD_BENCHMARK", "etcd-benchmark"))


def parse(output: str, requests: int) -> ToolResult:
    """What the tool printed. Raises ValueError when it measured nothing."""
    rate = _RATE.search(output)
    percentiles = {float(share): float(seconds) for share, seconds in _PERCENTILE.findall(output)}
    if rate is None or not {50, 99} <= percentiles.keys():
        raise ValueError(f"etcd's tool printed no result: {output.strip()[-300:]}")
    _, _, errors = output.partition("Error distribution:")
    return ToolResult(
        requests,
        float(rate[1]),
        percentiles[50] * 1e3,
        percentiles[99] * 1e3,
        tuple(line.strip() for line in errors.splitlines() if line.strip()),
    )


async def puts(
    urls: Sequence[str],
    *,
    clients: int,
    count: int,
    keys: int,
    key_bytes: int,
    value_bytes: int,
    seconds_max: float = 120.0,
) -> ToolResult:
    """``count`` puts over ``keys`` keys."""
    arguments = [
        *("put", "--conns", str(min(clients, 256)), "--total", str(count), "--sequential-keys"),
        *("--key-space-size", str(keys), "--key-size", str(key_bytes)),
        *("--val-size", str(value_bytes)),
    ]
    return await _run(urls, clients, count, arguments, seconds_max)


async def gets(urls: Sequence[str], *, clients: int, count: int, key: str) -> ToolResult:
    """``count`` linearizable reads of ``key``."""
    conns = str(max(len(urls), min(clients, _READ_CONNECTIONS_MAX)))
    return await _run(urls, clients, count, ["range", key, "--conns", conns, "--total", str(count)])


def count_for(probe: ToolResult, seconds: float) -> int:
    """How many requests take about ``seconds``."""
    return max(_COUNT_MIN, round(probe.per_second * seconds))


async def _run(
    urls: Sequence[str],
    clients: int,
    count: int,
    arguments: Sequence[str],
    seconds_max: float = 120.0,
) -> ToolResult:
    endpoints = ",".join(url.removeprefix("http://") for url in urls)
    command = [
        *(binary() or "etcd-benchmark", *arguments),
        *("--endpoints", endpoints, "--clients", str(clients), "--precise"),
    ]
    return parse(await output_of(command, seconds_max), count)


def sequential_key(number: int, size: int = 16) -> str:
    """The key that the tool puts at a place: a zigzag varint and zeros, each byte a character."""
    left, key = number << 1, bytearray()
    while left >= 0x80:
        key.append(left & 0x7F | 0x80)
        left >>= 7
    key.append(left)
    return bytes(key).ljust(size, b"\0").decode("latin-1")
