"""Histories that no linearizable store can have are refused."""

from typing import Literal

import pytest

from benchmarks.judge import Operation, broken_promises


def put(
    number: int,
    start: float,
    end: float,
    revision: int,
    *,
    key: int = 0,
    outcome: Literal["done", "refused", "unknown"] = "done",
) -> Operation:
    return Operation("put", key, number, start, end, revision, outcome)


def get(number: int, start: float, end: float, revision: int, *, key: int = 0) -> Operation:
    return Operation("get", key, number, start, end, revision, "done")


GOOD = [
    get(-1, 0, 1, 0),
    put(1, 1, 3, 5),
    put(2, 2, 4, 4),  # beside it, and before it in the log
    get(1, 5, 6, 5),
    put(3, 7, 9, 6, key=1),
    get(3, 8, 8.5, 6, key=1),  # before its writer was answered
    put(4, 10, 11, 0, outcome="unknown"),
    get(4, 20, 21, 9),  # it took effect
    put(5, 22, 23, 0, outcome="refused"),
]


def test_a_right_history_has_no_fault() -> None:
    assert broken_promises(GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (put(9, 30, 31, 5), "both got 5"),
        (put(9, 30, 31, 0), "without a revision"),
        (put(9, 30, 31, 3), "began after revision 6 and got 3"),
        (get(1, 30, 31, 5), "saw 5 after 9"),
        (get(-1, 30, 31, 0), "saw 0 after 9"),
        (get(77, 30, 31, 10), "which nobody had written"),
        (get(3, 30, 31, 10), "which nobody had written"),  # of another key
        (get(5, 30, 31, 10), "which was refused"),
        (get(3, 30, 31, 7, key=1), "which was acknowledged at 6"),
    ],
)
def test_a_wrong_operation_is_found(wrong: Operation, said: str) -> None:
    faults = broken_promises([*GOOD, wrong])
    assert any(said in fault for fault in faults), faults
