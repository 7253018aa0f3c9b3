"""The real disk, on a real file system, beside the simulated one."""

import errno
import fcntl
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from raftkv.raft.messages import EntryId, HardState
from raftkv.storage import os_disk
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
    ReadInto,
    Rename,
    Truncate,
    Unlink,
    WriteFrom,
    run_task,
)
from raftkv.storage.errors import (
    DirectoryLockedError,
    DirectoryUnusableError,
    ForeignDirectoryError,
)
from raftkv.storage.identity import adopt_cluster
from raftkv.storage.os_disk import OsDisk, _WholeFile
from raftkv.storage.recovery import Recovered, open_storage
from raftkv.storage.snapshots import remove_older_than
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    Blob,
    BlobReader,
    make_entries,
    make_snapshot,
    receive,
    sent_snapshot,
    state_of,
)

# ---- the same operations on both disks -----------------------------------------------------

PATHS = st.sampled_from(["a", "b", "d/a", "d/b", "d", "./a", "f", "missing/a"])
SLOTS = st.integers(0, 2)  # which of the handles opened so far
SIZES = st.integers(0, 3000)
OPS = st.one_of(
    st.tuples(st.just(Open), PATHS, st.booleans(), st.booleans()),
    st.tuples(st.just(Close), SLOTS),
    st.tuples(st.just(Pread), SLOTS, SIZES, SIZES),
    st.tuples(st.just(Pwrite), SLOTS, SIZES, st.lists(st.binary(max_size=1500), max_size=3)),
    st.tuples(st.just(WriteFrom), SLOTS, SIZES, st.builds(Blob, st.binary(max_size=1500))),
    st.tuples(st.just(ReadInto), SLOTS, SIZES, SIZES),
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
        if kind in (Close, Pread, Pwrite, WriteFrom, ReadInto, Allocate, Truncate, Fdatasync):
            if not handles:
                continue
            arguments[0] = handles[arguments[0] % len(handles)]
        if kind is ReadInto:
            arguments.append(BlobReader())
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
        elif isinstance(op, ReadInto):
            assert isinstance(op.sink, BlobReader)
            outcomes.append(op.sink.content)
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
    """Four processes one after the other, over several segments and two snapshots."""
    recovered = run_task(disk, open_storage(Random(1), segment_bytes=4096))
    run_task(disk, adopt_cluster(recovered.identity, "c1", None))
    for index in range(1, 30):
        entries = make_entries(index, 1, size=index * 20)
        run_task(disk, recovered.wal.append(HardState(1, 2, index - 1), entries))
    again = run_task(disk, open_storage(Random(2), segment_bytes=4096))
    info = run_task(disk, make_snapshot(EntryId(1, 20), size=3 << 20))
    run_task(disk, again.wal.append_snapshot(info, installs=False))
    run_task(disk, again.wal.drop_before(20))
    third = run_task(disk, open_storage(Random(3), segment_bytes=4096))
    info = run_task(disk, receive(sent_snapshot(EntryId(2, 70))))
    run_task(disk, third.wal.append_snapshot(info, installs=True))
    run_task(disk, third.wal.drop_before(70))
    run_task(disk, remove_older_than(info.name))
    fourth = run_task(disk, open_storage(Random(4), segment_bytes=4096))
    return [recovered, again, third, fourth]


def test_the_log_writes_the_same_files_on_both_disks(tmp_path: Path) -> None:
    sim = SimDisk()
    sim_lives, os_lives = lives(sim), lives(OsDisk(str(tmp_path)))
    for left, right in zip(sim_lives, os_lives, strict=True):
        assert (left.identity, state_of(left), left.snapshot) == (
            right.identity,
            state_of(right),
            right.snapshot,
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


@dataclass(frozen=True)
class Copying:
    """A library that writes to, and reads from, a descriptor."""

    flags: list[int]  # of the descriptors

    def write_to(self, file: BinaryIO) -> None:
        self.flags.append(fcntl.fcntl(file.fileno(), fcntl.F_GETFL))
        assert os.write(file.fileno(), b"by descriptor") == 13

    def read_from(self, file: BinaryIO, size: int) -> None:
        self.flags.append(fcntl.fcntl(file.fileno(), fcntl.F_GETFL))
        assert os.read(file.fileno(), size) == b"descriptor"


def test_rule_11_a_library_writes_to_the_descriptor_at_the_disks_pace(
    tmp_path: Path,
) -> None:
    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    library = Copying([])
    size, _, content, _ = disk.perform(
        (
            WriteFrom(handle, 100, library),
            ReadInto(handle, 103, 10, library),
            Pread(handle, 98, 99),
            Close(handle),
        )
    )
    assert (size, content) == (13, bytes(2) + b"by descriptor")
    # Each of its writes waits for the disk.
    assert [bool(flags & os.O_DSYNC) for flags in library.flags] == [True, False]


@dataclass(frozen=True)
class Pieces:
    """A source that writes as a careless one does: whatever write returns."""

    content: bytes

    def write_to(self, file: BinaryIO) -> None:
        assert file.write(memoryview(self.content)) == len(self.content)


def test_a_source_need_not_care_about_writes_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ShortFileIO(io.FileIO):
        @override
        def write(self, data: Any, /) -> int:
            return super().write(bytes(data)[:1000])

    class WholeFile(_WholeFile, ShortFileIO):
        """`super().write` in the first is the second's."""

    monkeypatch.setattr(os_disk, "_WholeFile", WholeFile)
    disk = OsDisk(str(tmp_path))
    (handle,) = disk.perform((Open("f", create=True),))
    assert isinstance(handle, int)
    content = bytes(range(256)) * 20
    assert disk.perform((WriteFrom(handle, 7, Pieces(content)), Close(handle)))[0] == len(content)
    assert (tmp_path / "f").read_bytes() == bytes(7) + content


@dataclass(frozen=True)
class Broken:
    """A source and sink that fails."""

    error: Exception

    def write_to(self, file: BinaryIO) -> None:
        raise self.error

    def read_from(self, file: BinaryIO, size: int) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "number", "reason"),
    [
        (RuntimeError("no page"), None, "RuntimeError: no page"),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC, "full"),
    ],
)
def test_what_a_source_or_sink_raises_is_the_operations_failure(
    tmp_path: Path, error: Exception, number: int | None, reason: str
) -> None:
    for disk in (OsDisk(str(tmp_path)), SimDisk()):
        (handle,) = disk.perform((Open("f", create=True),))
        assert isinstance(handle, int)
        ops: list[DiskOp] = [
            WriteFrom(handle, 0, Broken(error)),
            ReadInto(handle, 0, 1, Broken(error)),
        ]
        for op in ops:
            with pytest.raises(DiskError) as raised:
                disk.perform((op,))
            assert (raised.value.op, raised.value.errno) == (op, number)
            assert raised.value.reason == reason
        disk.perform((Close(handle),))


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
