"""Kill and power loss at every disk operation: what was acknowledged is always there.

The workloads (`tests.storage.promises`) count what they were told is durable. A crash may keep or
lose what was under way, nothing else.
"""

import errno
from collections.abc import Callable
from itertools import product
from random import Random
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftkv.raft.messages import EntryId, HardState
from raftkv.storage.disk import DiskError, DiskResult, DiskTask, Rename, run_task
from raftkv.storage.errors import SnapshotRefusedError
from raftkv.storage.identity import adopt_cluster
from raftkv.storage.record import HEADER_BYTES, SECTOR_BYTES
from raftkv.storage.snapshots import SnapshotInfo, remove_older_than
from tests.simulation.disk import Crash, SimDisk
from tests.storage.promises import (
    CONF,
    Promised,
    Workload,
    cut_short,
    install_snapshots,
    op_total,
    take_snapshots,
    write_log,
)
from tests.storage.support import (
    LogState,
    blob_of,
    found_on,
    frames_of,
    load_blob,
    make_entries,
    make_snapshot,
    open_on,
    receive,
    restart,
    segment_path,
    sent_snapshot,
    state_of,
)

T = TypeVar("T")

WORKLOADS = [write_log, take_snapshots, install_snapshots]


def rename_temporary_identity() -> DiskTask[None]:
    """What a process does that goes on after a failed sync."""
    yield (Rename("identity.tmp", "identity"),)


def kill(disk: SimDisk, seed: int) -> None:
    """The process ended."""
    del seed
    disk.kill()


def power_loss(disk: SimDisk, seed: int) -> None:
    """The machine ended."""
    disk.power_loss(Random(seed))


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(
    ("end", "seeds"),
    [(kill, 1), (power_loss, 4), pytest.param(power_loss, 12, marks=pytest.mark.long)],
)
def test_what_was_acknowledged_survives_a_crash_at_every_operation(
    workload: Workload, end: Callable[[SimDisk, int], None], seeds: int
) -> None:
    for op_number in range(1, op_total(workload) + 1):
        crashed, promised = cut_short(workload, op_number)
        for seed in range(seeds):
            disk = crashed.clone()
            end(disk, seed)
            promised.check(disk)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("first_end", [kill, power_loss])
@pytest.mark.parametrize("second_end", [pytest.param(kill, marks=pytest.mark.long), power_loss])
def test_what_was_acknowledged_survives_a_crash_at_every_operation_of_recovery(
    workload: Workload,
    first_end: Callable[[SimDisk, int], None],
    second_end: Callable[[SimDisk, int], None],
) -> None:
    # A second kill can do little that a second power loss cannot: sampled, for time's sake. So
    # are the longer workloads, each half of them by one kind of first end.
    step = 4 if second_end is kill else 1 if workload is write_log else 2
    start = 1 + (first_end is kill and step > 1)
    for op_number in range(start, op_total(workload) + 1, step):
        crashed, promised = cut_short(workload, op_number)
        first_end(crashed, op_number)
        whole = crashed.clone()
        open_on(whole, seed=2)
        for recovery_op_number in range(crashed.op_count + 1, whole.op_count + 1):
            disk = crashed.clone()
            disk.crash_at(recovery_op_number)
            with pytest.raises(Crash):
                open_on(disk, seed=2)
            second_end(disk, recovery_op_number)
            promised.check(disk)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("end", [kill, power_loss])
def test_what_was_acknowledged_survives_a_failure_of_every_operation(
    workload: Workload, number: int, end: Callable[[SimDisk, int], None]
) -> None:
    refused = 0
    for op_number in range(1, op_total(workload) + 1):
        disk, promised = SimDisk(), Promised()
        disk.fail_at(op_number, number)
        try:
            workload(disk, promised)
        except DiskError:
            pass
        except SnapshotRefusedError:
            refused += 1
            # The process goes on as if nothing had been.
            assert not [path for path in disk.paths() if path.endswith(".tmp")]
        else:
            pytest.fail(f"the failure of operation {op_number} went unnoticed")
        end(disk, op_number)
        promised.check(disk)
    assert (refused > 0) is (number == errno.ENOSPC and workload is not write_log)


def test_rule_06_what_recovery_read_is_durable_before_it_is_relied_on() -> None:
    # The disk refuses to sync a write, the process ends. The next one reads the write from the
    # page cache, where it will never leave from by itself, and must not lose it again.
    disk = SimDisk()
    recovered = found_on(disk)
    disk.fail_at(disk.op_count + 2, errno.EIO)
    with pytest.raises(DiskError):
        run_task(disk, recovered.wal.append(HardState(4, 7, 0), make_entries(1, 3)))
    seen = state_of(restart(disk))
    assert seen == LogState(HardState(4, 7, 0), tuple(make_entries(1, 3)))
    for seed in range(20):
        after = disk.clone()
        after.power_loss(Random(seed))
        assert state_of(open_on(after)) == seen


