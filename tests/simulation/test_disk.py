"""The simulated disk keeps the model that its docstring states."""

import errno
from random import Random

import pytest

from raftkv.storage.disk import (
    Allocate,
    DiskError,
    DiskOp,
    DiskResult,
    Fdatasync,
    FreeBytes,
    FsyncDir,
    Handle,
    Listdir,
    Mkdir,
    Open,
    Pread,
    Pwrite,
    Rename,
    Truncate,
    Unlink,
    WriteFrom,
)
from tests.simulation.disk import SECTOR_BYTES, Crash, SimDisk
from tests.storage.support import Blob

SEEDS = range(60)
OLD, NEW = b"o" * SECTOR_BYTES, b"n" * SECTOR_BYTES


def do(disk: SimDisk, op: DiskOp) -> DiskResult:
    (result,) = disk.perform((op,))
    return result


def open_file(disk: SimDisk, path: str) -> Handle:
    handle = do(disk, Open(path, create=True))
    assert isinstance(handle, int)
    return handle


def durable_file(disk: SimDisk, content: bytes) -> Handle:
    """A file ``f`` that survives everything."""
    handle = open_file(disk, "f")
    disk.perform((Pwrite(handle, 0, [content]), Fdatasync(handle), FsyncDir(".")))
    return handle


def after_power_loss(disk: SimDisk, seed: int) -> SimDisk:
    after = disk.clone()
    after.power_loss(Random(seed))
    return after


def test_what_was_synced_survives_power_loss() -> None:
    disk = SimDisk()
    durable_file(disk, OLD * 3)
    for seed in SEEDS:
        assert after_power_loss(disk, seed).read("f") == OLD * 3


def test_unsynced_sectors_are_old_new_or_garbage_each_on_its_own() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD * 4)
    do(disk, Pwrite(handle, SECTOR_BYTES, [NEW * 2]))
    assert disk.read("f") == OLD + NEW * 2 + OLD
    fates = set[tuple[str, str]]()
    for seed in range(200):
        content = after_power_loss(disk, seed).read("f")
        sectors = [
            content[at : at + SECTOR_BYTES] for at in range(0, 4 * SECTOR_BYTES, SECTOR_BYTES)
        ]
        assert (sectors[0], sectors[3]) == (OLD, OLD)
        first, second = ({OLD: "old", NEW: "new"}.get(s, "garbage") for s in sectors[1:3])
        fates.add((first, second))
    assert len(fates) == 9


def test_an_unsynced_size_is_old_or_new() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD)
    do(disk, Allocate(handle, 4096))
    assert {len(after_power_loss(disk, seed).read("f")) for seed in SEEDS} == {512, 4096}
    disk.perform((Fdatasync(handle), Truncate(handle, 100)))
    assert {len(after_power_loss(disk, seed).read("f")) for seed in SEEDS} == {100, 4096}
    do(disk, Fdatasync(handle))
    assert {after_power_loss(disk, seed).read("f") for seed in SEEDS} == {OLD[:100]}


def test_unsynced_names_are_kept_or_lost_one_by_one() -> None:
    disk = SimDisk()
    durable_file(disk, OLD)
    handle = open_file(disk, "g.tmp")
    disk.perform((Pwrite(handle, 0, [NEW]), Fdatasync(handle)))
    disk.perform((Rename("g.tmp", "g"), Unlink("f")))
    assert disk.paths() == ["g"]
    seen = {tuple(after_power_loss(disk, seed).paths()) for seed in range(100)}
    assert seen == {("f",), (), ("f", "g.tmp"), ("g.tmp",), ("f", "g"), ("g",)}
    do(disk, FsyncDir("."))
    assert {tuple(after_power_loss(disk, seed).paths()) for seed in SEEDS} == {("g",)}


def test_a_rename_over_a_file_leaves_one_of_the_two_whole() -> None:
    disk = SimDisk()
    durable_file(disk, OLD)
    handle = open_file(disk, "f.tmp")
    disk.perform((Pwrite(handle, 0, [NEW]), Fdatasync(handle), Rename("f.tmp", "f")))
    assert {after_power_loss(disk, seed).read("f") for seed in SEEDS} == {OLD, NEW}


