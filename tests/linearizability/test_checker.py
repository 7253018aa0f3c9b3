"""The search and the witness against histories made of a store that is atomic by construction."""

from collections.abc import Sequence
from random import Random
from time import perf_counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability.checker import find_violation, group_by_key
from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.model import ABSENT, State, apply
from tests.linearizability.simulated import Shape, make_history
from tests.linearizability.witness import find_revision_violation

randoms = st.randoms(use_true_random=False)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 60))
shares = st.sampled_from((0.0, 0.1, 0.4))


@given(randoms, sizes, shares, shares)
@settings(max_examples=150, deadline=None)
def test_accepts_what_an_atomic_store_did(
    random: Random, size: tuple[int, int, int], unknown: float, refused: float
) -> None:
    history = make_history(random, Shape(*size, unknown, refused))
    assert find_violation(history) is None
    assert find_revision_violation(history) is None


@given(randoms, st.integers(1, 6), shares, st.booleans())
@settings(max_examples=300, deadline=None)
def test_agrees_with_trying_every_order(
    random: Random, operations: int, unknown: float, with_revisions: bool
) -> None:
    history = make_history(random, Shape(3, 1, operations, unknown, reset_share=0.0))
    history = [doctor(random, operation, history) for operation in history]
    if not with_revisions:
        history = [msgspec.structs.replace(o, revision=None) for o in history]
    by_key = group_by_key(history)
    possible = all(has_order(ABSENT, list(of_key)) for of_key in by_key.values())
    assert (find_violation(history) is None) == possible


@given(randoms, st.integers(10, 80))
@settings(max_examples=60, deadline=None)
def test_refuses_a_lost_append(random: Random, operations: int) -> None:
    history = make_history(random, Shape(3, 1, operations, 0.1))
    last_ns = max(operation.return_ns or operation.call_ns for operation in history)
    lost = Operation(9, "k0", Kind.APPEND, last_ns + 1, last_ns + 2, argument="lost;")
    read = Operation(
        9, "k0", Kind.GET, last_ns + 3, last_ns + 4, value="other;", existed=True, mod_revision=1
    )
    assert find_violation([*history, lost, read]) is not None


@pytest.mark.parametrize("unknown_share", [0.0, 0.02])
def test_judges_20_000_operations_in_seconds(unknown_share: float) -> None:
    history = make_history(Random(7), Shape(8, 5, 20_000, unknown_share))
    started = perf_counter()
    assert find_violation(history) is None
    assert find_revision_violation(history) is None
    assert perf_counter() - started < 15  # 0.3 and 2 on an idle core


def test_finds_one_stale_read_in_20_000_operations() -> None:
    history = make_history(Random(8), Shape(8, 5, 20_000, 0.01))
    reads = [
        place
        for place, operation in enumerate(history)
        if operation.kind is Kind.GET and operation.key == "k3" and operation.value is not None
    ]
    early, late = reads[len(reads) // 2], reads[len(reads) // 2 + 40]
    stale = msgspec.structs.replace(
        history[late], value=history[early].value, mod_revision=history[early].mod_revision
    )
    history[late] = stale
    for violation in (find_violation(history), find_revision_violation(history)):
        assert violation is not None
        assert stale in violation.culprits
        assert len(violation.window) <= 24


def doctor(random: Random, operation: Operation, history: Sequence[Operation]) -> Operation:
    """Sometimes give the operation another's answer, or move its return."""
    other = random.choice(history)
    match random.randrange(6):
        case 0 if operation.kind is Kind.GET:
            return msgspec.structs.replace(
                operation, value=other.value, existed=other.value is not None, mod_revision=None
            )
        case 1 if operation.certainty is Certainty.KNOWN:
            return msgspec.structs.replace(operation, existed=other.existed)
        case 2 if operation.kind is Kind.CAS and operation.certainty is Certainty.KNOWN:
            return msgspec.structs.replace(
                operation, succeeded=not operation.succeeded, mod_revision=None, existed=None
            )
        case 3 if operation.return_ns is not None:
            return msgspec.structs.replace(operation, return_ns=operation.call_ns + 1)
    return operation


def has_order(state: State, remaining: list[Operation]) -> bool:
    """Whether some order of the operations explains every answer: tried one after the other."""
    if all(operation.certainty is Certainty.UNKNOWN for operation in remaining):
        return True
    first_return_ns = min(o.return_ns for o in remaining if o.return_ns is not None)
    for place, operation in enumerate(remaining):
        if operation.call_ns > first_return_ns:
            continue  # another returned before this was called
        following = apply(state, operation)
        if following is not None and has_order(
            following, remaining[:place] + remaining[place + 1 :]
        ):
            return True
    return False