def test_rule_06_the_identity_that_recovery_read_is_durable_too() -> None:
    disk = SimDisk()
    recovered = open_on(disk)
    disk.fail_at(disk.op_count + 5, errno.EIO)
    with pytest.raises(DiskError, match="fdatasync"):
        run_task(disk, adopt_cluster(recovered.identity, "c1", CONF))
    # Renamed all the same, as a process that ignores errors would have.
    run_task(disk, rename_temporary_identity())
    seen = restart(disk).identity
    assert seen.cluster_id == "c1"
    for seed in range(20):
        after = disk.clone()
        after.power_loss(Random(seed))
        assert open_on(after).identity == seen


def test_rule_07_every_mix_of_old_new_and_garbage_sectors_is_a_torn_tail() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    run_task(disk, wal.append(HardState(1, 7, 0), make_entries(1, 2)))
    before = LogState(HardState(1, 7, 0), tuple(make_entries(1, 2)))
    path = segment_path("00000001.active")
    old = disk.read(path)
    last_write = make_entries(3, 2, size=800)
    run_task(disk, wal.append(None, last_write))
    new = disk.read(path)
    frame = list(frames_of(new))[-1]
    sectors = range(frame.offset, frame.end, SECTOR_BYTES)
    assert len(sectors) == 4
    rng = Random(1)
    for fates in product(range(3), repeat=len(sectors)):
        content = bytearray(old)
        for fate, start in zip(fates, sectors, strict=True):
            end = start + SECTOR_BYTES
            content[start:end] = (old[start:end], new[start:end], rng.randbytes(SECTOR_BYTES))[fate]
        torn = disk.clone()
        torn.write(path, bytes(content))
        recovered = restart(torn)
        if set(fates) == {1}:
            assert state_of(recovered) == before.append(None, last_write)
            assert recovered.torn_bytes_cut == 0
        else:
            assert state_of(recovered) == before
            assert (recovered.torn_bytes_cut > 0) is (set(fates) != {0})


def test_rule_07_every_prefix_of_the_write_in_flight_is_a_torn_tail() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    run_task(disk, wal.append(HardState(1, 7, 0), make_entries(1, 2)))
    before = LogState(HardState(1, 7, 0), tuple(make_entries(1, 2)))
    path = segment_path("00000001.active")
    last_write = make_entries(3, 2, size=400)
    run_task(disk, wal.append(None, last_write))
    content = disk.read(path)
    frame = list(frames_of(content))[-1]
    used_end = frame.offset + HEADER_BYTES + len(frame.payload)
    for end in range(frame.offset, used_end):
        torn = disk.clone()
        torn.write(path, content[:end].ljust(len(content), b"\0"))
        recovered = restart(torn)
        assert state_of(recovered) == before, end
        assert recovered.torn_bytes_cut <= end - frame.offset


def test_a_torn_tail_is_gone_after_recovery_and_the_next_write_takes_its_place() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    run_task(disk, wal.append(None, make_entries(1, 2)))
    disk.crash_at(disk.op_count + 1)
    with pytest.raises(Crash):
        run_task(disk, wal.append(None, make_entries(3, 2, size=400)))
    recovered = restart(disk)
    assert recovered.torn_bytes_cut > 0
    recovered = restart(disk)
    assert recovered.torn_bytes_cut == 0
    run_task(disk, recovered.wal.append(None, make_entries(3, 1, term=2)))
    assert restart(disk).entries == [*make_entries(1, 2), *make_entries(3, 1, term=2)]


WRITES = st.lists(
    st.tuples(
        st.integers(0, 3),  # entries
        st.integers(0, 1500),  # bytes each
        st.integers(0, 3),  # how many uncommitted ones they replace
        st.none() | st.integers(0, 2),  # by how much the commit index moves
    ).filter(lambda write: write[0] > 0 or write[3] is not None),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(WRITES, st.integers(1, 60), st.booleans()), max_size=4), st.integers(0))
def test_a_log_under_random_writes_and_crashes_equals_a_list(
    lives: list[tuple[list[tuple[int, int, int, int | None]], int, bool]], seed: int
) -> None:
    disk, rng, state = SimDisk(), Random(seed), LogState()
    found_on(disk)
    for writes, crash_after_ops, is_power_loss in lives:
        disk.kill()
        asked = state
        disk.crash_at(disk.op_count + crash_after_ops)
        try:
            wal = open_on(disk).wal
            for count, size, replaced, commit_step in writes:
                hard, last_index = state.hard_state, len(state.entries)
                kept = last_index - min(replaced, last_index - hard.commit) * (count > 0)
                term = hard.term + (kept < last_index)
                entries = make_entries(kept + 1, count, term=term, size=size)
                hard_state = None
                if commit_step is not None or term > hard.term:
                    commit = min(hard.commit + (commit_step or 0), kept + count)
                    hard_state = HardState(term, rng.choice([None, 1]), commit)
                asked = state.append(hard_state, entries)
                run_task(disk, wal.append(hard_state, entries))
                state = asked
        except Crash:
            pass
        if is_power_loss:
            disk.power_loss(rng)
        disk.cancel_faults()
        found = state_of(restart(disk))
        assert found in (state, asked)
        state = found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 1500), st.integers(0, 3)),
        st.tuples(st.just("take"), st.integers(0, 30)),
        st.tuples(st.just("install"), st.integers(1, 30)),
        st.tuples(st.just("drop"), st.integers(0, 30)),
    ),
    min_size=1,
    max_size=14,
)


