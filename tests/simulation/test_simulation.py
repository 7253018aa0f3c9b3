"""The fixed slice of the simulation that `make test` runs: see `make simulate` for the rest."""

import os
import subprocess
import sys

import pytest

from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS

EVENTS = 20_000
# In chunks, so that the processes of a parallel test run share them.
CHUNKS = [range(first, first + 10) for first in range(1, 61, 10)]


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_seed_breaks_a_promise(seeds: range) -> None:
    reports = [run(seed, EVENTS) for seed in seeds]
    # A run in which nothing happens proves nothing.
    assert sum(report.operations for report in reports) > 1000
    assert sum(report.elections for report in reports) > len(seeds)
    assert sum(sum(report.reached.values()) for report in reports) > 50


def test_rare_faults_are_reached() -> None:
    reached = sum((run(seed, EVENTS).reached for seed in range(1, 9)), start=run(0, 1000).reached)
    expected = {
        "LMDB",
        "all down",
        "confirmed AddLearner",
        "confirmed RemoveMember",
        "crash around an election",
        "follower ahead of a node",
        "idempotent replay",
        "kill",
        "kill leader",
        "leadership transferred",
        "machine wiped",
        "partition",
        "pause",
        "power loss",
    }
    assert expected <= set(reached)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scenario(name: str, seed: int) -> None:
    SCENARIOS[name](seed)


# The seeds that find what `make mutants` needs many for; elsewhere the first few do. A change of
# the simulation moves them: `make mutants` says where to.
FIRST_SEEDS = {"change_answered_when_appended": 29}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_dies(name: str) -> None:
    first_seed = FIRST_SEEDS.get(name, 1)
    death = hunt(MUTANTS[name], seeds_max=20, first_seed=first_seed)
    assert death is not None, "it survived"


def test_a_seed_replays_byte_for_byte_whatever_the_hash_seed() -> None:
    program = "from tests.simulation.run import run; print(run(7, 5000).digest)"
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
    assert digests == {run(7, 5000).digest + "\n"}
