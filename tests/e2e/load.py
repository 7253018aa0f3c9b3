"""What the clients of all machines did and were told, and the judgement of it.

Made by `tests.e2e.client` from what its pods hand over. Nothing acknowledged may be lost, and the
history must be linearizable. Pods with one monotonic clock (as in `kind`, where machines share a
kernel) write the same keys and are judged as one history; otherwise each has keys of its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.e2e.kubectl import E2EError
from tests.e2e.pods.client_pod import LoadResult
from tests.linearizability.checker import find_violation
from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.witness import find_revision_violation

GAP_MAX_SECONDS = 1.0  # between acknowledged writes, with three voters or more
CONNECTIONS_MIN = 8
RATE_MIN = 200.0  # requests a second


@dataclass(frozen=True)
class Load:
    """One load, from one pod or many."""

    results: Sequence[LoadResult]
    connections: int

    @property
    def sent(self) -> int:
        """Requests, those included that were sent again."""
        return sum(result.sent for result in self.results)

    @property
    def failed(self) -> int:
        """Answers of 500 and above, second broken connections, answers that did not come."""
        return sum(result.failed for result in self.results)

    @property
    def again(self) -> int:
        """Sent again: the connection broke, or the answer said that nothing had happened."""
        return sum(result.retried + result.reconnected for result in self.results)

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return max(result.seconds for result in self.results)

    @property
    def rate(self) -> float:
        """Requests a second while all pods ran."""
        return sum(_sent_in_time(result) / result.seconds for result in self.results)

    @property
    def failures(self) -> Mapping[str, int]:
        """What the failed ones met."""
        return sum((Counter(result.failures) for result in self.results), Counter[str]())

    @property
    def refusals(self) -> Mapping[str, int]:
        """Answers that no request should get."""
        return sum((Counter(result.refusals) for result in self.results), Counter[str]())

    @property
    def longest_gap_seconds(self) -> float:
        """The longest time without an acknowledged write."""
        return self._longest_gap(is_until_mark=False)

    @property
    def longest_gap_before_mark_seconds(self) -> float:
        """The same, up to the first moment that was noted."""
        return self._longest_gap(is_until_mark=True)

    def histories(self) -> list[list[Operation]]:
        """What can be judged together: one history for each clock."""
        return [
            [operation for result in group for operation in result.history]
            for group in self._by_clock()
        ]

    def _by_clock(self) -> list[list[LoadResult]]:
        groups: dict[str, list[LoadResult]] = {}
        for result in self.results:
            groups.setdefault(result.clock, []).append(result)
        return list(groups.values())

    def _longest_gap(self, *, is_until_mark: bool) -> float:
        """Between any two writes of pods with one clock; with several clocks the worst of them."""
        return max(_gap_seconds(group, is_until_mark) for group in self._by_clock())


def _sent_in_time(result: LoadResult) -> int:
    """Requests of the load itself, without those that read everything back in the end."""
    return sum(operation.call_ns <= result.stopped_ns for operation in result.history)


def _gap_seconds(group: list[LoadResult], is_until_mark: bool) -> float:
    begin = min(result.started_ns for result in group)
    end = min(
        result.marks_ns[0] if is_until_mark and result.marks_ns else result.stopped_ns
        for result in group
    )
    times = sorted(time_ns for result in group for time_ns in result.acknowledged_ns)
    inside = [begin, *(time_ns for time_ns in times if begin < time_ns < end), end]
    return max(later - earlier for earlier, later in pairwise(inside)) / 1e9


def judge(load: Load) -> None:
    """Check a load's history, unknown outcomes kept open.

    Raises:
        E2EError: names the lost write, the counterexample, or the answer no request should get.
    """
    if load.refusals:
        raise E2EError(f"requests were refused: {load.refusals}")
    for history in load.histories():
        lost = _lost_writes(history)
        if lost:
            raise E2EError(f"{len(lost)} acknowledged writes are lost, such as {lost[0]}")
        for find in (find_violation, find_revision_violation):
            violation = find(history)
            if violation is not None:
                raise E2EError(f"the history contradicts itself: {violation.explain()}")


def require_no_failures(load: Load) -> None:
    """No request failed, but for connections that broke and were made anew once."""
    if load.failed:
        raise E2EError(
            f"{load.failed} of {load.sent} requests failed: {dict(load.failures)}; "
            f"the first: {_first_failures(load)}"
        )


def require_full_load(load: Load) -> None:
    """The load was as heavy as promised."""
    if load.connections < CONNECTIONS_MIN or load.rate < RATE_MIN:
        raise E2EError(
            f"the load was {load.connections} connections and {load.rate:.0f} requests a second; "
            f"it must be {CONNECTIONS_MIN} and {RATE_MIN:.0f}"
        )


def require_short_gaps(gap_seconds: float) -> None:
    """Writes never paused for long."""
    if gap_seconds >= GAP_MAX_SECONDS:
        raise E2EError(f"no write was acknowledged for {gap_seconds:.2f} s")


def _first_failures(load: Load) -> str:
    """When, and whose: seconds since the start of the pod's load."""
    found = [
        f"{(operation.call_ns - result.started_ns) / 1e9:.2f} s {operation.kind} by client "
        f"{operation.client}"
        for result in load.results
        for operation in result.history
        if operation.certainty is not Certainty.KNOWN
    ]
    return "; ".join(found[:5])


def _lost_writes(history: list[Operation]) -> list[Operation]:
    """Acknowledged writes to keys written once that the last read does not show.

    The checker would find them too; this says it in plain words.
    """
    last_read = {
        operation.key: operation.value
        for operation in history
        if operation.kind is Kind.GET and operation.certainty is Certainty.KNOWN
    }
    return [
        operation
        for operation in history
        if "/ledger/" in operation.key
        and operation.kind is Kind.PUT
        and operation.certainty is Certainty.KNOWN
        and last_read.get(operation.key) != operation.argument
    ]
