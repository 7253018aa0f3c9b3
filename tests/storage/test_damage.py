"""Files that were changed behind the node's back (reference/faults.md 4, rows 28 to 33)."""

from random import Random

import pytest

from raftkv.raft.messages import ConfState, EntryId, HardState
from raftkv.storage.disk import run_task
from raftkv.storage.errors import (
    CommittedEntriesLostError,
    CorruptionError,
    StorageError,
    UnexpectedFileError,
)
from raftkv.storage.record import (
    HEADER_BYTES,
    SECTOR_BYTES,
    Append,
    Frame,
    SegmentStart,
    Snapshot,
    SnapshotRef,
    decode_frame,
    encode_frame,
    encode_record,
    frame_bytes,
)
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    SEGMENT_BYTES,
    SampleLog,
    found_on,
    frames_of,
    make_entries,
    open_on,
    restart,
    sample_log,
    segment_path,
    state_of,
)

SEGMENTS = ["00000001.sealed", "00000002.sealed", "00000003.active"]
LAST = segment_path(SEGMENTS[-1])
REJOIN = "must rejoin as a new one: empty its data directory"


@pytest.fixture(scope="module")
def sample() -> SampleLog:
    return sample_log()


def refused(disk: SimDisk) -> CorruptionError:
    """Recovery refuses the disk, says how to go on, and leaves the disk as it was."""
    before = {path: disk.read(path) for path in disk.paths()}
    with pytest.raises(CorruptionError, match=REJOIN) as raised:
        open_on(disk)
    assert {path: disk.read(path) for path in disk.paths()} == before
    return raised.value


# ---- damaged bytes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEGMENTS)
def test_rule_07_every_flipped_byte_is_harmless_or_refused_with_its_place(
    sample: SampleLog, name: str
) -> None:
    path = segment_path(name)
    content = sample.disk.read(path)
    frames = list(frames_of(content))
    rng = Random(name)
    last_frame = list(frames_of(sample.disk.read(LAST)))[-1]
    undecidable = 0
    for frame in frames:
        for offset in range(frame.offset, frame.offset + HEADER_BYTES + len(frame.payload)):
            disk = sample.disk.clone()
            disk.flip_bit(path, offset, bit=rng.randrange(8))
            if frame == last_frame:
                # The one undecidable case: nothing tells a damaged last write from an
                # unfinished one, which nobody was told of.
                recovered = open_on(disk)
                assert state_of(recovered) == sample.before_last
                assert recovered.torn_bytes_cut > 0
                undecidable += 1
                continue
            error = refused(disk)
            assert (error.path, error.offset) == (path, frame.offset)
            assert error.sequence == (frame.sequence if frame.offset else None)
    assert (undecidable > 0) is (path == LAST)


@pytest.mark.parametrize("name", SEGMENTS)
def test_rule_07_bytes_that_belong_to_no_frame_do_not_matter(sample: SampleLog, name: str) -> None:
    path = segment_path(name)
    content = sample.disk.read(path)
    used = set[int]()
    for frame in frames_of(content):
        used.update(range(frame.offset, frame.offset + HEADER_BYTES + len(frame.payload)))
    unused = [offset for offset in range(len(content)) if offset not in used]
    for offset in [*unused[::13], unused[-1]]:
        disk = sample.disk.clone()
        disk.flip_bit(path, offset)
        assert state_of(open_on(disk)) == sample.state


@pytest.mark.parametrize("name", SEGMENTS)
def test_rule_07_every_shortened_segment_is_refused(sample: SampleLog, name: str) -> None:
    path = segment_path(name)
    start, *_ = frames_of(sample.disk.read(path))
    for length in range(SEGMENT_BYTES):
        disk = sample.disk.clone()
        disk.truncate(path, length)
        error = refused(disk)
        assert (error.path, error.offset) == (path, 0)
        if length < HEADER_BYTES + len(start.payload):
            assert "the first frame is damaged" in error.reason
        else:
            assert error.reason == f"the file has {length} bytes instead of {SEGMENT_BYTES}"


