"""Snapshots and the log: what may go, and what the log stands on afterwards."""

from random import Random

import pytest

from raftkv.raft.messages import ConfState, EntryId, HardState, Member
from raftkv.storage.disk import DiskOps, DiskResult, Unlink, run_task
from raftkv.storage.errors import CorruptionError
from raftkv.storage.layout import SNAPSHOTS, snapshot_name
from raftkv.storage.record import SECTOR_BYTES, SegmentStart, decode_record
from raftkv.storage.snapshots import SnapshotInfo, remove_older_than, write_snapshot
from raftkv.storage.wal import Wal
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    SEGMENT_BYTES,
    LogState,
    blob_of,
    found_on,
    frames_of,
    load_blob,
    make_entries,
    make_snapshot,
    meta_of,
    receive,
    restart,
    segment_path,
    sent_snapshot,
    state_of,
)


def written(disk: SimDisk, count: int, *, commit: int | None = None) -> tuple[Wal, LogState]:
    """A log of so many entries, one per write."""
    wal, state = found_on(disk).wal, LogState()
    for index in range(1, count + 1):
        hard_state = HardState(1, 7, index - 1 if commit is None else min(commit, index - 1))
        run_task(disk, wal.append(hard_state, make_entries(index, 1)))
        state = state.append(hard_state, make_entries(index, 1))
    return wal, state


def take(disk: SimDisk, wal: Wal, last: EntryId) -> SnapshotInfo:
    """Take a snapshot of applied entries, and name it."""
    info = run_task(disk, make_snapshot(last))
    run_task(disk, wal.append_snapshot(info, installs=False))
    return info


def install(disk: SimDisk, wal: Wal, last: EntryId) -> SnapshotInfo:
    """Receive a snapshot, and install it."""
    info = run_task(disk, receive(sent_snapshot(last)))
    run_task(disk, wal.append_snapshot(info, installs=True))
    return info


def segments(disk: SimDisk) -> list[str]:
    """The names of the segments."""
    return [path.removeprefix("wal/") for path in disk.paths() if path.startswith("wal/")]


def snapshots(disk: SimDisk) -> list[str]:
    """The names in the directory of the snapshots."""
    prefix = f"{SNAPSHOTS}/"
    return [path.removeprefix(prefix) for path in disk.paths() if path.startswith(prefix)]


# ---- taken here ----------------------------------------------------------------------------


def test_rule_11_the_log_goes_on_after_a_snapshot_and_recovery_starts_from_it() -> None:
    disk = SimDisk()
    wal, state = written(disk, 20)
    info = take(disk, wal, EntryId(1, 12))
    run_task(disk, wal.append(None, make_entries(21, 2)))
    state = state.stand_on(info.meta, installs=False).append(None, make_entries(21, 2))
    recovered = restart(disk)
    assert state_of(recovered) == state
    assert recovered.snapshot == info
    assert recovered.base == EntryId(1, 12)
    assert (recovered.base_conf, recovered.base_config_index) == (info.meta.conf, 6)
    assert [entry.index for entry in recovered.entries] == list(range(13, 23))
    assert load_blob(disk, info.name) == blob_of(EntryId(1, 12)).content
    # The log of the second process goes on the same way.
    run_task(disk, recovered.wal.append(None, make_entries(23, 1)))
    assert state_of(restart(disk)) == state.append(None, make_entries(23, 1))


def test_rule_11_what_a_snapshot_holds_is_committed() -> None:
    # The commit index on disk is a lower bound, and may lag behind what was applied.
    disk = SimDisk()
    wal, _ = written(disk, 10, commit=3)
    take(disk, wal, EntryId(1, 8))
    assert restart(disk).hard_state == HardState(1, 7, 8)
    wal = restart(disk).wal
    run_task(disk, wal.append(HardState(2, None, 5), []))
    assert restart(disk).hard_state == HardState(2, None, 8)


