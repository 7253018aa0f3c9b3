"""Quorum arithmetic against a dumb version that tries every majority."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft import ConfState
from raftkv.raft.quorum import Quorum, VoteResult, majority

IDS = st.integers(1, 7)
HALF = st.frozensets(IDS, max_size=5)
CHECK = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def quorum_of(voters: frozenset[int], outgoing: frozenset[int]) -> Quorum:
    conf = ConfState(voters=tuple(sorted(voters)), voters_outgoing=tuple(sorted(outgoing)))
    return Quorum.of(conf)


def dumb_is_reached(halves: list[frozenset[int]], agreeing: frozenset[int]) -> bool:
    """Some strict majority of each half agrees."""
    halves = [half for half in halves if half]
    return bool(halves) and all(
        any(
            set(group) <= agreeing
            for size in range(len(half) + 1)
            for group in combinations(sorted(half), size)
            if 2 * size > len(half)
        )
        for half in halves
    )


@CHECK
@given(HALF, HALF, st.frozensets(IDS))
def test_is_reached_is_a_majority_of_every_half(
    voters: frozenset[int], outgoing: frozenset[int], agreeing: frozenset[int]
) -> None:
    quorum = quorum_of(voters, outgoing)
    expected = dumb_is_reached([voters, outgoing], agreeing)
    assert quorum.is_reached(lambda voter: voter in agreeing) == expected


@CHECK
@given(HALF, HALF, st.dictionaries(IDS, st.integers(0, 9)))
def test_agreed_value_is_the_highest_that_a_quorum_has_reached(
    voters: frozenset[int], outgoing: frozenset[int], values: dict[int, int]
) -> None:
    quorum = quorum_of(voters, outgoing)
    reached = [
        value
        for value in range(10)
        if quorum.is_reached(lambda voter, value=value: values.get(voter, 0) >= value)  # type: ignore[misc]
    ]
    expected = max(reached, default=0)
    assert quorum.agreed_value(lambda voter: values.get(voter, 0)) == expected


@CHECK
@given(HALF, HALF, st.dictionaries(IDS, st.booleans()))
def test_vote_result_is_what_all_ways_to_complete_the_votes_have_in_common(
    voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    granted = frozenset(voter for voter, vote in votes.items() if vote)
    open_votes = frozenset((voters | outgoing) - votes.keys())
    halves = [voters, outgoing]
    if dumb_is_reached(halves, granted):
        expected = VoteResult.WON
    elif dumb_is_reached(halves, granted | open_votes):
        expected = VoteResult.PENDING
    else:
        expected = VoteResult.LOST
    assert quorum_of(voters, outgoing).vote_result(votes) is expected


@CHECK
@given(HALF.filter(bool), st.frozensets(IDS), st.frozensets(IDS))
def test_two_quorums_always_overlap(
    voters: frozenset[int], one: frozenset[int], other: frozenset[int]
) -> None:
    quorum = quorum_of(voters, frozenset())
    if quorum.is_reached(lambda voter: voter in one) and quorum.is_reached(
        lambda voter: voter in other
    ):
        assert one & other & voters


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_rule_14_majority_is_half_rounded_down_plus_one(count: int, expected: int) -> None:
    assert majority(count) == expected


def test_no_voters_can_decide_nothing() -> None:
    nobody = Quorum.of(ConfState(learners=(1, 2)))
    assert not nobody.is_reached(lambda _: True)
    assert nobody.agreed_value(lambda _: 9) == 0
    assert nobody.vote_result({1: True}) is VoteResult.LOST
    assert nobody.voters == ()


def test_voters_are_those_of_both_halves() -> None:
    assert Quorum.of(ConfState(voters=(3, 4), voters_outgoing=(1, 3))).voters == (1, 3, 4)
