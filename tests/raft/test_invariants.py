"""The checkers fail when they should."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from raftkv.demo.cluster import founded_cluster
from raftkv.raft.invariants import Observation, check_basic, check_delta, observe
from raftkv.raft.raft import Raft
from raftkv.raft.roles import Follower

BEFORE = Observation(
    term=3,
    vote=1,
    leader_id=1,
    is_leader=True,
    commit=5,
    applied=4,
    applying=5,
    first_index=2,
    last_index=8,
    commit_term=2,
)


def leading_raft() -> Raft:
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    return cluster.raft(1)._raft


def test_sound_node_passes() -> None:
    raft = leading_raft()
    check_basic(raft)
    check_delta(observe(raft), observe(raft))


def _break(name: str, value: Any) -> Callable[[Raft], None]:
    return lambda raft: setattr(raft, name, value)


def _commit_beyond_the_log(raft: Raft) -> None:
    raft.log.commit = raft.log.last_index + 1


def _apply_uncommitted(raft: Raft) -> None:
    raft.log.applied = raft.log.applying = raft.log.commit + 1


def _count_what_is_not_durable(raft: Raft) -> None:
    raft.log.durable -= 1


def _count_an_entry_that_is_not_there(raft: Raft) -> None:
    raft.log.last_index += 1


def _match_beyond_next(raft: Raft) -> None:
    raft.role.progress[2].match = 9  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "damage",
    [
        _commit_beyond_the_log,
        _apply_uncommitted,
        _count_an_entry_that_is_not_there,
        _count_what_is_not_durable,
        _match_beyond_next,
        _break("term", 1),
        _break("vote", 2),
        _break("role", Follower(leader_id=1)),
    ],
)
def test_check_basic_finds(damage: Callable[[Raft], None]) -> None:
    raft = leading_raft()
    damage(raft)
    with pytest.raises(AssertionError):
        check_basic(raft)


@pytest.mark.parametrize(
    "change",
    [
        {"term": 2},
        {"commit": 4},
        {"applied": 3},
        {"applying": 4},
        {"first_index": 1},
        {"vote": 2},
        {"vote": None},
        {"leader_id": 2},
        {"last_index": 7},
        {"commit_term": 3},
    ],
    ids=str,
)
def test_check_delta_finds(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_delta(BEFORE, replace(BEFORE, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"term": 4, "vote": None, "leader_id": 2, "is_leader": False, "last_index": 7},
        {"leader_id": None, "is_leader": False},
        {"last_index": 9, "commit": 6, "commit_term": 3, "applied": 5, "applying": 6},
        {"first_index": 6, "commit_term": None},
    ],
    ids=str,
)
def test_check_delta_allows(change: dict[str, Any]) -> None:
    check_delta(BEFORE, replace(BEFORE, **change))