def test_rule_11_segments_go_when_a_snapshot_holds_all_that_counts_in_them() -> None:
    disk = SimDisk()
    wal, state = written(disk, 40)
    assert wal.segment_count == len(segments(disk)) == 6
    assert run_task(disk, wal.drop_before(40)) == 0  # no snapshot yet
    info = take(disk, wal, EntryId(1, 20))
    assert run_task(disk, wal.drop_before(6)) == 0
    assert run_task(disk, wal.drop_before(7)) == 1
    assert run_task(disk, wal.drop_before(40)) == 1
    assert segments(disk)[0] == "00000003.sealed"
    assert wal.segment_count == len(segments(disk)) == 4
    state = state.stand_on(info.meta, installs=False)
    recovered = restart(disk)
    assert state_of(recovered) == state
    assert recovered.wal.segment_count == 4
    # What the second process knows of the segments lets them go too.
    info = take(disk, recovered.wal, EntryId(1, 39))
    assert run_task(disk, recovered.wal.drop_before(39)) == 3
    assert segments(disk) == ["00000006.active"]
    assert state_of(restart(disk)) == state.stand_on(info.meta, installs=False)


def test_rule_11_every_segment_start_repeats_the_newest_snapshot() -> None:
    disk = SimDisk()
    wal, state = written(disk, 10)
    info = take(disk, wal, EntryId(1, 9))
    for index in range(11, 40):
        run_task(disk, wal.append(None, make_entries(index, 1)))
        state = state.append(None, make_entries(index, 1))
    # The segment with the snapshot's record goes only with a newer one.
    assert run_task(disk, wal.drop_before(39)) == 1
    newer = take(disk, wal, EntryId(1, 38))
    assert run_task(disk, wal.drop_before(39)) > 2
    run_task(disk, remove_older_than(newer.name))
    for index in range(40, 50):
        run_task(disk, wal.append(None, make_entries(index, 1)))
        state = state.append(None, make_entries(index, 1))
    run_task(disk, wal.drop_before(49))
    *_, last = segments(disk)
    (first, *rest) = frames_of(disk.read(segment_path(last)))
    start = decode_record(first.payload)
    assert isinstance(start, SegmentStart)
    assert start.snapshot is not None
    assert start.snapshot.last == EntryId(1, 38)
    assert rest
    expected = state.stand_on(info.meta, installs=False).stand_on(newer.meta, installs=False)
    assert state_of(restart(disk)) == expected


def test_rule_11_snapshots_that_end_late_do_not_hold_segments_together() -> None:
    # The record of a snapshot lies far behind its last entry; a newer one makes the segments
    # between the two go, so that the older one alone no longer reaches what is left.
    disk = SimDisk()
    wal, state = written(disk, 40)
    old = take(disk, wal, EntryId(1, 3))
    new = take(disk, wal, EntryId(1, 36))
    assert run_task(disk, wal.drop_before(40)) == 5
    run_task(disk, remove_older_than(new.name))
    assert state_of(restart(disk)) == state.stand_on(old.meta, installs=False).stand_on(
        new.meta, installs=False
    )


def test_rule_11_what_is_left_of_the_log_may_replace_what_is_gone() -> None:
    # A segment ends with entries that the next one replaces; the snapshot that makes the first
    # one needless is of a later entry.
    disk = SimDisk()
    wal, state = written(disk, 8, commit=2)
    assert len(segments(disk)) == 2
    entries = make_entries(4, 9, term=2)
    hard_state = HardState(2, None, 12)
    run_task(disk, wal.append(hard_state, entries))
    info = take(disk, wal, EntryId(2, 10))
    assert run_task(disk, wal.drop_before(10)) == 1
    state = state.append(hard_state, entries).stand_on(info.meta, installs=False)
    assert state_of(restart(disk)) == state


def test_rule_11_a_log_that_begins_right_after_its_snapshot_knows_the_term_before_it() -> None:
    """A segment that nothing needs any more is gone, though nobody was to remove it yet."""
    disk = SimDisk()
    wal, state = written(disk, 6, commit=4)
    take(disk, wal, EntryId(1, 4))
    state = state.stand_on(meta_of(EntryId(1, 4)), installs=False)
    while len(segments(disk)) < 2:
        run_task(disk, wal.append(HardState(2, 7, 4), []))
    run_task(disk, wal.append(HardState(2, 7, 4), make_entries(5, 2, term=2)))
    state = state.append(HardState(2, 7, 4), make_entries(5, 2, term=2))
    assert state_of(restart(disk)) == state
    disk.remove(segment_path(segments(disk)[0]))
    assert state_of(restart(disk)) == state


