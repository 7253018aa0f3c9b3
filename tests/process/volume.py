"""A small ext4 of its own for each node's data: filled, frozen, failed and repaired by tests.

Needs the superuser, loop devices and e2fsprogs; `Volume` is skipped, with the reason, where the
machine lacks one of them. Everything is undone by `Volume.remove`, whatever happened before.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.cluster import Cluster, NodeProcess

_TOOLS = ("mkfs.ext4", "mount", "umount", "fsfreeze", "e2fsck")
_STEP_BYTES = 256 << 10


def _run(*command: str, may_fail: bool = False) -> str:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if ended.returncode and not may_fail:
        raise AssertionError(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended.stdout.strip()


def _make_ext4(image: Path, size_bytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-m", "0", str(image))


class Volume:
    """An ext4 in a file in an ext4 in a file, mounted at ``place``.

    The outer one is the disk of the inner one: while it is frozen, the inner one's disk hangs, as
    a device does. The inner one frozen itself is what backup tools do; then every write hangs at
    once, also one to the page cache. A file system that meets an error becomes read-only.
    """

    def __init__(self, place: Path, size_bytes: int) -> None:
        if os.geteuid() != 0:
            pytest.skip("only the superuser may mount a file system")
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        self.place = place
        self._outer = place.with_suffix(".disk")
        self._outer_image = place.with_suffix(".disk.ext4")
        self._image = self._outer / "image.ext4"
        self._filler = place / ".snapshot"  # a name that a node leaves alone
        _make_ext4(self._outer_image, size_bytes + (64 << 20))
        self._outer.mkdir()
        place.mkdir()
        try:
            _run("mount", "-o", "loop", str(self._outer_image), str(self._outer))
        except AssertionError as error:
            pytest.skip(f"no loop device can be mounted here: {error}")
        _make_ext4(self._image, size_bytes)
        self._mount()

    def _mount(self) -> None:
        # The journal is not written for its age: it would hang with the disk, and whoever needs
        # a block that is being written to it, soon after.
        options = "loop,errors=remount-ro,commit=60"
        _run("mount", "-o", options, str(self._image), str(self.place))

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.place).free

    def fill(self, leave_bytes: int) -> None:
        """Somebody else's file takes all the room but ``leave_bytes``."""
        assert self.free_bytes > leave_bytes + _STEP_BYTES, f"only {self.free_bytes} bytes are free"
        with self._filler.open("wb") as filler:
            taken = self.free_bytes - leave_bytes
            while taken > 0:
                # The file's own map takes blocks as well.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(filler.fileno(), 0, taken)
                    break
                taken -= _STEP_BYTES
        assert self.free_bytes <= leave_bytes + 4 * _STEP_BYTES

    def free(self) -> None:
        """The other file goes."""
        self._filler.unlink()

    def stall(self) -> None:
        """The disk does not answer until `go_on`."""
        _run("fsfreeze", "-f", str(self._outer))

    def freeze(self) -> None:
        """Every write hangs until `go_on`."""
        _run("fsfreeze", "-f", str(self.place))

    def go_on(self) -> None:
        """The end of `stall` and `freeze`."""
        _run("fsfreeze", "-u", str(self._outer), may_fail=True)
        _run("fsfreeze", "-u", str(self.place), may_fail=True)

    def fail(self) -> None:
        """The kernel finds the file system broken: reads go on, writes get EROFS or EIO."""
        device = Path(_run("findmnt", "-n", "-o", "SOURCE", str(self.place))).name
        trigger = Path(f"/sys/fs/ext4/{device}/trigger_fs_error")
        if not trigger.exists():
            pytest.skip(f"this kernel has no {trigger}")
        trigger.write_text("raftkv test")

    def repair(self) -> None:
        """Unmount, check, mount again; nobody may be using it."""
        _run("umount", str(self.place))
        _run("e2fsck", "-f", "-y", str(self._image), may_fail=True)
        self._mount()

    def remove(self) -> None:
        """Whoever uses it must have been killed."""
        self.go_on()
        for place in (self.place, self._outer):
            if place.is_mount():
                _run("umount", "-l", str(place))
        self._outer_image.unlink(missing_ok=True)


class Volumes:
    """One `Volume` for each node of a cluster, by the node's name."""

    def __init__(self, directory: Path, count: int, size_bytes: int) -> None:
        self._by_name: dict[str, Volume] = {}
        with ExitStack() as undo:
            for number in range(1, count + 1):
                name = f"n{number}"
                self._by_name[name] = Volume(directory / name, size_bytes)
                undo.callback(self._by_name[name].remove)
            undo.pop_all()

    def of(self, node: NodeProcess) -> Volume:
        return self._by_name[node.name]

    def remove(self) -> None:
        for volume in self._by_name.values():
            volume.remove()


@contextlib.contextmanager
def volumes(directory: Path, count: int, size_bytes: int) -> Iterator[Volumes]:
    """Made before the nodes start, removed after they ended: enter it around the cluster."""
    made = Volumes(directory, count, size_bytes)
    try:
        yield made
    finally:
        made.remove()


def go_on(cluster: Cluster, made: Volumes) -> None:
    """To be called before nodes are killed: who hangs in the kernel does not go."""
    for node in cluster.nodes:
        made.of(node).go_on()
