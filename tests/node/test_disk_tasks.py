"""Disk tasks as effects: lanes, and who hears of what a task refuses."""

from collections.abc import Callable

import pytest

from raftkv.node.disk_tasks import DiskTasks, Refusal
from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.storage.disk import DiskError, DiskTask, FreeBytes, FsyncDir, Lane
from raftkv.storage.errors import CorruptionError, SnapshotRefusedError

OPS = (FreeBytes("."),)
NO_ROOM = SnapshotRefusedError("no room")


def asks(error: Exception | None = None) -> DiskTask[int]:
    """Ask for the free bytes and return them, or raise."""
    (free_bytes,) = yield OPS
    if error is not None:
        raise error
    assert isinstance(free_bytes, int)
    return free_bytes


class Started:
    """Tasks, and all that they led to."""

    def __init__(self) -> None:
        self.submitted: list[SubmitDisk] = []
        self.done: list[int] = []
        self.refused: list[Refusal] = []
        self.tasks = DiskTasks(self.submitted.append)

    def start(self, task: DiskTask[int], lane: Lane = Lane.WAL, *, with_refused: bool) -> None:
        refused: Callable[[Refusal], None] | None = self.refused.append if with_refused else None
        self.tasks.start(task, self.done.append, lane=lane, refused=refused)


def test_tasks_of_both_lanes_go_on_beside_each_other() -> None:
    started = Started()
    started.start(asks(), Lane.BULK, with_refused=False)
    started.start(asks(), with_refused=False)
    assert started.submitted == [SubmitDisk(1, OPS, Lane.BULK), SubmitDisk(2, OPS, Lane.WAL)]
    assert len(started.tasks) == 2
    started.tasks.complete(DiskDone(2, [7]))
    started.tasks.complete(DiskDone(1, [8]))
    assert (started.done, len(started.tasks)) == ([7, 8], 0)


def test_all_submissions_of_a_task_take_its_lane() -> None:
    def two_steps() -> DiskTask[int]:
        yield OPS
        yield (FsyncDir("."),)
        return 1

    started = Started()
    started.start(two_steps(), Lane.BULK, with_refused=False)
    started.tasks.complete(DiskDone(1, [7]))
    assert [submission.lane for submission in started.submitted] == [Lane.BULK, Lane.BULK]


@pytest.mark.parametrize("error", [NO_ROOM, CorruptionError("snapshots/x", "damaged")])
def test_a_refusal_goes_to_who_can_do_without(error: Refusal) -> None:
    started = Started()
    started.start(asks(error), with_refused=True)
    started.tasks.complete(DiskDone(1, [7]))
    assert (started.refused, started.done, len(started.tasks)) == ([error], [], 0)


@pytest.mark.parametrize("error", [NO_ROOM, CorruptionError("snapshots/x", "damaged")])
def test_a_refusal_that_nobody_expects_is_raised(error: Refusal) -> None:
    started = Started()
    started.start(asks(error), with_refused=False)
    with pytest.raises(type(error)):
        started.tasks.complete(DiskDone(1, [7]))
    assert started.done == []


def test_rule_05_a_failed_operation_is_raised_whoever_could_do_without_the_task() -> None:
    started = Started()
    started.start(asks(), with_refused=True)
    failed = DiskError(OPS[0], 5, "Input/output error")
    with pytest.raises(DiskError):
        started.tasks.complete(DiskDone(1, failed))
    assert (started.refused, started.done) == ([], [])
