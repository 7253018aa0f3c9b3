"""Histories that cannot be, each wrong in one way: the checkers must refuse every one.

A file of `doctored/` is named after what is wrong with it and differs from a possible history in
the marked respect only.
"""

from pathlib import Path

import pytest

from tests.linearizability.checker import Violation, find_violation
from tests.linearizability.history import Operation, read_history, write_history
from tests.linearizability.witness import find_revision_violation

DOCTORED = Path(__file__).parent / "doctored"

# Only a search sees these: their revisions are in order, their answers are not.
SEARCH_ONLY = {
    "created_twice",
    "delete_counted_twice",
    "lost_write",
    "precondition_failed_although_it_held",
    "precondition_held_on_a_stale_revision",
    "precondition_won_twice",
    "put_created_an_existing_key",
}
# Only revisions show these: key by key the answers are possible.
WITNESS_ONLY = {
    "one_revision_two_values",
    "one_revision_two_writes",
    "reads_contradict_the_order_of_revisions",
    "revision_went_backwards",
    "store_revision_of_reads_went_backwards",
}
BOTH = {
    "appends_swap_between_reads",
    "deleted_key_read_back",
    "duplicate_append",
    "failed_precondition_changed_the_key",
    "lost_key",
    "read_then_older_read",
    "refused_write_was_read",
    "reordered_appends",
    "stale_read",
    "unknown_append_took_effect_twice",
    "unknown_write_took_effect_before_its_call",
    "value_from_nowhere",
    "value_of_another_key",
}


def test_every_doctored_file_is_judged() -> None:
    assert {path.stem for path in DOCTORED.glob("*.jsonl")} == SEARCH_ONLY | WITNESS_ONLY | BOTH


@pytest.mark.parametrize("name", sorted(SEARCH_ONLY | BOTH))
def test_search_refuses(name: str) -> None:
    history = read_history(DOCTORED / f"{name}.jsonl")
    assert_names_its_culprits(find_violation(history), history)


@pytest.mark.parametrize("name", sorted(WITNESS_ONLY | BOTH))
def test_witness_refuses(name: str) -> None:
    history = read_history(DOCTORED / f"{name}.jsonl")
    assert_names_its_culprits(find_revision_violation(history), history)


@pytest.mark.parametrize("name", sorted(SEARCH_ONLY))
def test_witness_alone_would_not_do(name: str) -> None:
    assert find_revision_violation(read_history(DOCTORED / f"{name}.jsonl")) is None


@pytest.mark.parametrize("name", sorted(WITNESS_ONLY))
def test_search_alone_would_not_do(name: str) -> None:
    assert find_violation(read_history(DOCTORED / f"{name}.jsonl")) is None


def test_counterexample_names_operation_key_and_window() -> None:
    violation = find_violation(read_history(DOCTORED / "stale_read.jsonl"))
    assert violation is not None
    assert violation.explain().splitlines() == [
        "not linearizable, key 'a': no order of effects explains this answer; just before it "
        "returned the key could only be, with the open operations still to come: 'v2' @2",
        "  what cannot be:",
        "    client 1        7.000 ..      8.000  a get -> 'v1' mod @1 @2",
        "  around it, by call; * what cannot be:",
        "    client 1        0.000 ..      2.000  a put 'v1' -> ok new @1",
        "    client 2        3.000 ..      5.000  a put 'v2' -> ok existed @2",
        "    client 3        4.000 ..      6.000  a get -> 'v2' mod @2 @2",
        "  * client 1        7.000 ..      8.000  a get -> 'v1' mod @1 @2",
    ]


def test_history_survives_the_disk(tmp_path: Path) -> None:
    history = read_history(DOCTORED / "lost_key.jsonl")
    write_history(tmp_path / "copy.jsonl", history)
    assert read_history(tmp_path / "copy.jsonl") == history


def assert_names_its_culprits(violation: Violation | None, history: list[Operation]) -> None:
    assert violation is not None
    assert violation.culprits
    assert set(violation.culprits) <= set(history)
    assert all(operation.key == violation.culprits[-1].key for operation in violation.window)