def test_rule_07_a_lengthened_segment_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    disk.write(LAST, disk.read(LAST) + bytes(SECTOR_BYTES))
    assert "bytes instead of 4096" in refused(disk).reason


def test_rule_07_a_frame_replaced_by_zeros_is_damage(sample: SampleLog) -> None:
    for frame in list(frames_of(sample.disk.read(LAST)))[1:-1]:
        disk = sample.disk.clone()
        content = bytearray(disk.read(LAST))
        content[frame.offset : frame.end] = bytes(frame.end - frame.offset)
        disk.write(LAST, bytes(content))
        error = refused(disk)
        assert (error.offset, error.sequence) == (frame.offset, frame.sequence)
        assert f"frame {frame.sequence + 1} behind it is not" in error.reason
        assert f"all up to frame {frame.sequence} were durable" in error.reason


def test_rule_07_an_older_copy_of_a_chunk_is_damage() -> None:
    # A lost or misdirected write: the disk returns what a sector held before, which is a valid
    # frame of the same segment (reference/faults.md 4, row 30).
    sample = sample_log()
    content = sample.disk.read(LAST)
    frames = list(frames_of(content))
    for target in frames[1:]:
        for source in frames:
            if source is target:
                continue
            disk = sample.disk.clone()
            changed = bytearray(content)
            changed[target.offset : target.end] = content[source.offset : source.end]
            disk.write(LAST, bytes(changed))
            error = refused(disk)
            assert error.offset == target.offset
            assert error.sequence == source.sequence
            assert error.reason == f"the frame does not continue frame {target.sequence - 1}"


def forge(
    disk: SimDisk, path: str, number: int, payload: bytes | None = None, **header: int
) -> Frame:
    """Put a valid frame in the place of the one with this number in its segment, or behind the
    last one, with the header that belongs there but for ``header``. Returns the frame.
    """
    content = bytearray(disk.read(path))
    frames = list(frames_of(bytes(content)))
    before = frames[number - 1] if number else None
    replaced = frames[number] if number < len(frames) else None
    fields = {
        "salt": frames[0].salt,
        "sequence": before.sequence + 1 if before else frames[0].sequence,
        "durable_sequence": before.sequence if before else frames[0].durable_sequence,
        "previous_crc": before.crc if before else frames[0].previous_crc,
    }
    if payload is None:
        assert replaced is not None
        payload = replaced.payload
    chunks, _ = encode_frame(payload, **(fields | header))
    start = before.end if before else 0
    content[start : start + frame_bytes(len(payload))] = b"".join(chunks)
    disk.write(path, bytes(content))
    forged = decode_frame(bytes(content), start)
    assert forged is not None
    return forged


def test_rule_07_a_frame_of_another_history_breaks_the_chain(sample: SampleLog) -> None:
    # The right place, the right sequence, sound in itself: what a write looks like that was cut
    # off, replaced, and comes back from a disk that lost the replacement.
    disk = sample.disk.clone()
    forged = forge(disk, LAST, 1, encode_record(Append(HardState(3, 8, 9), [])))
    error = refused(disk)
    assert (error.offset, error.sequence) == (forged.end, forged.sequence + 1)
    assert error.reason == f"the frame does not continue frame {forged.sequence}"


@pytest.mark.parametrize("step", [-1, 1])
def test_rule_07_a_gap_in_the_sequence_is_damage(sample: SampleLog, step: int) -> None:
    disk = sample.disk.clone()
    *before, last = frames_of(disk.read(LAST))
    forged = forge(disk, LAST, len(before), sequence=last.sequence + step)
    error = refused(disk)
    assert (error.offset, error.sequence) == (forged.offset, last.sequence + step)
    assert error.reason == f"the frame does not continue frame {last.sequence - 1}"


