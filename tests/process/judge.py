"""What must hold of a finished load, whatever happened to the cluster meanwhile."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.linearizability.checker import find_violation
from tests.linearizability.history import Kind, Operation, describe, write_history
from tests.linearizability.witness import find_revision_violation


def judge(history: Sequence[Operation], directory: Path) -> None:
    """Fail with a counterexample unless the history, read back at its end, is linearizable.

    ``directory`` keeps the history for looking at it again.
    """
    path = directory / "history.jsonl"
    write_history(path, history)
    for find in (find_violation, find_revision_violation):
        violation = find(history)
        assert violation is None, f"{violation.explain()}\nthe whole history is in {path}"
    lost = [describe(write) for write in lost_ledger_writes(history)]
    assert not lost, f"{len(lost)} acknowledged writes are lost:\n" + "\n".join(lost[:10])


def lost_ledger_writes(history: Sequence[Operation]) -> list[Operation]:
    """Acknowledged writes to keys written once that the last read of the key does not show."""
    last_read = {
        operation.key: (operation.value, operation.mod_revision)
        for operation in history
        if operation.kind is Kind.GET
    }
    return [
        operation
        for operation in history
        if operation.key.startswith("ledger/")
        and operation.is_effective_write
        and last_read.get(operation.key) != (operation.argument, operation.revision)
    ]


def summary(history: Sequence[Operation]) -> str:
    """How many operations of which certainty."""
    counts = Counter(operation.certainty.value for operation in history)
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
