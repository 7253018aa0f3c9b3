"""The real disk, on a real file system, beside the simulated one."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.raft.messages import HardState
from raftkv.storage.disk import (
    Allocate,
    Close,
    Disk,
    DiskError,
    DiskOp,
    Fdatasync,
    FreeBytes,
    FsyncDir,
    Listdir,
    Mkdir,
    Open,
    Pread,
    Pwrite,
    Rename,
    Truncate,
    Unlink,
    run_task,
)
from raftkv.storage.errors import (
    DirectoryLockedError,
    DirectoryUnusableError,
    ForeignDirectoryError,
)
from raftkv.storage.identity import adopt_cluster
from raftkv.storage.os_disk import OsDisk
from raftkv.storage.recovery import Recovered, open_storage
from tests.simulation.disk import SimDisk
from tests.storage.support import make_entries

# ---- the same operations on both disks -----------------------------------------------------

PATHS = st.sampled_from(["a", "b", "d/a", "d/b", "d", "./a", "f", "missing/a"])
SLOTS = st.integers(0, 2)  # which of the handles opened so far
SIZES = st.integers(0, 3000)
OPS = st.one_of(
    st.tuples(st.just(Open), PATHS, st.booleans(), st.booleans()),
    st.tuples(st.just(Close), SLOTS),
    st.tuples(st.just(Pread), SLOTS, SIZES, SIZES),
    st.tuples(st.just(Pwrite), SLOTS, SIZES, st.lists(st.binary(max_size=1500), max_size=3)),
    st.tuples(st.just(Allocate), SLOTS, SIZES),
    st.tuples(st.just(Truncate), SLOTS, SIZES),
    st.tuples(st.just(Fdatasync), SLOTS),
    st.tuples(st.just(Unlink), PATHS),
    st.tuples(st.just(Mkdir), st.sampled_from(["d", "f", "missing/d"])),
    st.tuples(st.just(Listdir), st.sampled_from([".", "d", "f", "missing"])),
    st.tuples(st.just(FsyncDir), st.sampled_from([".", "d", "missing"])),
    st.sampled_from(
        [(Rename, "a", "b"), (Rename, "d/a", "d/b"), (Rename, "b", "a"), (Rename, "c", "a")]
    ),
)


def outcome(disk: Disk, script: list[tuple[Any, ...]]) -> list[object]:
    """What each operation of ``script`` gives: its result, or the error's number."""
    handles: list[int] = []
    outcomes: list[object] = []
    for kind, *arguments in script:
        if kind in (Close, Pread, Pwrite, Allocate, Truncate, Fdatasync):
            if not handles:
                continue
            arguments[0] = handles[arguments[0] % len(handles)]
        op: DiskOp = kind(*arguments)
        try:
            (result,) = disk.perform((op,))
        except DiskError as error:
            outcomes.append((error.op == op, kind.__name__, error.errno, error.reason))
            continue
        if isinstance(op, Open):
            assert isinstance(result, int)
            handles.append(result)
            result = None
        elif isinstance(op, Close):
            handles.remove(op.handle)
        outcomes.append((kind.__name__, result))
    for handle in handles:
        disk.perform((Close(handle),))
    return outcomes


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPS, max_size=25))
def test_both_disks_answer_alike(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[Any, ...]]
) -> None:
    root = tmp_path_factory.mktemp("disk")
    assert outcome(OsDisk(str(root)), script) == outcome(SimDisk(), script)


def lives(disk: Disk) -> list[Recovered]:
    """Two processes one after the other, over several segments."""
    recovered = run_task(disk, open_storage(Random(1), segment_bytes=4096))
    run_task(disk, adopt_cluster(recovered.identity, "c1", None))
    for index in range(1, 30):
        entries = make_entries(index, 1, size=index * 20)
        run_task(disk, recovered.wal.append(HardState(1, 2, index - 1), entries))
    again = run_task(disk, open_storage(Random(2), segment_bytes=4096))
    return [recovered, again]


