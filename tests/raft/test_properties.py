"""Raft's safety properties under random schedules, and liveness once all faults end."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.raft.random_schedule import STEPS, Schedule

SEEDS_PER_TEST = 60
RARE = (
    "truncations",
    "rollbacks",  # of a configuration
    "crash",
    "crash_after_write",
    "lost_disk",
    "transfer",
    "no_leader_to_ask",
    "snapshot_sent",
    "snapshot_failed",
    "AddLearner",
    "PromoteLearner",
    "RemoveMember",
    "ReplaceMember",
    "change_in_progress",
    "id_reused",
    "rejoined",
    "learner_lags",
)


@pytest.mark.parametrize(
    "first_seed",
    [0, *(pytest.param(first, marks=pytest.mark.long) for first in (60, 120))],
)
def test_random_schedules_are_safe_and_converge(first_seed: int) -> None:
    reached: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        schedule = Schedule(seed)
        try:
            schedule.run(STEPS)
            schedule.heal_and_converge()
        except AssertionError as error:
            lines = "\n".join(schedule.cluster.lines[-50:])
            pytest.fail(f"seed {seed}: {error!r}\n{lines}")
        reached += schedule.reached
    # A fault that never strikes tests nothing.
    for rare in RARE:
        assert reached[rare] > 0, f"no {rare} in any schedule: {reached}"
    for common in ("terms", "committed", "reads"):
        assert reached[common] > 2 * SEEDS_PER_TEST, f"too few {common}: {reached}"


@pytest.mark.parametrize("seed", [2, 9])
def test_a_schedule_is_the_same_under_every_hash_seed(seed: int) -> None:
    digests = set()
    for hash_seed in ("0", "4711"):
        output = subprocess.run(
            [sys.executable, "-m", "tests.raft.random_schedule", str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        assert output.count(b"\n") > 100
        digests.add(hashlib.sha256(output).hexdigest())
    assert len(digests) == 1
