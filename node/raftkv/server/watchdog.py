"""Ends a process whose event loop hangs (node design, rule 12).

The stall ladder of the node class runs on the loop, and so does apply. When the file system itself
stops, as under fsfreeze, a write to the store hangs, and with it the loop: nobody is left to count
the seconds. This thread is.

It counts wake-ups, not seconds: a process that was stopped (SIGSTOP, a paused machine) wakes up
once, and its loop runs before the next.
"""

import faulthandler
import logging
import os
import threading
from collections.abc import Callable
from typing import Final

_LOG: Final = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0


def end_process() -> None:
    """Leave at once, without anything that could hang as well."""
    os._exit(1)


class Watchdog:
    """Owned by `raftkv.server.process`, whose loop calls `beat` every `BEAT_SECONDS`."""

    def __init__(
        self,
        seconds_max: float,
        end: Callable[[], None] = end_process,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        """Call ``end``, in another thread, after ``seconds_max`` without a beat."""
        self._missed_max = max(1, round(seconds_max / BEAT_SECONDS))
        self._end = end
        self._beat_seconds = beat_seconds
        self._missed = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """The loop runs."""
        self._missed = 0

    def close(self) -> None:
        """Watch no more."""
        self._is_over.set()

    def _run(self) -> None:
        while not self._is_over.wait(self._beat_seconds):
            self._missed += 1
            if self._missed > self._missed_max:
                _LOG.critical(
                    "the node cannot go on: its event loop has hung for %d s, as it does when "
                    "the disk does not answer",
                    self._missed_max,
                )
                faulthandler.dump_traceback()
                self._end()
                return
