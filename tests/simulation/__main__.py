"""`make simulate`: many seeds, or one again.

A failing seed prints the invariant, the end of its trace and the command that replays it.
"""

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import click

from tests.simulation.checkers import InvariantError
from tests.simulation.rare import never_reached
from tests.simulation.run import LENGTHS, Report, run

# From so many seeds on, of standard length, each rare path is to be taken at least once.
ALL_REACHED_SEEDS = 200


def run_or_explain(seed: int, length: str) -> Report | str:
    """The report of a seed, or what went wrong with it."""
    try:
        return run(seed, LENGTHS[length])
    except InvariantError as error:
        return str(error)


@click.command()
@click.option("--seeds", default=200, show_default=True, help="How many seeds to run.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option(
    "--length",
    type=click.Choice(list(LENGTHS)),
    default="standard",
    show_default=True,
    help="standard: at least 60 virtual seconds, 3 crashes and 500 operations.",
)
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(seeds: int, first: int, length: str, jobs: int) -> None:
    """Run the whole node in virtual time under faults, and check every promise."""
    began = time.monotonic()
    reached: Counter[str] = Counter()
    failed: list[int] = []
    short: list[int] = []
    totals: Counter[str] = Counter()
    virtual_seconds = 0.0
    with ProcessPoolExecutor(jobs) as pool:
        numbers = range(first, first + seeds)
        for seed, result in zip(
            numbers, pool.map(run_or_explain, numbers, [length] * seeds), strict=True
        ):
            if isinstance(result, str):
                failed.append(seed)
                click.echo(result)
                click.echo(
                    f"replay: python -m tests.simulation --seeds 1 --first {seed} --length {length}"
                )
                continue
            reached.update(result.reached)
            least = LENGTHS[length]
            if result.operations < least.operations or result.crashes < least.crashes:
                short.append(seed)
            virtual_seconds += result.virtual_seconds
            totals.update(
                steps=result.events,
                operations=result.operations,
                elections=result.elections,
                crashes=result.crashes,
            )
    seconds = time.monotonic() - began
    click.echo(
        f"{seeds} {length} seeds, {virtual_seconds / 3600:.1f} virtual hours, "
        f"{totals['crashes']} crashes, {totals['elections']} elections, "
        f"{totals['operations']} client operations, {totals['steps']} steps in {seconds:.0f} s "
        f"with {jobs} processes"
    )
    click.echo(
        f"throughput: {totals['steps'] / seconds:.0f} steps/s, "
        f"{virtual_seconds / seconds:.0f} virtual seconds/s"
    )
    click.echo(
        "reached: " + ", ".join(f"{name} {count}" for name, count in sorted(reached.items()))
    )
    missing = never_reached(reached)
    if missing:
        click.echo("never reached: " + ", ".join(missing))
    if short:
        click.echo(f"fewer crashes or operations than a run is to have: {short}")
    click.echo(f"{seeds - len(failed)} passed, {len(failed)} failed")
    is_blind = bool(missing) and length == "standard" and seeds >= ALL_REACHED_SEEDS
    if failed or is_blind:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
