"""The node's own histogram tells what prometheus_client's would."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from raftkv.server.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 20.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str | None], float]:
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.sampled_from([*BOUNDS, 0.0, 0.25, 1.5, 1e9]) | st.floats(0, 100)))
def test_a_histogram_tells_what_the_librarys_would(values: list[float]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    known = prometheus_client.Histogram("some_seconds", "Text", buckets=BOUNDS, registry=theirs)
    histogram = Histogram("some_seconds", "Text", BOUNDS)
    ours.register(histogram)
    for value in values:
        known.observe(value)
        histogram.observe(value)
    assert samples(ours) == samples(theirs)
    assert samples(ours)["some_seconds_count", None] == len(values)
