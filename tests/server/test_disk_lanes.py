"""Both ways to wait for the disk, with a kernel that the test plays, and with the real one."""

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from caio import linux_aio

from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.server.disk_lanes import LOOP_WRITE_BYTES_MAX, WalLane
from raftkv.storage import kernel_sync
from raftkv.storage.disk import (
    DiskError,
    DiskOp,
    DiskOps,
    DiskResult,
    Fdatasync,
    FsyncDir,
    Handle,
    Open,
    Pwrite,
)
from raftkv.storage.kernel_sync import Done, KernelSync, open_kernel_sync
from raftkv.storage.os_disk import OsDisk
from tests.server.fakes import Observed
from tests.server.waiting import until

BOTH_LOOPS = True

HANDLE = 7
NO_SPACE = DiskError(Pwrite(HANDLE, 0, []), errno.ENOSPC, "No space left on device")
BROKEN = DiskError(Fdatasync(HANDLE), errno.EIO, "Input/output error")

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has an fdatasync that the kernel waits for"
)


def log_write(number: int, size: int = 512) -> SubmitDisk:
    """As `Wal.append` submits it."""
    return SubmitDisk(number, (Pwrite(HANDLE, number * size, [bytes(size)]), Fdatasync(HANDLE)))


def other(number: int) -> SubmitDisk:
    return SubmitDisk(number, (FsyncDir(str(number)),))


class ScriptedKernel:
    """Syncs end when the test says so."""

    def __init__(self) -> None:
        self.takes = True
        self.started: list[Fdatasync] = []
        self._done: Done | None = None
        self._answer: DiskError | None = None
        self.fileno, self._writer = os.pipe()

    def start(self, op: Fdatasync, done: Done) -> bool:
        assert self._done is None, "one at a time"
        if self.takes:
            self.started.append(op)
            self._done = done
        return self.takes

    def end(self, error: DiskError | None = None) -> None:
        assert self._done is not None
        self._answer = error
        os.write(self._writer, b"!")

    def collect(self) -> None:
        os.read(self.fileno, 1)
        done, self._done = self._done, None
        assert done is not None
        done(self._answer)

    def close(self) -> None:
        os.close(self.fileno)
        os.close(self._writer)


