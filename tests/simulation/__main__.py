"""`make simulate`: many seeds, or one again.

A failing seed prints the invariant, the end of its trace and the command that replays it.
"""

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import click

from tests.simulation.checkers import InvariantError
from tests.simulation.run import Report, run


def run_or_explain(seed: int, events: int) -> Report | str:
    """The report of a seed, or what went wrong with it."""
    try:
        return run(seed, events)
    except InvariantError as error:
        return str(error)


@click.command()
@click.option("--seeds", default=200, show_default=True, help="How many seeds to run.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--events", default=20_000, show_default=True, help="Events before the healing.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(seeds: int, first: int, events: int, jobs: int) -> None:
    """Run the whole node in virtual time under faults, and check every promise."""
    began = time.monotonic()
    reached: Counter[str] = Counter()
    failed: list[int] = []
    totals: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs) as pool:
        numbers = range(first, first + seeds)
        for seed, result in zip(
            numbers, pool.map(run_or_explain, numbers, [events] * seeds), strict=True
        ):
            if isinstance(result, str):
                failed.append(seed)
                click.echo(result)
                click.echo(
                    f"replay: python -m tests.simulation --seeds 1 --first {seed} --events {events}"
                )
                continue
            reached.update(result.reached)
            totals.update(
                events=result.events, operations=result.operations, elections=result.elections
            )
    seconds = time.monotonic() - began
    click.echo(
        f"{seeds} seeds, {totals['events']} events, {totals['operations']} client operations, "
        f"{totals['elections']} elections in {seconds:.0f} s "
        f"({totals['events'] / seconds:.0f} events a second)"
    )
    click.echo(
        "reached: " + ", ".join(f"{name} {count}" for name, count in sorted(reached.items()))
    )
    click.echo(f"{seeds - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