def test_rule_07_a_frame_of_another_segment_is_no_frame_of_this_one(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    (first, *_) = frames_of(disk.read(LAST))
    number = len(list(frames_of(disk.read(LAST))))
    payload = encode_record(Append(None, make_entries(19, 1, term=3)))
    forged = forge(disk, LAST, number, payload, salt=first.salt + 1)
    recovered = open_on(disk)
    assert state_of(recovered) == sample.state
    assert recovered.torn_bytes_cut >= HEADER_BYTES + len(forged.payload) - 1


def test_rule_07_a_segment_that_starts_with_another_state_is_refused() -> None:
    disk = SimDisk()
    member_id = found_on(disk).identity.member_id
    start = SegmentStart(1, SEGMENT_BYTES, member_id, EntryId(0, 0), HardState(5, None, 0))
    forge(disk, segment_path("00000001.active"), 0, encode_record(start))
    reason = "the segment does not start with the state that the one before it ends with"
    assert refused(disk).reason == reason


@pytest.mark.parametrize("first_index", [0, 4, 5])
def test_rule_07_a_gap_in_the_entries_is_refused(first_index: int) -> None:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(None, make_entries(1, 2)))
    payload = encode_record(Append(None, make_entries(first_index, 1)))
    forge(disk, segment_path("00000001.active"), 2, payload)
    assert refused(disk).reason == f"entry {first_index} follows entry 2"


def test_rule_07_a_gap_in_the_entries_of_one_write_is_refused() -> None:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(None, make_entries(1, 2)))
    entries = [*make_entries(3, 1), *make_entries(5, 1)]
    forge(disk, segment_path("00000001.active"), 2, encode_record(Append(None, entries)))
    assert refused(disk).reason == "entry 5 follows entry 3"


def test_rule_07_a_committed_entry_that_is_written_again_is_refused() -> None:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(HardState(1, None, 2), make_entries(1, 3)))
    payload = encode_record(Append(None, make_entries(2, 2, term=2)))
    forge(disk, segment_path("00000001.active"), 2, payload)
    assert refused(disk).reason == "entry 2 is written again, though it was committed"


def test_rule_07_a_second_start_record_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    (first, *_) = frames_of(disk.read(LAST))
    forge(disk, LAST, 1, first.payload)
    assert refused(disk).reason == "a segment has one start record, in its first frame"


def test_rule_07_never_cuts_below_a_persisted_commit_index() -> None:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(None, make_entries(1, 2)))
    # A writer that knew more than its log holds: `Wal` itself would not write this.
    path = segment_path("00000001.active")
    forge(disk, path, 2, encode_record(Append(HardState(1, None, 3), [])))
    error = refused(disk)
    assert isinstance(error, CommittedEntriesLostError)
    assert error.reason == "the log ends at index 2, before the committed index 3"


# ---- files missing, doubled, exchanged -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (SEGMENTS[0], "segment 1 is missing"),
        (SEGMENTS[1], "segment 2 is missing"),
        (SEGMENTS[2], "segment 2 is sealed, and the one after it is missing"),
    ],
)
def test_a_missing_segment_is_refused(sample: SampleLog, name: str, reason: str) -> None:
    disk = sample.disk.clone()
    disk.remove(segment_path(name))
    assert refused(disk).reason == reason


def test_a_missing_log_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    for name in SEGMENTS:
        disk.remove(segment_path(name))
    assert refused(disk).reason == "the identity names a cluster, but the log is missing"


def test_a_segment_that_exists_twice_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    disk.write(segment_path("00000002.active"), disk.read(segment_path("00000002.sealed")))
    assert refused(disk).reason == "the segment exists twice, sealed and active"


@pytest.mark.parametrize(
    "name", ["00000001.sealed.bak", "notes.txt", "1.sealed", "000000001.sealed"]
)
def test_an_unknown_file_in_the_log_is_refused_without_the_advice_to_start_anew(
    sample: SampleLog, name: str
) -> None:
    disk = sample.disk.clone()
    disk.write(segment_path(name), b"?")
    with pytest.raises(UnexpectedFileError, match="Nothing was changed; move it away") as raised:
        open_on(disk)
    assert segment_path(name) in str(raised.value)
    assert "empty" not in str(raised.value)


def test_exchanged_segments_are_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    first, second = (segment_path(name) for name in SEGMENTS[:2])
    contents = disk.read(first), disk.read(second)
    disk.write(second, contents[0])
    disk.write(first, contents[1])
    error = refused(disk)
    assert error.path == first
    assert "does not continue frame 0" in error.reason


