"""How often and how fast requests were answered: a collector that costs little for each.

prometheus_client's counters and histograms take locks and look labels up, which at tens of
thousands of requests a second is a visible part of each. Here an observation is one look-up and
three additions on the event loop's thread; the families are made at scrape time.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

_BOUNDS_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0,
)  # fmt: skip
_BOUNDS_TEXT: Final = (*map(floatToGoString, _BOUNDS_SECONDS), "+Inf")
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


class _Latency:
    """Of one route and method."""

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS_TEXT)  # by bucket, each without those below
        self.sum_seconds = 0.0


class _Series:
    """Of one route, method and status."""

    __slots__ = ("count", "latency")

    def __init__(self, latency: _Latency) -> None:
        self.count = 0
        self.latency = latency


class RequestMetrics:
    """A collector. Label values are from closed sets, so the number of series is bounded."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._latencies: dict[tuple[str, str], _Latency] = {}

    def observe(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count an answered request. ``route`` is a row of the route table, never a path."""
        series = self._series.get((route, method, code))
        if series is None:
            series = self._series_of(route, method if method in _METHODS else "other", code)
        series.count += 1
        latency = series.latency
        latency.counts[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        latency.sum_seconds += seconds

    def _series_of(self, route: str, method: str, code: int) -> _Series:
        latency = self._latencies.setdefault((route, method), _Latency())
        return self._series.setdefault((route, method, code), _Series(latency))

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Called by the registry."""
        requests = CounterMetricFamily(
            "raftkv_http_requests", "Answered requests", labels=["route", "method", "code"]
        )
        for (route, method, code), series in self._series.items():
            requests.add_metric([route, method, str(code)], series.count)
        yield requests
        seconds = HistogramMetricFamily(
            "raftkv_http_request_seconds",
            "Time from a request's head to its answer",
            labels=["route", "method"],
        )
        for labels, latency in self._latencies.items():
            buckets = list(zip(_BOUNDS_TEXT, accumulate(latency.counts), strict=True))
            seconds.add_metric(list(labels), buckets, latency.sum_seconds)
        yield seconds