class Model:
    """A log with snapshots, its list model, and what was asked of it since."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.state = self.asked = LogState()
        self.bulk: DiskTask[int] | None = None  # segments being dropped in the other lane

    def open(self) -> None:
        """Start a process; it must find what was promised."""
        recovered = restart(self.disk)
        found = state_of(recovered)
        assert found in (self.state, self.asked)
        if recovered.snapshot is not None:
            blob = load_blob(self.disk, recovered.snapshot.name)
            assert blob == blob_of(found.base, size=100).content
        self.state = self.asked = found
        self.wal = recovered.wal
        self.bulk = None

    def do(self, step: tuple[object, ...], rng: Random) -> None:
        """Take a step; what is being dropped goes on in between."""
        match step:
            case ("write", int(count), int(size), int(replaced)):
                self.write(count, size, replaced, rng)
            case ("take", int(behind)):
                base_index, commit = self.state.base.index, self.state.hard_state.commit
                index = max(base_index, commit - behind)
                if index > base_index:
                    last = self.state.entries[index - base_index - 1].id
                    self.name(make_snapshot(last, size=100), installs=False, rng=rng)
            case ("install", int(ahead)):
                last = EntryId(self.state.hard_state.term, self.state.hard_state.commit + ahead)
                if last.term > 0:
                    sent = sent_snapshot(last, size=100)
                    self.name(receive(sent), installs=True, rng=rng)
            case ("drop", int(behind)) if self.bulk is None:
                self.bulk = self.wal.drop_before(self.state.last_index - behind)

    def write(self, count: int, size: int, replaced: int, rng: Random) -> None:
        state = self.state
        hard, last_index = state.hard_state, state.last_index
        kept = last_index - min(replaced, last_index - hard.commit) * (count > 0)
        entries = make_entries(kept + 1, count, term=hard.term + 1, size=size)
        hard_state = HardState(hard.term + 1, rng.choice([None, 1]), rng.randint(hard.commit, kept))
        self.asked = state.append(hard_state, entries)
        self.run(self.wal.append(hard_state, entries), rng)
        self.state = self.asked

    def name(self, made: DiskTask[SnapshotInfo], *, installs: bool, rng: Random) -> None:
        info = self.run(made, rng)
        self.asked = self.state.stand_on(info.meta, installs=installs)
        self.run(self.wal.append_snapshot(info, installs=installs), rng)
        self.state = self.asked
        self.run(remove_older_than(info.name), rng)

    def run(self, task: DiskTask[T], rng: Random) -> T:
        """Run ``task``; between its submissions some of the other lane's are performed."""
        results: list[DiskResult] | None = None
        while True:
            if self.bulk is not None and rng.random() < 0.5:
                self.go_on_dropping()
            try:
                ops = next(task) if results is None else task.send(results)
            except StopIteration as stop:
                result: T = stop.value
                return result
            results = self.disk.perform(ops)

    def go_on_dropping(self) -> None:
        assert self.bulk is not None
        try:
            # Both lanes wait for one result at a time; a dropped segment's is not looked at.
            ops = self.bulk.send(None)  # type: ignore[arg-type]
        except StopIteration:
            self.bulk = None
        else:
            self.disk.perform(ops)


@settings(max_examples=150, deadline=None)
@example(
    # Segments that hold no entry, and no snapshot to stand in for them.
    [
        ([("take", 0)], 1, False),
        ([("write", 3, 1173, 0), ("drop", 0), ("write", 0, 0, 0)], 38, False),
    ],
    1,
)
@given(st.lists(st.tuples(STEPS, st.integers(1, 150), st.booleans()), max_size=4), st.integers(0))
def test_a_log_with_snapshots_under_random_steps_and_crashes_equals_its_model(
    lives: list[tuple[list[tuple[object, ...]], int, bool]], seed: int
) -> None:
    disk, rng = SimDisk(), Random(seed)
    found_on(disk)
    model = Model(disk)
    for steps, crash_after_ops, is_power_loss in lives:
        disk.kill()
        disk.crash_at(disk.op_count + crash_after_ops)
        try:
            model.open()
            for step in steps:
                model.do(step, rng)
        except Crash:
            pass
        if is_power_loss:
            disk.power_loss(rng)
        disk.cancel_faults()
        model.open()
