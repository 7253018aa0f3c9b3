"""The fixed slice of the simulation that `make test` runs: see `make simulate` for the rest."""

import os
import subprocess
import sys

import pytest

from tests.simulation.checkers import InvariantError
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.rare import RARE, never_reached
from tests.simulation.run import SHORT, STANDARD, run
from tests.simulation.scenarios import SCENARIOS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2, 8))
def test_no_seed_breaks_a_promise(seed: int) -> None:
    report = run(seed)
    assert report.virtual_seconds >= STANDARD.seconds
    assert report.crashes >= STANDARD.crashes
    assert report.operations >= STANDARD.operations
    # A run in which nothing happens proves nothing.
    assert len(RARE) - len(never_reached(report.reached)) >= 12


@pytest.mark.parametrize("seed", range(10, 20))
def test_no_short_seed_breaks_a_promise(seed: int) -> None:
    report = run(seed, SHORT)
    assert report.virtual_seconds >= SHORT.seconds
    assert report.crashes >= SHORT.crashes
    assert report.operations >= SHORT.operations


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scenario(name: str, seed: int) -> None:
    SCENARIOS[name](seed)


# The first short seeds that find them; `make mutants` looks for standard ones. A change of the
# simulation, or of what a node does when, moves them:
# `python -m tests.simulation.mutants --length short` says where to.
FOUND_BY = {
    "answer_before_fsync": 1,
    "applied_before_it_is_committed": 1,
    "applied_index_outside_the_transaction": 1,
    "change_answered_when_appended": 3,
    "commit_of_old_term": 9,
    "configuration_applied_twice": 1,
    "damage_cut_as_a_torn_tail": 4,
    "failed_sync_taken_for_done": 17,
    "fence_without_a_lock": 3,
    "forwarded_write_sent_again": 1,
    "late_append_truncates": 1,
    "learner_counts_in_the_quorum": 1,
    "lease_ends_early_after_an_election": 1,
    "lock_outlives_its_lease": 1,
    "log_time_runs_ahead": 1,
    "read_before_it_is_applied": 6,
    "retry_done_again": 1,
    "snapshot_without_idempotency_records": 1,
    "snapshot_without_the_configuration": 1,
    "stale_read": 3,
    "tokens_repeat_after_a_snapshot": 1,
    "vote_not_persisted": 7,
    "watch_resumes_one_late": 1,
}


SEEDS_MAX = 100

# Short ones seldom replace a member.
FOUND_IN_A_SCENARIO = {
    "commit_of_old_term": "figure_8",
    "joint_quorum_is_ignored": "two_majorities",
    "stale_read": "paused_leader",
}


def test_no_mutant_is_left_out() -> None:
    assert {*FOUND_BY, *FOUND_IN_A_SCENARIO} == set(MUTANTS)


@pytest.mark.parametrize(("name", "seed"), FOUND_BY.items())
def test_the_mutant_dies(name: str, seed: int) -> None:
    """By the seed that is named here, or by one of the first if something moved them."""
    mutant = MUTANTS[name]
    death = hunt(mutant, 1, seed, SHORT) or hunt(mutant, SEEDS_MAX, length=SHORT)
    assert death is not None, "it survived"


@pytest.mark.parametrize(("name", "scenario"), FOUND_IN_A_SCENARIO.items())
def test_the_mutant_dies_in_a_scenario(name: str, scenario: str) -> None:
    """Each step on purpose: no luck is needed where the rule is known."""
    with MUTANTS[name](), pytest.raises(InvariantError):
        SCENARIOS[scenario](1)


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