def test_rule_11_bytes_since_the_snapshot_are_counted_over_restarts() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 3)
    assert wal.bytes_since_snapshot == 3 * SECTOR_BYTES
    assert restart(disk).wal.bytes_since_snapshot == 4 * SECTOR_BYTES  # with the first frame
    wal = restart(disk).wal
    take(disk, wal, EntryId(1, 2))
    assert wal.bytes_since_snapshot == 0
    run_task(disk, wal.append(None, make_entries(4, 1)))
    assert wal.bytes_since_snapshot == SECTOR_BYTES
    assert restart(disk).wal.bytes_since_snapshot == SECTOR_BYTES


def test_rule_11_two_snapshots_of_one_entry_are_one() -> None:
    disk = SimDisk()
    wal, state = written(disk, 5)
    info = take(disk, wal, EntryId(1, 4))
    assert take(disk, wal, EntryId(1, 4)) == info
    assert snapshots(disk) == [info.name]
    assert state_of(restart(disk)) == state.stand_on(info.meta, installs=False)


def test_a_configuration_of_any_size_fits_into_a_segments_start() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 3)
    members = tuple(Member(n, f"n{n}", "p" * 250, "c" * 250) for n in range(1, 19))
    conf = ConfState(voters=tuple(range(1, 10)), members=members)
    meta = SnapshotInfo("", 0, b"", meta_of(EntryId(1, 2))).meta
    large = type(meta)(
        meta.cluster_id, meta.last, meta.config_index, conf, meta.chain_hash, 1, meta.state_bytes
    )
    info = run_task(disk, write_snapshot(large, blob_of(meta.last)))
    run_task(disk, wal.append_snapshot(info, installs=False))
    for index in range(4, 30):
        run_task(disk, wal.append(None, make_entries(index, 1)))
    assert wal.segment_count > 2
    recovered = restart(disk)
    assert recovered.base_conf == conf
    assert [entry.index for entry in recovered.entries] == list(range(3, 30))


@pytest.mark.parametrize(
    ("last", "installs", "message"),
    [
        (EntryId(1, 9), False, "the log does not hold its last entry"),
        (EntryId(1, 3), False, "snapshots go forward"),
        (EntryId(1, 6), True, "it holds nothing new"),
    ],
)
def test_a_snapshot_that_recovery_would_call_damage_is_a_bug(
    last: EntryId, installs: bool, message: str
) -> None:
    disk = SimDisk()
    wal, _ = written(disk, 8)
    take(disk, wal, EntryId(1, 4))
    info = run_task(disk, make_snapshot(last))
    with pytest.raises(AssertionError, match=message):
        run_task(disk, wal.append_snapshot(info, installs=installs))


# ---- installed -----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [EntryId(4, 200), EntryId(4, 10)])
def test_rule_10_an_installed_snapshot_voids_the_log_before_it(last: EntryId) -> None:
    # Beyond the log's end, or inside it where its uncommitted entries are others.
    disk = SimDisk()
    wal, state = written(disk, 20, commit=5)
    info = install(disk, wal, last)
    state = state.stand_on(info.meta, installs=True)
    assert state.entries == ()
    assert state_of(restart(disk)) == state
    wal = restart(disk).wal
    entries = make_entries(last.index + 1, 3, term=4)
    run_task(disk, wal.append(HardState(4, None, last.index), entries))
    state = state.append(HardState(4, None, last.index), entries)
    assert state_of(restart(disk)) == state
    # All that lies before the segment in use is void, or repeated there, and may go at once.
    wal = restart(disk).wal
    assert run_task(disk, wal.drop_before(last.index)) == 3
    assert state_of(restart(disk)) == state