def test_a_directory_is_lost_with_what_is_in_it() -> None:
    disk = SimDisk()
    do(disk, Mkdir("d"))
    handle = open_file(disk, "d/f")
    disk.perform((Pwrite(handle, 0, [NEW]), Fdatasync(handle), FsyncDir("d")))
    assert {tuple(after_power_loss(disk, seed).paths()) for seed in SEEDS} == {(), ("d/f",)}
    do(disk, FsyncDir("."))
    assert {tuple(after_power_loss(disk, seed).paths()) for seed in SEEDS} == {("d/f",)}


def test_a_kill_keeps_what_was_written_and_ends_the_handles() -> None:
    disk = SimDisk()
    handle = open_file(disk, "f")
    do(disk, Pwrite(handle, 0, [NEW]))
    disk.kill()
    assert disk.read("f") == NEW
    with pytest.raises(DiskError) as raised:
        do(disk, Pread(handle, 0, 1))
    assert raised.value.errno == errno.EBADF


def test_after_a_failed_sync_a_second_one_saves_nothing() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD)
    do(disk, Pwrite(handle, 0, [NEW]))
    disk.fail_at(disk.op_count + 1, errno.EIO)
    with pytest.raises(DiskError):
        do(disk, Fdatasync(handle))
    do(disk, Fdatasync(handle))
    assert disk.read("f") == NEW
    assert OLD in {after_power_loss(disk, seed).read("f") for seed in SEEDS}
    # Written once more, it is an ordinary unsynced write.
    disk.perform((Pwrite(handle, 0, [NEW]), Fdatasync(handle)))
    assert {after_power_loss(disk, seed).read("f") for seed in SEEDS} == {NEW}


def test_faults_hit_the_operation_they_name() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD)
    disk.fail_at(disk.op_count + 2, errno.ENOSPC)
    disk.crash_at(disk.op_count + 4)
    disk.perform((Pread(handle, 0, 1),))
    with pytest.raises(DiskError, match="pwrite failed: No space left on device"):
        disk.perform((Pwrite(handle, 0, [NEW]), Unlink("f")))
    assert disk.read("f") == OLD
    do(disk, Listdir("."))
    with pytest.raises(Crash):
        do(disk, Pwrite(handle, 0, [NEW]))
    half = SECTOR_BYTES // 2
    assert disk.read("f") == NEW[:half] + OLD[half:]


def test_what_a_source_writes_is_a_write_like_any_other() -> None:
    disk = SimDisk(capacity_bytes=4 * SECTOR_BYTES)
    handle = durable_file(disk, OLD * 3)
    assert do(disk, WriteFrom(handle, SECTOR_BYTES, Blob(NEW * 2))) == 2 * SECTOR_BYTES
    assert disk.read("f") == OLD + NEW * 2
    assert len({after_power_loss(disk, seed).read("f") for seed in SEEDS}) > 4
    with pytest.raises(DiskError, match="No space left on device"):
        do(disk, WriteFrom(handle, SECTOR_BYTES, Blob(NEW * 4)))
    disk.crash_at(disk.op_count + 1)
    with pytest.raises(Crash):
        do(disk, WriteFrom(handle, 0, Blob(b"x" * SECTOR_BYTES)))
    half = SECTOR_BYTES // 2
    assert disk.read("f") == b"x" * half + OLD[half:] + NEW * 2


def test_a_full_disk_refuses_growth_and_heals() -> None:
    disk = SimDisk(capacity_bytes=1000)
    handle = open_file(disk, "f")
    assert do(disk, FreeBytes(".")) == 1000
    do(disk, Pwrite(handle, 0, [bytes(800)]))
    for op in (Pwrite(handle, 800, [bytes(201)]), Allocate(handle, 1001)):
        with pytest.raises(DiskError) as raised:
            do(disk, op)
        assert raised.value.errno == errno.ENOSPC
    disk.perform((Pwrite(handle, 0, [bytes(1000)]), Truncate(handle, 10)))
    assert do(disk, FreeBytes(".")) == 990


def test_a_clone_goes_its_own_way() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD)
    do(disk, Pwrite(handle, 0, [NEW]))
    clone = disk.clone()
    disk.perform((Pwrite(handle, 0, [b"x"]), Unlink("f")))
    assert clone.read("f") == NEW
    assert do(clone, Pread(handle, 0, 4)) == b"nnnn"


def test_the_same_seed_gives_the_same_loss() -> None:
    disk = SimDisk()
    handle = durable_file(disk, OLD * 8)
    do(disk, Pwrite(handle, 0, [NEW * 8]))
    first, second = after_power_loss(disk, 5), after_power_loss(disk, 5)
    assert first.read("f") == second.read("f")
