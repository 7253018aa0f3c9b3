"""Judges what a load was told: nothing acknowledged is lost, and the history is linearizable."""

from tests.e2e.kubectl import E2EError
from tests.e2e.pods.client_pod import LoadResult
from tests.linearizability.checker import find_violation
from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.witness import find_revision_violation


def judge(load: LoadResult) -> None:
    """Check a load's history, unknown outcomes kept open.

    Raises:
        E2EError: names the lost write, the counterexample, or the answer no request should get.
    """
    if load.refusals:
        raise E2EError(f"requests were refused: {load.refusals}")
    lost = _lost_writes(load.history)
    if lost:
        raise E2EError(f"{len(lost)} acknowledged writes are lost, such as {lost[0]}")
    for find in (find_violation, find_revision_violation):
        violation = find(load.history)
        if violation is not None:
            raise E2EError(f"the history contradicts itself: {violation.explain()}")


def require_no_failures(load: LoadResult) -> None:
    """No request failed, but for connections that broke and were made anew once."""
    if load.failed:
        raise E2EError(f"{load.failed} of {load.sent} requests failed: {load.failures}")


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
