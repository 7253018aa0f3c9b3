"""What is said of a load: its rate, its pauses, and what several pods saw together."""

import pytest

from tests.e2e.kubectl import E2EError
from tests.e2e.load import (
    Load,
    judge,
    require_full_load,
    require_no_failures,
    require_short_gaps,
)
from tests.e2e.pods.client_pod import LoadResult
from tests.linearizability.history import Certainty, Kind, Operation

SECOND = 10**9


def result(
    *acknowledged: float,
    clock: str = "one",
    marks: tuple[float, ...] = (),
    history: tuple[Operation, ...] = (),
    failed: int = 0,
) -> LoadResult:
    """A load from second 0 to second 10; times in seconds."""
    return LoadResult(
        is_read_back=True,
        seconds=10.0,
        sent=len(history),
        failed=failed,
        retried=0,
        reconnected=0,
        clock=clock,
        started_ns=0,
        stopped_ns=10 * SECOND,
        acknowledged_ns=[round(time * SECOND) for time in acknowledged],
        marks_ns=[round(time * SECOND) for time in marks],
        failures={"put: 503 no_leader": failed} if failed else {},
        refusals={},
        history=list(history),
    )


def test_pods_with_one_clock_fill_each_others_gaps() -> None:
    load = Load([result(1, 3, 5, 7, 9), result(2, 4, 6, 8)], connections=16)
    assert load.longest_gap_seconds == 1.0


def test_pods_with_clocks_of_their_own_do_not() -> None:
    load = Load([result(1, 3, 5, 7, 9), result(2, 4, 6, 8, clock="two")], connections=16)
    assert load.longest_gap_seconds == 2.0
    assert len(load.histories()) == 2


def test_silence_at_the_begin_and_at_the_end_is_a_gap() -> None:
    assert Load([result(4, 5)], connections=8).longest_gap_seconds == 5.0
    assert Load([result()], connections=8).longest_gap_seconds == 10.0


def test_gaps_after_a_mark_are_told_apart() -> None:
    load = Load([result(1, 2, 3, 9, marks=(3.5,))], connections=8)
    assert load.longest_gap_seconds == 6.0
    assert load.longest_gap_before_mark_seconds == 1.0


def test_a_long_pause_a_failure_and_a_light_load_fail_the_run() -> None:
    with pytest.raises(E2EError, match=r"no write was acknowledged for 1\.00 s"):
        require_short_gaps(1.0)
    require_short_gaps(0.99)
    with pytest.raises(E2EError, match=r"1 of 0 requests failed.*no_leader"):
        require_no_failures(Load([result(failed=1)], connections=8))
    reads = tuple(Operation(0, "k", Kind.GET, 5 * SECOND, 6 * SECOND) for _ in range(2000))
    require_full_load(Load([result(history=reads)], connections=8))
    with pytest.raises(E2EError, match="7 connections"):
        require_full_load(Load([result(history=reads)], connections=7))
    with pytest.raises(E2EError, match="199"):
        require_full_load(Load([result(history=reads[:1990])], connections=8))


def test_reads_after_the_load_do_not_make_it_heavier() -> None:
    late = tuple(Operation(0, "k", Kind.GET, 11 * SECOND, 12 * SECOND) for _ in range(2000))
    assert Load([result(history=late)], connections=8).rate == 0


def test_a_stale_read_of_another_pod_is_found() -> None:
    writes = (
        Operation(0, "k", Kind.PUT, 1, 2, argument="a", existed=False, revision=1),
        Operation(0, "k", Kind.PUT, 3, 4, argument="b", existed=True, revision=2),
    )
    stale = Operation(100, "k", Kind.GET, 5, 6, existed=True, value="a", mod_revision=1, revision=2)
    with pytest.raises(E2EError, match="contradicts itself"):
        judge(Load([result(history=writes), result(history=(stale,))], connections=16))
    unanswered = Operation(100, "k", Kind.GET, 5, certainty=Certainty.UNKNOWN)
    judge(Load([result(history=writes), result(history=(unanswered,))], connections=16))