@pytest.mark.parametrize("restarted", [False, True])
def test_rule_10_what_an_installed_snapshot_voids_may_go_at_once(restarted: bool) -> None:
    # Although its indexes are higher: none of it counts any more.
    disk = SimDisk()
    wal, _ = written(disk, 20, commit=5)
    install(disk, wal, EntryId(4, 10))
    if restarted:
        wal = restart(disk).wal
    assert len(segments(disk)) == 3
    assert run_task(disk, wal.drop_before(10)) == 2
    assert segments(disk) == ["00000003.active"]
    assert restart(disk).base == EntryId(4, 10)


def test_rule_10_hard_state_and_entries_go_along_with_an_installed_snapshot() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 3)
    info = run_task(disk, receive(sent_snapshot(EntryId(6, 50))))
    entries = make_entries(51, 4, term=6)
    task = wal.append_snapshot(info, installs=True, hard_state=HardState(7, 3, 52), entries=entries)
    run_task(disk, task)
    recovered = restart(disk)
    assert recovered.hard_state == HardState(7, 3, 52)
    assert recovered.base == EntryId(6, 50)
    assert recovered.entries == entries
    run_task(disk, recovered.wal.append(None, make_entries(53, 1, term=7)))
    assert restart(disk).entries == [*entries[:2], *make_entries(53, 1, term=7)]


def test_rule_10_an_interrupted_install_is_finished_from_the_file() -> None:
    # The record is durable, the state machine was not built: recovery names the file to build it
    # from, and nothing of the log before it.
    disk = SimDisk()
    wal, _ = written(disk, 20)
    info = install(disk, wal, EntryId(3, 90))
    recovered = restart(disk)
    assert recovered.snapshot == info
    assert load_blob(disk, info.name) == blob_of(EntryId(3, 90)).content
    assert recovered.entries == []


def test_rule_10_a_snapshot_that_the_log_does_not_name_is_removed() -> None:
    disk = SimDisk()
    wal, state = written(disk, 5)
    current = take(disk, wal, EntryId(1, 2))
    run_task(disk, make_snapshot(EntryId(1, 4)))
    run_task(disk, receive(sent_snapshot(EntryId(3, 90))))
    disk.write(f"{SNAPSHOTS}/{snapshot_name(EntryId(1, 5))}.tmp", b"half")
    assert len(snapshots(disk)) == 4
    assert state_of(restart(disk)) == state.stand_on(current.meta, installs=False)
    assert snapshots(disk) == [current.name]


def test_rule_10_older_snapshots_go_when_a_newer_one_is_named() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 9)
    take(disk, wal, EntryId(1, 2))
    take(disk, wal, EntryId(1, 4))
    newest = take(disk, wal, EntryId(1, 8))
    run_task(disk, make_snapshot(EntryId(1, 9)))
    assert run_task(disk, remove_older_than(newest.name)) == 2
    assert snapshots(disk) == [newest.name, snapshot_name(EntryId(1, 9))]
    assert run_task(disk, remove_older_than(newest.name)) == 0


def test_two_removals_at_once_do_not_mind_each_other() -> None:
    """Each has looked before the other removes anything: they are tasks of several steps."""
    disk = SimDisk()
    wal, _ = written(disk, 9)
    take(disk, wal, EntryId(1, 2))
    newer, newest = take(disk, wal, EntryId(1, 4)), take(disk, wal, EntryId(1, 8))
    removed_by_other: list[int] = []

    class Between:
        def perform(self, ops: DiskOps) -> list[DiskResult]:
            if isinstance(ops[0], Unlink) and not removed_by_other:
                removed_by_other.append(run_task(disk, remove_older_than(newest.name)))
            return disk.perform(ops)

    assert run_task(Between(), remove_older_than(newer.name)) == 0
    assert removed_by_other == [2]
    assert snapshots(disk) == [newest.name]


# ---- what the log stands on is not there ---------------------------------------------------


def refused(disk: SimDisk) -> CorruptionError:
    """Recovery refuses the disk, says how to go on, and leaves the disk as it was."""
    disk.kill()
    before = {path: disk.read(path) for path in disk.paths()}
    with pytest.raises(CorruptionError, match="must rejoin as a new one") as raised:
        restart(disk)
    assert {path: disk.read(path) for path in disk.paths()} == before
    return raised.value


