"""The fixed slice of the simulation that `make test` runs: see `make simulate` for the rest."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.rare import RARE, never_reached
from tests.simulation.run import SHORT, STANDARD, run
from tests.simulation.scenarios import SCENARIOS

# In chunks, so that the processes of a parallel test run share them.
CHUNKS = [range(first, first + 3) for first in range(1, 13, 3)]


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_seed_breaks_a_promise(seeds: range) -> None:
    reports = [run(seed) for seed in seeds]
    for report in reports:
        assert report.virtual_seconds >= STANDARD.seconds
        assert report.crashes >= STANDARD.crashes
        assert report.operations >= STANDARD.operations
    # A run in which nothing happens proves nothing.
    reached = sum((report.reached for report in reports), start=Counter[str]())
    assert len(RARE) - len(never_reached(reached)) > len(RARE) / 2


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scenario(name: str, seed: int) -> None:
    SCENARIOS[name](seed)


# The short seeds that find them; `make mutants` looks for others. A change of the simulation moves
# them: `python -m tests.simulation.mutants --length short` says where to.
FOUND_BY = {
    "answer_before_fsync": 1,
    "applied_before_it_is_committed": 1,
    "configuration_applied_twice": 9,
    "forwarded_write_sent_again": 2,
    "late_append_truncates": 3,
    "read_before_it_is_applied": 5,
    "snapshot_without_idempotency_records": 1,
    "snapshot_without_the_configuration": 1,
    "tokens_repeat_after_a_snapshot": 1,
    "watch_resumes_one_late": 1,
}


@pytest.mark.parametrize(("name", "seed"), FOUND_BY.items())
def test_the_mutant_dies(name: str, seed: int) -> None:
    death = hunt(MUTANTS[name], seeds_max=1, first_seed=seed, length=SHORT)
    assert death is not None, "it survived"


def test_a_seed_replays_byte_for_byte_whatever_the_hash_seed() -> None:
    program = "from tests.simulation.run import SHORT, run; print(run(7, SHORT).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert digests == {run(7, SHORT).digest + "\n"}
