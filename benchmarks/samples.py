"""What was measured, and what it comes to: medians, ranges, ratios, and bars that were set before.

A part of the benchmark yields `Sample`s; everything that a person sees is made of them, so that a
page can be made anew from a file of samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final, Literal

import msgspec

OURS: Final = "RaftKV"
GRPC: Final = "etcd gRPC"
JSON: Final = "etcd JSON"
ETCD: Final = "etcd"  # where the interface does not matter

Better = Literal["higher", "lower"]
Standing = Literal["ahead", "even", "behind"]


class Metric(msgspec.Struct, frozen=True):
    """One line of a table."""

    part: str  # the table
    what: str
    unit: str
    better: Better
    digits: int = 0


class Sample(msgspec.Struct, frozen=True):
    """One measurement of a metric on one system."""

    metric: Metric
    system: str
    value: float


class Fault(msgspec.Struct, frozen=True):
    """What must not have happened: an invariant that broke, or a part that could not be run."""

    part: str
    system: str
    what: str


class Statistics(msgspec.Struct, frozen=True):
    """The median and the range of some samples."""

    median: float
    low: float
    high: float
    count: int


class Row(msgspec.Struct, frozen=True):
    """A metric, with the statistics of each system that has it."""

    metric: Metric
    systems: dict[str, Statistics]


class Bar(msgspec.Struct, frozen=True):
    """A ratio that is to be reached: ours over theirs."""

    title: str
    metric: Metric
    theirs: str
    limit: float  # at least if more is better, at most if less is
    aim: float


class Verdict(msgspec.Struct, frozen=True):
    """What came of a bar; no ratio: it could not be measured."""

    bar: Bar
    ours: Statistics | None
    theirs: Statistics | None
    ratio: float | None

    @property
    def is_reached(self) -> bool:
        if self.ratio is None:
            return False
        if self.bar.metric.better == "higher":
            return self.ratio >= self.bar.limit
        return self.ratio <= self.bar.limit


def statistics(values: Iterable[float]) -> Statistics:
    """Of at least one value."""
    ordered = sorted(values)
    return Statistics(median(ordered), ordered[0], ordered[-1], len(ordered))


def rows(samples: Sequence[Sample]) -> list[Row]:
    """One row a metric, in the order in which they were first measured."""
    values: dict[Metric, dict[str, list[float]]] = {}
    for sample in samples:
        values.setdefault(sample.metric, {}).setdefault(sample.system, []).append(sample.value)
    return [
        Row(metric, {system: statistics(each) for system, each in of_systems.items()})
        for metric, of_systems in values.items()
    ]


def ratio(ours: Statistics, theirs: Statistics) -> float | None:
    """Our median over theirs; None when theirs is nothing to divide by."""
    return ours.median / theirs.median if theirs.median > 0 else None


def standing(metric: Metric, ours: Statistics, theirs: Statistics) -> Standing:
    """Ahead or behind; even where the ranges of several runs overlap."""
    if ours.count > 1 and ours.low <= theirs.high and theirs.low <= ours.high:
        return "even"
    if ours.median == theirs.median:
        return "even"
    is_more = ours.median > theirs.median
    return "ahead" if is_more == (metric.better == "higher") else "behind"


def judge(bars: Sequence[Bar], measured: Sequence[Row]) -> list[Verdict]:
    """Each bar with what was measured of it."""
    by_metric = {row.metric: row.systems for row in measured}
    verdicts = []
    for bar in bars:
        systems = by_metric.get(bar.metric, {})
        ours, theirs = systems.get(OURS), systems.get(bar.theirs)
        share = None if ours is None or theirs is None else ratio(ours, theirs)
        verdicts.append(Verdict(bar, ours, theirs, share))
    return verdicts


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the ascending values that ``share`` of them do not exceed (nearest rank)."""
    place = max(0, -int(-share * len(ordered) // 1) - 1)
    return ordered[min(place, len(ordered) - 1)]


class Measured(msgspec.Struct):
    """Everything that a run of the benchmark found, as it is kept in a file."""

    samples: list[Sample] = []
    faults: list[Fault] = []
    notes: list[str] = []


class Recorder:
    """Where the parts of the benchmark put what they find; `tell` hears of all of it."""

    def __init__(self, part: str, measured: Measured, tell: Callable[[str], None]) -> None:
        self.part = part
        self.tell = tell
        self._measured = measured

    def add(self, metric: Metric, system: str, value: float) -> None:
        """A measurement that counts."""
        self._measured.samples.append(Sample(metric, system, value))

    def note(self, text: str) -> None:
        """A sentence that the page says."""
        self.tell(text)
        self._measured.notes.append(text)

    def fault(self, system: str, what: str) -> None:
        """Something broke: the measurement must not be added."""
        self.tell(f"  INVALID  {system}: {what}")
        self._measured.faults.append(Fault(self.part, system, what))

    def faults(self, system: str, what: str, found: Sequence[str]) -> bool:
        """Record all that was ``found``; whether there was any."""
        for each in found:
            self.fault(system, f"{what}: {each}")
        return bool(found)

    @contextmanager
    def guard(self, system: str, what: str) -> Iterator[None]:
        """Around a step whose failure is reported and must not lose the steps behind it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 it is told, in the page too
            said = str(error).strip().splitlines()
            self.fault(system, f"{what} failed: {type(error).__name__} {said[0] if said else ''}")