class Recorder:
    """A disk that does nothing, and remembers what it was asked in which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, DiskOp]] = []
        self.fails: DiskError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._loop_thread = threading.get_ident()

    def perform(self, ops: DiskOps) -> list[DiskResult]:
        is_loop = threading.get_ident() == self._loop_thread
        assert is_loop or self.gate.wait(10)
        self.seen += [("loop" if is_loop else "thread", op) for op in ops]
        if self.fails is not None:
            raise self.fails
        return [None] * len(ops)

    def kernel_sync(self) -> KernelSync | None:
        return None


class Setting:
    def __init__(self) -> None:
        self.disk = Recorder()
        self.kernel = ScriptedKernel()
        self.done: list[DiskDone] = []
        self.synced = Observed()
        self.lane = WalLane(self.disk, self.done.append, self.synced.observe)
        self.lane.use_kernel(self.kernel)

    @property
    def ended(self) -> list[int]:
        return [done.submission for done in self.done]


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    yield setting
    setting.disk.gate.set()
    setting.lane.close()
    setting.kernel.close()


async def test_rule_26_the_kernel_waits_for_a_write_of_the_log(setting: Setting) -> None:
    write = log_write(1)
    setting.lane.submit(write)
    assert setting.disk.seen == [("loop", write.ops[0])]
    assert setting.kernel.started == [Fdatasync(HANDLE)]
    assert (setting.lane.is_idle, setting.ended) == (False, [])
    setting.kernel.end()
    await until("it is durable", lambda: setting.done)
    assert setting.done == [DiskDone(1, [None, None])]
    assert setting.lane.is_idle
    assert len(setting.synced) == 1


async def test_rule_05_nothing_is_written_while_the_fdatasync_runs(setting: Setting) -> None:
    for submission in (log_write(1), other(2), log_write(3), log_write(4)):
        setting.lane.submit(submission)
    assert len(setting.disk.seen) == 1
    setting.kernel.end()
    # The second goes to the thread, and what comes behind it as well: it must not overtake.
    await until("all done", lambda: setting.lane.is_idle)
    assert setting.ended == [1, 2, 3, 4]
    assert [where for where, _ in setting.disk.seen] == ["loop", *["thread"] * 5]
    setting.lane.submit(log_write(5))
    assert setting.disk.seen[-1] == ("loop", log_write(5).ops[0])
    setting.kernel.end()
    await until("the last is done", lambda: setting.lane.is_idle)


async def test_a_write_waits_behind_what_a_thread_is_doing(setting: Setting) -> None:
    setting.disk.gate.clear()
    setting.lane.submit(other(1))
    setting.lane.submit(log_write(2))
    assert setting.disk.seen == []
    setting.disk.gate.set()
    await until("both done", lambda: setting.ended == [1, 2])
    assert setting.kernel.started == []


async def test_what_is_long_or_not_a_write_of_the_log_goes_to_the_thread(setting: Setting) -> None:
    longest = log_write(1, LOOP_WRITE_BYTES_MAX)
    too_long = log_write(2, LOOP_WRITE_BYTES_MAX + 1)
    segment = SubmitDisk(3, (Open("wal/1"), *log_write(3).ops))
    setting.lane.submit(longest)
    setting.kernel.end()
    await until("the longest", lambda: setting.lane.is_idle)
    for submission in (too_long, segment):
        setting.lane.submit(submission)
        await until("in the thread", lambda: setting.lane.is_idle)
    assert [where for where, _ in setting.disk.seen] == ["loop", *["thread"] * 5]
    assert len(setting.synced) == 3


async def test_without_a_kernel_that_waits_all_goes_to_the_thread() -> None:
    disk, done = Recorder(), list[DiskDone]()
    lane = WalLane(disk, done.append, Observed().observe)
    lane.submit(log_write(1))
    await until("done", lambda: done == [DiskDone(1, [None, None])])
    assert [where for where, _ in disk.seen] == ["thread", "thread"]
    lane.close()


async def test_what_the_kernel_does_not_take_is_done_by_the_thread(setting: Setting) -> None:
    setting.kernel.takes = False
    setting.lane.submit(log_write(1))
    await until("done", lambda: setting.done == [DiskDone(1, [None, None])])
    assert [where for where, _ in setting.disk.seen] == ["loop", "thread", "thread"]


async def test_a_full_disk_is_the_nodes_business(setting: Setting) -> None:
    setting.disk.fails = NO_SPACE
    setting.lane.submit(log_write(1))
    await until("told", lambda: setting.done == [DiskDone(1, NO_SPACE)])
    assert setting.kernel.started == []


async def test_rule_05_a_failed_fdatasync_is_the_nodes_business(setting: Setting) -> None:
    setting.lane.submit(log_write(1))
    setting.kernel.end(BROKEN)
    await until("told", lambda: setting.done == [DiskDone(1, BROKEN)])


async def test_rule_12_it_is_known_for_how_long_the_kernel_waits(setting: Setting) -> None:
    assert setting.lane.oldest_age_seconds() == 0.0
    setting.lane.submit(log_write(1))
    await until("it ages", lambda: setting.lane.oldest_age_seconds() > 0.01)
    setting.kernel.end()
    await until("it ended", lambda: setting.lane.is_idle)
    assert setting.lane.oldest_age_seconds() == 0.0


# ---- the real one ---------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Handle]:
    handle = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def opened(handle: Handle) -> KernelSync:
    sync = open_kernel_sync(handle)
    if sync is None:
        pytest.skip("this system does not let us: a sandbox, or a file system without it")
    return sync


@needs_linux
async def test_the_kernel_makes_writes_durable_one_after_the_other(tmp_path: Path) -> None:
    disk = OsDisk(str(tmp_path))
    disk.lock()
    kernel = disk.kernel_sync()
    if kernel is None:
        pytest.skip("this system does not let us: a sandbox, or a file system without it")
    done = list[DiskDone]()
    lane = WalLane(disk, done.append, Observed().observe)
    lane.use_kernel(kernel)
    (handle,) = disk.perform((Open("log", create=True),))
    assert isinstance(handle, int)
    for number in range(50):
        write = Pwrite(handle, number, [b"%d" % (number % 10)])
        lane.submit(SubmitDisk(number, (write, Fdatasync(handle))))
    await until("all are durable", lambda: len(done) == 50)
    assert done == [DiskDone(number, [None, None]) for number in range(50)]
    assert (tmp_path / "log").read_bytes() == b"0123456789" * 5
    lane.close()
    disk.close()


@needs_linux
async def test_a_handle_that_is_none_is_not_taken(file: Handle) -> None:
    sync = opened(file)
    reader, writer = os.pipe()
    for handle in (reader, 1 << 20):
        assert not sync.start(Fdatasync(handle), lambda _: None)
    os.close(reader)
    os.close(writer)
    assert open_kernel_sync(1 << 20) is None
    ended: list[DiskError | None] = []
    assert sync.start(Fdatasync(file), ended.append)
    asyncio.get_running_loop().add_reader(sync.fileno, sync.collect)
    await until("the next one is", lambda: ended == [None])
    asyncio.get_running_loop().remove_reader(sync.fileno)


@needs_linux
async def test_a_failure_that_the_kernel_reports_keeps_its_number(file: Handle) -> None:
    sync = opened(file)
    ended: list[DiskError | None] = []
    assert sync.start(Fdatasync(file), ended.append)
    assert isinstance(sync, kernel_sync.LinuxKernelSync)
    sync._ended((1 << 64) - errno.EIO)  # as caio hands over what the kernel said
    sync.collect()
    (error,) = ended
    assert error is not None
    assert (error.op, error.errno, error.reason) == (
        Fdatasync(file),
        errno.EIO,
        "Input/output error",
    )


@needs_linux
async def test_a_signal_is_no_failure(file: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(file)
    calls = []

    class Interrupted:
        """The kernel's context, when a signal comes before each completion."""

        def __init__(self, size: int) -> None:
            self._context = linux_aio.Context(size)
            self.fileno, self.poll = self._context.fileno, self._context.poll
            self.submit = self._context.submit

        def process_events(self, *arguments: int) -> int:
            calls.append(arguments)
            if len(calls) % 2:
                raise SystemError(errno.EINTR, "Interrupted system call")
            return self._context.process_events(*arguments)

    replaced = SimpleNamespace(Context=Interrupted, Operation=linux_aio.Operation)
    monkeypatch.setattr(kernel_sync, "linux_aio", replaced)
    sync = open_kernel_sync(file)
    assert sync is not None
    assert len(calls) == 2
    ended: list[DiskError | None] = []
    assert sync.start(Fdatasync(file), ended.append)
    asyncio.get_running_loop().add_reader(sync.fileno, sync.collect)
    await until("it ended", lambda: ended)
    asyncio.get_running_loop().remove_reader(sync.fileno)
    assert ended == [None]


@needs_linux
async def test_what_is_raised_when_a_sync_has_ended_is_not_lost(file: Handle) -> None:
    sync = opened(file)

    def done(_: DiskError | None) -> None:
        raise ZeroDivisionError

    assert sync.start(Fdatasync(file), done)
    with pytest.raises(ZeroDivisionError):
        await until("it is raised", sync.collect)


@needs_linux
async def test_a_system_that_forbids_it_is_found_out_at_the_start(
    file: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: int) -> None:
        raise SystemError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("caio.linux_aio.Context", forbidden)
    assert open_kernel_sync(file) is None
    monkeypatch.setattr(kernel_sync, "linux_aio", None)  # as caio says it, if it tried first
    assert open_kernel_sync(file) is None
