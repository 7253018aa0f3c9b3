"""One task at a time on the write-ahead log: the core's writes, snapshot records, removed segments.

Owned by the node class. The core has at most one write under way (rule 4), but a snapshot record
is the node's own and may come at any time; whoever comes second waits here for its turn. Times
the task under way for the stall ladder (rule 12).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from raftkv.node.disk_tasks import DiskTasks
from raftkv.storage.disk import DiskTask

T = TypeVar("T")


class WalWrites:
    """See the module docstring."""

    def __init__(self, disk: DiskTasks, clock: Callable[[], float]) -> None:
        self._disk = disk
        self._clock = clock
        self._waiting: deque[tuple[Callable[[], DiskTask[Any]], Callable[[Any], None]]] = deque()
        self._is_busy = False
        # When the task under way began; None: nothing is under way.
        self.started_at: float | None = None

    def run(self, make_task: Callable[[], DiskTask[T]], done: Callable[[T], None]) -> None:
        """Run the task once the log is free; ``done`` may ask for another.

        The task is made only then, since it may look at where the log ends.
        """
        self._waiting.append((make_task, done))
        self._next()

    def _next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        make_task, done = self._waiting.popleft()
        self._is_busy = True
        self.started_at = self._clock()

        def ended(result: Any) -> None:  # noqa: ANN401 - of the task's own type
            self._is_busy = False
            self.started_at = None
            done(result)
            self._next()

        self._disk.start(make_task(), ended)