def test_a_copied_segment_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    disk.write(segment_path("00000004.active"), disk.read(LAST))
    disk.write(segment_path("00000003.sealed"), disk.read(LAST))
    disk.remove(LAST)
    assert refused(disk).sequence is not None


def test_an_older_copy_of_the_last_segment_under_a_newer_one_is_refused(
    sample: SampleLog,
) -> None:
    disk = sample.disk.clone()
    path = segment_path(SEGMENTS[1])
    content = disk.read(path)
    frames = list(frames_of(content))
    disk.write(path, content[: frames[3].offset].ljust(SEGMENT_BYTES, b"\0"))
    error = refused(disk)
    assert (error.path, error.offset, error.sequence) == (
        path,
        frames[3].offset,
        frames[3].sequence,
    )
    assert error.reason.startswith(f"damaged or missing: {LAST} starts with frame")


def test_a_log_of_another_member_is_refused(sample: SampleLog) -> None:
    disk, other = sample.disk.clone(), SimDisk()
    other_member = open_on(other, seed=99).identity.member_id
    disk.write("identity", other.read("identity"))
    assert f"in the directory of {other_member:016x}" in refused(disk).reason


def test_an_unsealed_segment_below_a_used_one_is_refused(sample: SampleLog) -> None:
    disk = sample.disk.clone()
    disk.write(segment_path("00000002.active"), disk.read(segment_path("00000002.sealed")))
    disk.remove(segment_path("00000002.sealed"))
    assert refused(disk).reason == "the segment is not sealed, but a later one is used"
    disk = sample.disk.clone()
    disk.write(segment_path("00000001.active"), disk.read(segment_path("00000001.sealed")))
    disk.remove(segment_path("00000001.sealed"))
    assert refused(disk).reason == "the segment is not sealed, but later ones exist"


def test_records_of_a_newer_version_are_refused() -> None:
    disk = SimDisk()
    found_on(disk)
    forge(disk, segment_path("00000001.active"), 1, b"\x92\x63\x01")  # an array tagged 99
    assert "no record that this version of raftkv knows" in refused(disk).reason


def test_a_record_with_a_text_that_is_not_utf8_is_refused() -> None:
    disk = SimDisk()
    found_on(disk)
    ref = SnapshotRef(EntryId(1, 1), 1, ConfState(voters=(5,)), bytes(32), "name-of-a-file")
    record = encode_record(
        Snapshot(ref, installs=False, hard_state=HardState(1, None, 1), entries=[])
    )
    broken = record.replace(b"name-of", b"name\xff\xfe\xfd")
    forge(disk, segment_path("00000001.active"), 1, broken)
    assert "no record that this version of raftkv knows" in refused(disk).reason


def test_a_used_log_under_an_identity_without_cluster_is_refused() -> None:
    disk = SimDisk()
    recovered = open_on(disk)
    fresh = disk.read("identity")
    run_task(disk, recovered.wal.append(None, make_entries(1, 1)))
    disk.kill()
    assert disk.read("identity") == fresh
    assert refused(disk).reason == "the identity names no cluster, but the log is in use"


@pytest.mark.parametrize("seed", range(40))
def test_rule_07_damage_of_any_kind_never_yields_a_state_that_never_was(seed: int) -> None:
    # Several faults at once, random places: refused, or a state the log went through at the end.
    rng = Random(seed)
    sample = sample_log()
    disk = sample.disk
    for _ in range(rng.randrange(1, 4)):
        path = segment_path(rng.choice(SEGMENTS))
        content = bytearray(disk.read(path))
        start = rng.randrange(len(content))
        end = min(start + rng.choice([1, 16, 512, 2000]), len(content))
        content[start:end] = rng.choice([bytes(end - start), rng.randbytes(end - start)])
        disk.write(path, bytes(content))
    try:
        state = state_of(open_on(disk))
    except StorageError:
        return
    assert state in (sample.state, sample.before_last)
    assert state_of(restart(disk)) == state
