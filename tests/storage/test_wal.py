"""The log while it is written to."""

import errno
from random import Random

import pytest

from raftkv.raft.messages import Entry, EntryId, EntryType, HardState
from raftkv.storage.disk import DiskError, Fdatasync, Pwrite, run_task
from raftkv.storage.layout import WAL
from raftkv.storage.record import SECTOR_BYTES, SegmentStart, decode_record
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    SEGMENT_BYTES,
    LogState,
    found_on,
    frames_of,
    make_entries,
    restart,
    sample_log,
    segment_path,
    state_of,
)


def test_rule_04_an_append_is_one_submission_that_ends_with_its_sync() -> None:
    wal = found_on(SimDisk()).wal
    ops = next(wal.append(HardState(1, 2, 0), make_entries(1, 64)))
    assert [type(op) for op in ops] == [Pwrite, Fdatasync]


def test_rule_05_no_second_write_while_one_is_under_way() -> None:
    wal = found_on(SimDisk()).wal
    next(wal.append(None, make_entries(1, 1)))
    with pytest.raises(AssertionError, match="one WAL write at a time"):
        next(wal.append(None, make_entries(2, 1)))


def test_rule_05_after_a_failed_sync_the_log_is_not_used_again() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    disk.fail_at(disk.op_count + 2, errno.EIO)
    with pytest.raises(DiskError, match=r"fdatasync failed: Input/output error") as raised:
        run_task(disk, wal.append(None, make_entries(1, 1)))
    assert raised.value.errno == errno.EIO
    with pytest.raises(AssertionError):
        run_task(disk, wal.append(None, make_entries(1, 1)))


def test_rule_05_an_overwritten_suffix_stays_overwritten() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    run_task(disk, wal.append(HardState(1, None, 1), make_entries(1, 5)))
    run_task(disk, wal.append(HardState(2, None, 1), make_entries(3, 1, term=2)))
    recovered = restart(disk)
    assert recovered.entries == [*make_entries(1, 2), *make_entries(3, 1, term=2)]
    assert recovered.hard_state == HardState(2, None, 1)


@pytest.mark.parametrize(
    ("hard_state", "first_index", "message"),
    [
        (None, 5, "a gap in the log"),
        (None, 2, "a committed entry is never replaced"),
        (HardState(1, None, 3), 3, "the term never goes back"),
        (HardState(2, None, 6), 4, "committed beyond the log"),
    ],
)
def test_a_write_that_recovery_could_not_believe_is_refused(
    hard_state: HardState | None, first_index: int, message: str
) -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    run_task(disk, wal.append(HardState(2, None, 2), make_entries(1, 3)))
    with pytest.raises(AssertionError, match=message):
        run_task(disk, wal.append(hard_state, make_entries(first_index, 2)))


def test_full_segments_are_sealed_and_the_next_continues_their_chain() -> None:
    sample = sample_log()
    disk = sample.disk
    names = ["00000001.sealed", "00000002.sealed", "00000003.active"]
    assert [path for path in disk.paths() if path.startswith(WAL)] == [
        segment_path(name) for name in names
    ]
    crc, sequence = 0, 0
    state = LogState()
    salts = set()
    for number, name in enumerate(names, 1):
        content = disk.read(segment_path(name))
        assert len(content) == SEGMENT_BYTES
        for frame in frames_of(content):
            assert frame.sequence == sequence + 1
            assert frame.durable_sequence == sequence
            assert frame.previous_crc == crc
            crc, sequence = frame.crc, frame.sequence
            salts.add(frame.salt)
            record = decode_record(frame.payload)
            if isinstance(record, SegmentStart):
                # What lets older segments go once a snapshot covers them.
                assert record == SegmentStart(
                    number=number,
                    size_bytes=SEGMENT_BYTES,
                    member_id=sample.identity.member_id,
                    last=state.entries[-1].id if state.entries else EntryId(0, 0),
                    hard_state=state.hard_state,
                )
            else:
                state = state.append(record.hard_state, list(record.entries))
    assert len(salts) == 3
    assert state == sample.state
    assert state_of(restart(disk)) == sample.state


def test_a_write_larger_than_a_segment_gets_a_segment_of_its_own_size() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    large = [Entry(1, 1, EntryType.NORMAL, bytes(3 * SEGMENT_BYTES))]
    run_task(disk, wal.append(None, large))
    run_task(disk, wal.append(None, make_entries(2, 1)))
    assert wal.segment_count == 2
    assert len(disk.read(segment_path("00000002.active"))) == 4 * SEGMENT_BYTES
    recovered = restart(disk)
    assert recovered.entries == large + make_entries(2, 1)
    assert recovered.wal.segment_count == 2


def test_counters_tell_what_was_written() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    assert (wal.bytes_written, wal.segment_count) == (0, 1)
    for index in range(1, 8):
        run_task(disk, wal.append(None, make_entries(index, 1)))
    assert (wal.bytes_written, wal.segment_count) == (7 * SECTOR_BYTES, 1)
    run_task(disk, wal.append(None, make_entries(8, 1)))
    # The new segment's first frame counts.
    assert (wal.bytes_written, wal.segment_count) == (9 * SECTOR_BYTES, 2)


def test_a_full_disk_stops_the_append_and_loses_nothing() -> None:
    disk = SimDisk()
    wal = found_on(disk).wal
    disk.capacity_bytes = 2 * SEGMENT_BYTES  # one segment and the identity, not two segments
    for index in range(1, 8):
        run_task(disk, wal.append(None, make_entries(index, 1)))
    with pytest.raises(DiskError, match="allocate failed: No space left on device"):
        run_task(disk, wal.append(None, make_entries(8, 1)))
    disk.capacity_bytes = None
    assert restart(disk).entries == make_entries(1, 7)


def test_sizes_do_not_change_what_is_recovered() -> None:
    rng = Random(4)
    disk = SimDisk()
    wal = found_on(disk).wal
    state = LogState()
    index = 1
    for _ in range(60):
        entries = make_entries(index, rng.randrange(1, 6), size=rng.randrange(2000))
        run_task(disk, wal.append(None, entries))
        state = state.append(None, entries)
        index += len(entries)
    assert state_of(restart(disk)) == state
