"""A memory cgroup for one node: the kernel ends the node where it wants more than it may have.

Needs a memory controller (of cgroup v2, or of v1) in which this process may make a group; who asks
for one is told by a skip, with the reason, where there is none. The group lies within the group of
the tests themselves where the kernel allows that, so that no limit that holds for them is left.
Everything is undone by `MemoryGroup.remove`, whatever happened before.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

_REMOVE_SECONDS_MAX = 5.0


class _Version1:
    """The names of the files of the first version."""

    limit = "memory.limit_in_bytes"
    limit_with_swap = "memory.memsw.limit_in_bytes"
    no_limit = "-1"
    private = "rss"  # in memory.stat: what no file stands behind
    kills = "memory.oom_control"


class _Version2:
    """The names of the files of the second version."""

    limit = "memory.max"
    limit_of_swap = "memory.swap.max"
    no_limit = "max"
    private = "anon"
    kills = "memory.events"


class MemoryGroup:
    """One cgroup; whoever `command` starts is in it from the first byte on."""

    def __init__(self, name: str) -> None:
        self.place, self._files = _make(f"raftkv-{os.getpid()}-{name}")

    def command(self, *command: str) -> tuple[str, ...]:
        """A command that does the same within the group, under the same process id."""
        enter = f'echo $$ > "{self.place}/cgroup.procs" && exec "$@"'
        return ("/bin/sh", "-c", enter, "sh", *command)

    @property
    def pids(self) -> list[int]:
        """Who is in it."""
        return [int(pid) for pid in (self.place / "cgroup.procs").read_text().split()]

    @property
    def private_bytes(self) -> int:
        """Memory that no file stands behind: without swap the kernel cannot take it back."""
        return self._number("memory.stat", self._files.private)

    @property
    def kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        return self._number(self._files.kills, "oom_kill")

    def _number(self, file: str, name: str) -> int:
        lines = (line.split() for line in (self.place / file).read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == name)

    def limit(self, size_bytes: int) -> None:
        """Allow so much from now on, and nothing on a swap device."""
        files = self._files
        if isinstance(files, _Version2):
            self._write(files.limit_of_swap, "0", may_lack=True)
            self._write(files.limit, str(size_bytes))
            return
        # The limit of both together may at no time be below the one of memory.
        self._write(files.limit_with_swap, files.no_limit, may_lack=True)
        self._write(files.limit, str(size_bytes))
        self._write(files.limit_with_swap, str(size_bytes), may_lack=True)

    def _write(self, name: str, value: str, *, may_lack: bool = False) -> None:
        file = self.place / name
        if file.exists() or not may_lack:
            file.write_text(value)

    def remove(self) -> None:
        """Whoever was in it must have been killed; the kernel may take its time to notice."""
        deadline = monotonic() + _REMOVE_SECONDS_MAX
        while True:
            try:
                self.place.rmdir()
            except OSError:
                if monotonic() > deadline:
                    raise
                os.sched_yield()
            else:
                return


def _make(name: str) -> tuple[Path, _Version1 | _Version2]:
    """Make a group with a memory limit. Skips the test, with the reason, where none can be made."""
    if sys.platform != "linux":
        pytest.skip("memory cgroups are Linux's")
    why = "no memory controller is mounted here"
    for parent, files in _parents():
        place = parent / name
        try:
            place.mkdir()
        except OSError as error:
            why = f"no memory cgroup can be made here: {error}"
            continue
        if (place / files.limit).exists():
            return place, files
        place.rmdir()  # the controller is not there, or not for groups at this place
    pytest.skip(why)


def _parents() -> Iterator[tuple[Path, _Version1 | _Version2]]:
    """Where a group might be made, the group of this process first.

    In version 2 a group whose own processes are limited has none within it: those around it are
    next. A root that is no whole hierarchy (a container's) does not know the path: its top is last.
    """
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        top = Path(mount)
        if kind == "cgroup" and "memory" in options.split(","):
            path = next((p for c, p in own.items() if "memory" in c.split(",")), "")
            yield top / path, _Version1()
            yield top, _Version1()
        elif kind == "cgroup2":
            group = top / own.get("", "")
            for parent in (group, *group.parents):
                if parent.is_relative_to(top):
                    yield parent, _Version2()


@contextlib.contextmanager
def memory_group(name: str) -> Iterator[MemoryGroup]:
    """Made before the node starts, removed after it ended: enter it around the cluster."""
    made = MemoryGroup(name)
    try:
        yield made
    finally:
        made.remove()
