"""What samples come to: medians, ranges, ratios, verdicts, percentiles."""

import pytest

from benchmarks.samples import (
    GRPC,
    OURS,
    Bar,
    Better,
    Measured,
    Metric,
    Recorder,
    Sample,
    judge,
    percentile,
    ratio,
    rows,
    standing,
    statistics,
)

PUT = Metric("Closed loop", "PUT", "operations/s", "higher")
P99 = Metric("Open loop", "PUT p99", "ms", "lower")


def samples(metric: Metric, system: str, *values: float) -> list[Sample]:
    return [Sample(metric, system, value) for value in values]


def test_a_row_has_the_median_and_the_range_of_each_system() -> None:
    (row,) = rows(samples(PUT, OURS, 300, 100, 200) + samples(PUT, GRPC, 50, 100))
    ours, theirs = row.systems[OURS], row.systems[GRPC]
    assert (ours.median, ours.low, ours.high, ours.count) == (200, 100, 300, 3)
    assert (theirs.median, theirs.count) == (75, 2)
    assert ratio(ours, theirs) == pytest.approx(200 / 75)
    assert ratio(ours, statistics([0.0])) is None


@pytest.mark.parametrize(
    ("better", "ours", "theirs", "said"),
    [
        ("higher", (10, 11), (5, 6), "ahead"),
        ("higher", (5, 6), (10, 11), "behind"),
        ("lower", (5, 6), (10, 11), "ahead"),
        ("lower", (10, 11), (5, 6), "behind"),
        ("higher", (10, 20), (15, 16), "even"),
        ("higher", (10,), (9.9,), "ahead"),
        ("lower", (7,), (7,), "even"),
    ],
)
def test_overlapping_ranges_are_even(
    better: Better, ours: tuple[float, ...], theirs: tuple[float, ...], said: str
) -> None:
    metric = Metric("part", "what", "unit", better)
    assert standing(metric, statistics(ours), statistics(theirs)) == said


@pytest.mark.parametrize(
    ("metric", "ours", "limit", "is_reached"),
    [(PUT, 15, 1.5, True), (PUT, 14, 1.5, False), (P99, 6, 0.6, True), (P99, 7, 0.6, False)],
)
def test_a_bar_is_a_least_or_a_most(
    metric: Metric, ours: float, limit: float, is_reached: bool
) -> None:
    bar = Bar("bar", metric, GRPC, limit, limit)
    measured = rows(samples(metric, OURS, ours) + samples(metric, GRPC, 10))
    (verdict,) = judge([bar], measured)
    assert verdict.is_reached is is_reached


def test_a_bar_that_was_not_measured_is_not_reached() -> None:
    bar = Bar("bar", P99, GRPC, 1.0, 0.5)
    (verdict,) = judge([bar], rows(samples(P99, OURS, 1)))
    assert (verdict.ratio, verdict.is_reached) == (None, False)


@pytest.mark.parametrize(
    ("count", "share", "value"),
    [(100, 0.99, 99), (100, 0.5, 50), (100, 1.0, 100), (1000, 0.999, 999), (1, 0.99, 1), (3, 0, 1)],
)
def test_percentiles_are_of_the_nearest_rank(count: int, share: float, value: int) -> None:
    assert percentile(list(range(1, count + 1)), share) == value


def test_a_step_that_fails_is_reported_and_loses_no_other() -> None:
    measured, told = Measured(samples=[], faults=[], notes=[]), list[str]()
    recorder = Recorder("part", measured, told.append)
    with recorder.guard("etcd", "step"):
        int("it is gone")
    with recorder.guard("etcd", "step"):
        recorder.add(PUT, "etcd", 1.0)
    assert [fault.what for fault in measured.faults] == [
        "step failed: ValueError invalid literal for int() with base 10: 'it is gone'"
    ]
    assert len(measured.samples) == 1
    assert "INVALID" in told[0]
