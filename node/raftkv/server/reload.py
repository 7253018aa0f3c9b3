"""Files that may change while a node runs: certificates and tokens. Looked at every second.

A change is noticed by what `stat` says of each file, links followed, so that a renamed file, a
file written in place and the links that Kubernetes swaps are all seen. What is read must be whole:
a file that is broken, or half of a pair that is being replaced, leaves what was loaded before in
force, is told once, and is tried again every second.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from raftkv.server.metrics import Metrics

_LOG: Final = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0

_State = tuple[tuple[int, int, int, int] | None, ...]


class WatchedFiles:
    """Some files that are loaded together."""

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], None]) -> None:
        """``load`` takes them into use, or raises OSError or ValueError and changes nothing.

        ``what`` names them in logs and as a metric's label.
        """
        self.what = what
        self.error: str | None = None  # why the files as they are now are not in use
        self._paths = tuple(paths)
        self._load = load
        self._loaded: _State = ()

    def load(self) -> None:
        """Load them for the first time. Raises OSError or ValueError: a sentence."""
        state = self._look()
        self._load()
        self._loaded = state

    def look(self) -> bool:
        """Load them again if they changed; whether they were loaded."""
        state = self._look()
        if state == self._loaded:
            self.error = None  # they are as they were: nothing waits to be loaded
            return False
        try:
            self._load()
        except (OSError, ValueError) as error:
            if str(error) != self.error:
                self.error = str(error)
                _LOG.error("%s: the files changed and are not used: %s", self.what, error)
            return False
        # What was written since `state` was taken is noticed next time.
        self._loaded, self.error = state, None
        _LOG.info("%s: loaded anew", self.what)
        return True

    def _look(self) -> _State:
        return tuple(_state_of(path) for path in self._paths)


def _state_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 one call, links followed
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class Reloader:
    """All watched files of a process. `look` is to be called every `LOOK_SECONDS`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._watched: list[WatchedFiles] = []

    def add(self, files: WatchedFiles) -> None:
        """Load ``files`` and keep an eye on them. Raises OSError or ValueError: a sentence."""
        files.load()
        self._watched.append(files)
        self._metrics.observe_reload(files.what, loaded=False, is_failing=False)

    def look(self) -> None:
        """Load what changed."""
        for files in self._watched:
            loaded = files.look()
            self._metrics.observe_reload(
                files.what, loaded=loaded, is_failing=files.error is not None
            )

    def warnings(self) -> tuple[str, ...]:
        """For `/v1/status`: what changed and could not be loaded."""
        return tuple(
            f"{files.what}: the files changed and are not used: {files.error}"
            for files in self._watched
            if files.error is not None
        )