def test_rule_10_a_missing_snapshot_is_refused() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 9)
    info = take(disk, wal, EntryId(1, 4))
    disk.remove(f"{SNAPSHOTS}/{info.name}")
    error = refused(disk)
    assert error.path == f"{SNAPSHOTS}/{info.name}"
    assert error.reason == "the log starts after entry 4, and this snapshot is missing"


def test_rule_10_a_snapshot_of_another_state_is_refused() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 9)
    info = take(disk, wal, EntryId(1, 4))
    path = f"{SNAPSHOTS}/{info.name}"
    for changed in (
        {"chain_hash": b"?" * 32},
        {"conf": ConfState((1,))},
        {"config_index": 1},
    ):
        other = SimDisk()
        found_on(other)
        fields = {name: getattr(info.meta, name) for name in info.meta.__struct_fields__}
        meta = type(info.meta)(**(fields | changed))
        run_task(other, write_snapshot(meta, blob_of(meta.last)))
        disk.write(path, other.read(path))
        assert refused(disk).reason == "this is not the snapshot that the log names"


def test_rule_10_a_snapshot_of_another_cluster_is_refused() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 9)
    sent = sent_snapshot(EntryId(3, 90), cluster_id="c2")
    info = run_task(disk, receive(sent))
    run_task(disk, wal.append_snapshot(info, installs=True))
    assert refused(disk).reason == "this is a snapshot of cluster 'c2'"


def test_rule_11_a_missing_segment_that_no_snapshot_holds_is_refused() -> None:
    disk = SimDisk()
    wal, _ = written(disk, 40)
    take(disk, wal, EntryId(1, 20))
    run_task(disk, wal.drop_before(20))
    first, second, *_ = segments(disk)
    assert (first, second) == ("00000003.sealed", "00000004.sealed")
    disk.remove(segment_path(first))
    error = refused(disk)
    assert error.path == "wal"
    assert error.reason.startswith("entries 21 to 21 are missing")


def test_rule_11_the_first_segment_is_missed_even_if_it_held_no_entry() -> None:
    # It held a vote, and no snapshot says that it may be gone.
    disk = SimDisk()
    wal = found_on(disk).wal
    for term in range(1, 10):
        run_task(disk, wal.append(HardState(term, 7, 0), []))
    disk.remove(segment_path(segments(disk)[0]))
    assert refused(disk).reason == "segment 1 is missing"


def test_rule_10_a_directory_from_before_there_were_snapshots_gets_a_durable_place_for_them() -> (
    None
):
    disk = SimDisk()
    _, state = written(disk, 9)
    for names in (disk._root.names, disk._root.durable):
        del names[SNAPSHOTS]
    info = take(disk, restart(disk).wal, EntryId(1, 4))
    for seed in range(8):
        after = disk.clone()
        after.power_loss(Random(seed))
        assert state_of(restart(after)) == state.stand_on(info.meta, installs=False)


def test_rule_11_sizes_do_not_change_what_is_recovered() -> None:
    rng = Random(8)
    disk = SimDisk()
    wal, state = written(disk, 1)
    for _ in range(120):
        entries = make_entries(
            state.last_index + 1, rng.randrange(1, 5), size=rng.randrange(SEGMENT_BYTES // 3)
        )
        run_task(disk, wal.append(None, entries))
        state = state.append(None, entries)
        if rng.random() < 0.2:
            last = rng.choice(state.entries).id
            info = take(disk, wal, last)
            state = state.stand_on(info.meta, installs=False)
            run_task(disk, wal.drop_before(last.index - rng.randrange(10)))
            run_task(disk, remove_older_than(info.name))
        if rng.random() < 0.05:
            last = EntryId(1, state.last_index + rng.randrange(1, 30))
            info = install(disk, wal, last)
            state = state.stand_on(info.meta, installs=True)
        if rng.random() < 0.2:
            recovered = restart(disk)
            assert state_of(recovered) == state
            wal = recovered.wal
    assert wal.segment_count < 20
