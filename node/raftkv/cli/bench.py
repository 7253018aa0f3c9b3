"""`raftkv bench`: how fast a cluster answers this machine."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

import click

from raftkv.cli.common import CommandError, Duration, Form, Session, client_options
from raftkv.cli.printing import print_json, print_table
from raftkv.client import Client, ClientError, Consistency

_PREFIX: Final = b"raftkv-bench/"
_QUANTILES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}


@dataclass
class Load:
    """What was done, and how long each took."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Plan:
    """What every connection does."""

    seconds: float
    reads_percent: int
    keys: int
    value_bytes: int
    consistency: Consistency


@click.command("bench")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=16,
    show_default=True,
    help="Requests under way at once: each sends its next when the last is answered.",
)
@click.option(
    "--seconds",
    type=Duration(),
    default="5s",
    show_default=True,
    help="How long to measure, such as 10s; half a second before it does not count.",
)
@click.option(
    "--reads",
    type=click.IntRange(0, 100),
    default=50,
    show_default=True,
    metavar="PERCENT",
    help="How many of the requests are gets; the others are puts.",
)
@click.option(
    "--keys",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="Over how many keys.",
)
@click.option(
    "--value-bytes",
    type=click.IntRange(0, 1 << 20),
    default=128,
    show_default=True,
    help="Size of the values.",
)
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "local"]),
    default="linearizable",
    show_default=True,
    help="Of the gets.",
)
@client_options
def bench_command(
    session: Session,
    *,
    connections: int,
    seconds: float,
    reads: int,
    keys: int,
    value_bytes: int,
    consistency: Consistency,
) -> None:
    """Put and get keys as fast as answers come, then show rates and times.

    It writes below raftkv-bench/ and removes that at the end. One Python process sends all
    requests, so beyond some thousands a second it measures itself: run several.
    """
    plan = Plan(seconds, reads, keys, value_bytes, consistency)

    async def call(client: Client) -> Load:
        load = Load()
        await client.put(_PREFIX + b"0", b"")  # so that a cluster without a leader is said at once
        try:
            seeds = range(connections)
            workers = [_work(client, load, Random(seed), plan) for seed in seeds]  # noqa: S311
            await asyncio.gather(*workers)
        finally:
            await client.delete_range(_PREFIX)
        return load

    load = session.run(call, prefer_leader=True)
    _print(load, seconds, session.form)
    if not any(load.seconds.values()):
        raise CommandError(f"no request was answered: {next(iter(load.errors), 'no time')}")


async def _work(client: Client, load: Load, random: Random, plan: Plan) -> None:
    """One connection: send, wait, note, until the time is over."""
    loop = asyncio.get_running_loop()
    counts_from = loop.time() + min(0.5, plan.seconds / 4)
    ends_at = counts_from + plan.seconds
    value = random.randbytes(plan.value_bytes)
    while (started_at := loop.time()) < ends_at:
        kind = "get" if random.random() * 100 < plan.reads_percent else "put"
        key = _PREFIX + str(random.randrange(plan.keys)).encode()
        try:
            if kind == "get":
                await client.get(key, consistency=plan.consistency)
            else:
                await client.put(key, value)
        except ClientError as error:
            load.errors[error.code] += 1
            await asyncio.sleep(0.01)
            continue
        if counts_from <= started_at and loop.time() <= ends_at:
            load.seconds[kind].append(loop.time() - started_at)


def _print(load: Load, seconds: float, form: Form) -> None:
    results = [
        {"operation": kind, "count": len(times), "per_second": round(len(times) / seconds, 1)}
        | {name: _quantile_ms(times, part) for name, part in _QUANTILES.items()}
        for kind, times in load.seconds.items()
        if times
    ]
    if form is not Form.TABLE:
        print_json({"seconds": seconds, "results": results, "errors": dict(load.errors)})
        return
    header = ("operation", "count", "per second", "p50 ms", "p95 ms", "p99 ms", "max ms")
    print_table(header, [tuple(each.values()) for each in results])
    for code, count in load.errors.most_common():
        click.echo(f"{count} failed: {code}")


def _quantile_ms(times: list[float], part: float) -> float:
    ordered = sorted(times)
    return round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)
