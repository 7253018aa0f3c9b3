"""How often and how fast requests were answered: a collector that costs little for each.

prometheus_client's counters and histograms take locks and look labels up, which at tens of
thousands of requests a second is a visible part of each. Here an observation is one look-up and
three additions on the event loop's thread; the families are made at scrape time.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from raftkv.server.histogram import Buckets

_BOUNDS_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0,
)  # fmt: skip
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


class _Series:
    """Of one route, method and status; ``latency`` is of the route and method."""

    __slots__ = ("count", "latency")

    def __init__(self, latency: Buckets) -> None:
        self.count = 0
        self.latency = latency


class RequestMetrics:
    """A collector. Label values are from closed sets, so the number of series is bounded."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._latencies: dict[tuple[str, str], Buckets] = {}

    def observe(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count an answered request. ``route`` is a row of the route table, never a path."""
        series = self._series.get((route, method, code))
        if series is None:
            series = self._series_of(route, method if method in _METHODS else "other", code)
        series.count += 1
        series.latency.observe(seconds)

    def _series_of(self, route: str, method: str, code: int) -> _Series:
        latency = self._latencies.setdefault((route, method), Buckets(_BOUNDS_SECONDS))
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
            latency.add_to(seconds, labels)
        yield seconds
