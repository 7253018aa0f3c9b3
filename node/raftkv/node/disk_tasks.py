"""Runs disk tasks (see `raftkv.storage.disk`) by turning their steps into effects and back.

Owned by the node class. Knows nothing of what a task does; a failed operation is thrown into the
task, and what the task then raises reaches the caller of `complete`, unless the task was started
with somebody who can do without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.storage.disk import DiskError, DiskResult, DiskTask, Lane
from raftkv.storage.errors import SnapshotRefusedError, StorageError

T = TypeVar("T")

# What a task may raise that need not be the end of the node. A `DiskError` always is.
Refusal = SnapshotRefusedError | StorageError


@dataclass(slots=True)
class _Running:
    task: DiskTask[Any]
    done: Callable[[Any], None]
    lane: Lane
    refused: Callable[[Refusal], None] | None


class DiskTasks:
    """The tasks under way, by the number of the submission each one waits for."""

    def __init__(self, submit: Callable[[SubmitDisk], None]) -> None:
        self._submit = submit
        self._running: dict[int, _Running] = {}
        self._last_submission = 0

    def __len__(self) -> int:
        """How many tasks are under way."""
        return len(self._running)

    def start(
        self,
        task: DiskTask[T],
        done: Callable[[T], None],
        *,
        lane: Lane = Lane.WAL,
        refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        """Run ``task`` to its first operation; ``done`` is called with what it returns.

        ``refused`` is called instead with the `Refusal` that the task raises; without it, and
        for everything else, `start` and `complete` raise.
        """
        self._resume(_Running(task, done, lane, refused), None)

    def complete(self, event: DiskDone) -> None:
        """Resume the task that waited for this submission.

        Raises whatever the task raises, `DiskError` above all: the caller stops the node.
        """
        self._resume(self._running.pop(event.submission), event.results)

    def _resume(self, running: _Running, results: list[DiskResult] | DiskError | None) -> None:
        try:
            if results is None:
                ops = next(running.task)
            elif isinstance(results, DiskError):
                ops = running.task.throw(results)
            else:
                ops = running.task.send(results)
        except StopIteration as stop:
            running.done(stop.value)
            return
        except (SnapshotRefusedError, StorageError) as refusal:
            if running.refused is None:
                raise
            running.refused(refusal)
            return
        self._last_submission += 1
        self._running[self._last_submission] = running
        self._submit(SubmitDisk(self._last_submission, ops, running.lane))