def test_the_log_writes_the_same_files_on_both_disks(tmp_path: Path) -> None:
    sim = SimDisk()
    sim_lives, os_lives = lives(sim), lives(OsDisk(str(tmp_path)))
    for left, right in zip(sim_lives, os_lives, strict=True):
        assert (left.identity, left.hard_state, left.entries) == (
            right.identity,
            right.hard_state,
            right.entries,
        )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sim.paths() == sorted(str(path.relative_to(tmp_path)) for path in files)
    for path in files:
        assert sim.read(str(path.relative_to(tmp_path))) == path.read_bytes()


# ---- what only the real one does -----------------------------------------------------------


def test_files_are_for_the_nodes_user_only(tmp_path: Path) -> None:
    lives(OsDisk(str(tmp_path)))
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_write_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, offset: real(fd, [bytes(parts[0][:7])], offset)
    )
    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    chunks = [b"", bytes(range(20)), b"", b"x" * 15, b"end"]
    _, content, _ = disk.perform((Pwrite(handle, 3, chunks), Pread(handle, 0, 99), Close(handle)))
    assert content == bytes(3) + b"".join(chunks)


def test_a_write_of_more_parts_than_one_call_takes(tmp_path: Path) -> None:
    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    chunks = [bytes([number % 256]) for number in range(3000)]
    _, content, _ = disk.perform((Pwrite(handle, 0, chunks), Pread(handle, 0, 5000), Close(handle)))
    assert content == b"".join(chunks)


def test_allocate_reserves_blocks(tmp_path: Path) -> None:
    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    disk.perform((Allocate(handle, 1 << 20), Allocate(handle, 1 << 10), Close(handle)))
    status = (tmp_path / "f").stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 >= 1 << 20


def test_free_bytes_are_what_the_file_system_says(tmp_path: Path) -> None:
    (free,) = OsDisk(str(tmp_path)).perform((FreeBytes("."),))
    assert isinstance(free, int)
    assert 0 < free <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_rule_05_a_failed_sync_is_reported_once_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fdatasync(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(DiskError, match="fdatasync failed: Input/output error") as raised:
        disk.perform((Pwrite(handle, 0, [b"x"]), Fdatasync(handle), Truncate(handle, 0)))
    assert raised.value.errno == errno.EIO
    assert calls == [handle]
    assert (tmp_path / "f").read_bytes() == b"x"  # what came after was not performed
    disk.perform((Close(handle),))


# ---- the directory -------------------------------------------------------------------------


def test_a_missing_directory_is_made_and_locked(tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    disk = OsDisk(str(root))
    disk.lock()
    assert (root / "lock").exists()
    disk.close()


def test_a_directory_serves_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from raftkv.storage.errors import StorageError\n"
        "from raftkv.storage.os_disk import OsDisk\n"
        "try:\n    OsDisk(sys.argv[1]).lock()\n"
        "except StorageError as error:\n    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    disk = OsDisk(str(tmp_path))
    disk.lock()
    with pytest.raises(DirectoryLockedError):
        OsDisk(str(tmp_path)).lock()
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"the data directory {tmp_path} is in use by another process: "
        "two nodes must never share one\n"
    )
    disk.close()
    subprocess.run(command, check=True, timeout=30)


def test_a_foreign_directory_gets_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ForeignDirectoryError, match=r"holds 'thesis\.tex'"):
        OsDisk(str(tmp_path)).lock()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(
        DirectoryUnusableError, match=f"{path} cannot be used: it is not a directory"
    ):
        OsDisk(str(path)).lock()
    with pytest.raises(DirectoryUnusableError, match="Not a directory"):
        OsDisk(str(path / "below")).lock()
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("function", "number", "reason"),
    [
        ("listdir", errno.EACCES, "Permission denied"),
        ("open", errno.EROFS, "Read-only file system"),
        ("mkdir", errno.EACCES, "Permission denied"),
    ],
)
def test_a_directory_that_cannot_be_read_or_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, reason: str
) -> None:
    # Simulated: the tests may run as root, whom no mode bits stop.
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, refuse)
    disk = OsDisk(str(tmp_path / "data"))
    with monkeypatch.context(), pytest.raises(DirectoryUnusableError) as raised:
        disk.lock()
    assert str(raised.value) == f"the data directory {tmp_path / 'data'} cannot be used: {reason}"
