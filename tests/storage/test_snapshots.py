"""Snapshot files: made, received, read and refused (reference/faults.md 4, rows 25 and 29)."""

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, BinaryIO

import google_crc32c
import msgspec
import pytest

from raftkv.raft.messages import ConfState, EntryId, Member
from raftkv.storage.disk import DiskError, DiskTask, run_task
from raftkv.storage.errors import CorruptionError, SnapshotRefusedError, UnexpectedFileError
from raftkv.storage.layout import SNAPSHOTS, parse_snapshot_name, snapshot_name
from raftkv.storage.snapshots import (
    HEADER_BYTES,
    TRAILER_BYTES,
    Checksum,
    SnapshotInfo,
    SnapshotReceiver,
    close_snapshot,
    decode_header,
    encode_header,
    encode_trailer,
    load,
    open_snapshot,
    read_chunk,
    read_info,
    remove_older_than,
    verify_snapshot,
    write_snapshot,
)
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    Blob,
    BlobReader,
    Sent,
    blob_of,
    found_on,
    load_blob,
    make_snapshot,
    meta_of,
    open_on,
    receive,
    restart,
    sent_snapshot,
)

LAST = EntryId(3, 90)
NAME = "00000000000000000090-3.snapshot"
PATH = f"{SNAPSHOTS}/{NAME}"


@pytest.fixture
def disk() -> SimDisk:
    """Of a node that belongs to a cluster."""
    disk = SimDisk()
    found_on(disk)
    return disk


@pytest.fixture(scope="module")
def sent() -> Sent:
    return sent_snapshot(LAST)


def nothing_changed(disk: SimDisk, task: DiskTask[Any], match: str) -> SnapshotRefusedError:
    """The task is refused and leaves the disk as it was."""
    before = {path: disk.read(path) for path in disk.paths()}
    with pytest.raises(SnapshotRefusedError, match=match) as raised:
        run_task(disk, task)
    assert {path: disk.read(path) for path in disk.paths()} == before
    return raised.value


def open_snapshots(disk: SimDisk) -> int:
    """How many files are open besides the log's active segment."""
    return len(disk._handles) - 1


# ---- the file ------------------------------------------------------------------------------


def test_the_format_is_what_the_documentation_says(disk: SimDisk) -> None:
    # Written out by hand after docs/file-formats.md: a change here is a change of the format.
    info = run_task(disk, write_snapshot(meta_of(LAST), Blob(b"blob")))
    content = disk.read(PATH)
    assert (info.name, info.size_bytes) == (NAME, len(content))
    conf = [[5, 1090], [], [], [], False, [], []]
    payload = msgspec.msgpack.encode(
        [4, ["c1", [3, 90], 45, conf, (90).to_bytes(32, "big"), 270, 3000, 0]]
    )
    found_payload_bytes = int.from_bytes(content[4:8], "little")
    # A later version may add fields at the end of an array.
    found = msgspec.msgpack.decode(content[12 : 12 + found_payload_bytes])
    assert found[0] == 4
    assert found[1][:2] + found[1][4:] == ["c1", [3, 90], (90).to_bytes(32, "big"), 270, 3000, 0]
    assert found[1][3][:7] == msgspec.msgpack.decode(payload)[1][3]
    fields = b"RKS\x01" + found_payload_bytes.to_bytes(4, "little")
    rest = content[12:65536]
    assert content[:8] == fields
    assert content[8:12] == google_crc32c.value(fields + rest).to_bytes(4, "little")
    assert not any(rest[found_payload_bytes:])
    assert content[65536:65540] == b"blob"
    digest = blake2b(content[:65540], digest_size=32).digest()
    assert info.digest == digest
    trailer = b"RKT\x01" + (4).to_bytes(8, "little") + digest
    assert content[65540:] == trailer + google_crc32c.value(trailer).to_bytes(4, "little")


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - HEADER_BYTES, 5 << 20])
def test_a_snapshot_is_what_was_written(disk: SimDisk, size: int) -> None:
    info = run_task(disk, make_snapshot(LAST, size))
    assert (info.meta, info.blob_bytes) == (meta_of(LAST, size=size), max(size, 11))
    assert run_task(disk, read_info(NAME)) == run_task(disk, verify_snapshot(NAME)) == info
    assert run_task(disk, read_info(NAME)).meta == info.meta
    assert load_blob(disk, NAME) == blob_of(LAST, size).content
    assert not open_snapshots(disk)


def test_names_tell_the_entry_and_sort_by_it() -> None:
    lasts = [EntryId(9, 5), EntryId(2, 10), EntryId(30, 11), EntryId(1, 10**19)]
    names = [snapshot_name(last) for last in lasts]
    assert sorted(names) == names
    assert [parse_snapshot_name(name) for name in names] == lasts
    for name in ("", "5-9.snapshot", NAME + ".tmp", "0" + NAME, NAME.replace("-3", "-03")):
        assert parse_snapshot_name(name) is None


def test_an_unknown_file_among_the_snapshots_is_refused(disk: SimDisk) -> None:
    disk.write(f"{SNAPSHOTS}/mine.snapshot", b"?")
    with pytest.raises(UnexpectedFileError, match=r"snapshots/mine\.snapshot in the data"):
        restart(disk)


def test_a_description_too_large_for_the_header_is_refused_before_the_work(disk: SimDisk) -> None:
    members = tuple(Member(n, "n", "p" * 1000, "c" * 1000) for n in range(40))
    meta = msgspec.structs.replace(meta_of(LAST), conf=ConfState(members=members))
    nothing_changed(disk, write_snapshot(meta, Blob(b"")), "and 65524 are the most")
    # What a cluster may come to does fit.
    members = tuple(Member(n, f"n{n}", "p" * 300, "c" * 300) for n in range(18))
    ids = tuple((1 << 63) + n for n in range(1024))
    meta = msgspec.structs.replace(meta_of(LAST), conf=ConfState(learners=ids, members=members))
    run_task(disk, write_snapshot(meta, Blob(b"")))


def test_who_has_a_snapshot_open_can_read_on_after_its_removal(disk: SimDisk) -> None:
    info = run_task(disk, make_snapshot(LAST))
    content = disk.read(PATH)
    handle = run_task(disk, open_snapshot(NAME))
    newer = run_task(disk, make_snapshot(EntryId(3, 91)))
    assert run_task(disk, remove_older_than(newer.name)) == 1
    halves = [run_task(disk, read_chunk(handle, at, 35_000)) for at in (0, 35_000, info.size_bytes)]
    assert b"".join(halves) == content
    run_task(disk, close_snapshot(handle))
    with pytest.raises(CorruptionError, match="the snapshot is missing"):
        run_task(disk, open_snapshot(NAME))


# ---- damage --------------------------------------------------------------------------------


def test_rule_10_every_flipped_byte_of_a_header_is_found() -> None:
    header = encode_header(meta_of(LAST), 3000)
    assert decode_header(header) == (meta_of(LAST), 3000)
    rng = Random(1)
    for offset in range(HEADER_BYTES):
        damaged = bytearray(header)
        damaged[offset] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match=r"checksum|not a snapshot"):
            decode_header(bytes(damaged))


def damaged_is_refused(disk: SimDisk, changed: bytes, *, loads_only: bool = False) -> str:
    """Every reader refuses this content of the snapshot; the reason of `load`."""
    disk.write(PATH, changed)
    sink = BlobReader()
    with pytest.raises(CorruptionError, match="must rejoin") as raised:
        run_task(disk, load(NAME, sink))
    assert sink.content is None
    assert raised.value.path == PATH
    with pytest.raises(CorruptionError):
        run_task(disk, verify_snapshot(NAME))
    if not loads_only:
        with pytest.raises(CorruptionError):
            run_task(disk, read_info(NAME))
    assert not open_snapshots(disk)
    return raised.value.reason


def test_rule_10_every_flipped_byte_of_a_trailer_is_found(disk: SimDisk, sent: Sent) -> None:
    for offset in range(len(sent.content) - TRAILER_BYTES, len(sent.content)):
        changed = bytearray(sent.content)
        changed[offset] ^= 0x10
        reason = damaged_is_refused(disk, bytes(changed))
        assert reason == "the trailer's checksum does not match"


def test_rule_10_every_flipped_byte_of_a_blob_is_found(disk: SimDisk, sent: Sent) -> None:
    for offset in range(HEADER_BYTES, len(sent.content) - TRAILER_BYTES, 7):
        changed = bytearray(sent.content)
        changed[offset] ^= 0x10
        reason = damaged_is_refused(disk, bytes(changed), loads_only=True)
        assert reason == "the content's hash does not match"


def test_rule_10_every_flipped_byte_is_found_on_its_way(sent: Sent) -> None:
    # Every byte behind the header, as a backup or a transfer checks it; of the header: above.
    for offset in range(HEADER_BYTES, len(sent.content)):
        changed = bytearray(sent.content)
        changed[offset] ^= 1 << (offset % 8)
        checksum = Checksum()
        checksum.update(bytes(changed))
        with pytest.raises(ValueError, match=r"checksum|hash|different snapshots"):
            checksum.verify()


def test_rule_10_every_other_length_is_found(disk: SimDisk, sent: Sent) -> None:
    size = len(sent.content)
    for length in [*range(0, size, 997), *range(size - 2 * TRAILER_BYTES, size)]:
        reason = damaged_is_refused(disk, sent.content[:length])
        assert reason in (
            "the file ends within its header",
            "the file ends before its trailer does",
        )
    assert "goes on behind its trailer" in damaged_is_refused(disk, sent.content + b"\0")


@pytest.mark.long
def test_rule_10_every_flipped_byte_of_a_file_is_found(disk: SimDisk) -> None:
    """All of those that the tests above take a sample of, on a disk, by all readers."""
    sent = sent_snapshot(LAST, size=100)
    reasons = Counter[str]()
    for offset in range(len(sent.content)):
        changed = bytearray(sent.content)
        changed[offset] ^= 1 << (offset % 8)
        is_header = offset < HEADER_BYTES
        is_blob = not is_header and offset < len(sent.content) - TRAILER_BYTES
        reason = damaged_is_refused(disk, bytes(changed), loads_only=is_blob)
        reasons["the header" if is_header else reason] += 1
    assert reasons == {
        "the header": HEADER_BYTES,
        "the content's hash does not match": 100,
        "the trailer's checksum does not match": TRAILER_BYTES,
    }
    # A whole one passes.
    disk.write(PATH, sent.content)
    assert load_blob(disk, NAME) == blob_of(LAST, 100).content


@pytest.mark.long
def test_rule_10_every_cut_of_a_file_is_found(disk: SimDisk) -> None:
    sent = sent_snapshot(LAST, size=100)
    reasons = Counter(
        damaged_is_refused(disk, sent.content[:length]) for length in range(len(sent.content))
    )
    assert reasons == {
        "the file ends within its header": HEADER_BYTES,
        "the file ends before its trailer does": 100 + TRAILER_BYTES,
    }


def test_rule_10_parts_of_two_snapshots_are_no_snapshot(disk: SimDisk, sent: Sent) -> None:
    other = sent_snapshot(LAST, size=3001).content
    reason = damaged_is_refused(disk, sent.content[:-TRAILER_BYTES] + other[-TRAILER_BYTES:])
    assert reason == "header and trailer belong to different snapshots"
    older = sent_snapshot(EntryId(3, 89))
    reason = damaged_is_refused(disk, older.content)
    assert reason.startswith("by its content this is 00000000000000000089-3.snapshot")
    reason = damaged_is_refused(disk, older.content[:HEADER_BYTES] + sent.content[HEADER_BYTES:])
    assert reason.startswith("by its content")


def test_rule_10_a_sound_header_that_no_writer_makes_is_refused(disk: SimDisk) -> None:
    for header in (
        encode_header(meta_of(LAST), -1),
        encode_header(meta_of(LAST), 1 << 61),
        sealed(b"\x92\x01\x90"),
        sealed(b""),
        sealed(encode_header(meta_of(LAST), 0)[12:400]),
    ):
        assert "header" in damaged_is_refused(disk, header + encode_trailer(0, bytes(32)))


def sealed(payload: bytes) -> bytes:
    """A header block around this payload."""
    fields = b"RKS\x01" + len(payload).to_bytes(4, "little")
    rest = payload.ljust(HEADER_BYTES - 12, b"\0")
    crc: int = google_crc32c.value(fields + rest)
    return fields + crc.to_bytes(4, "little") + rest


def test_rule_10_damage_where_the_log_stands_on_it_is_refused_at_start(
    disk: SimDisk, sent: Sent
) -> None:
    wal = restart(disk).wal
    info = run_task(disk, receive(sent))
    run_task(disk, wal.append_snapshot(info, installs=True))
    for offset in [*range(0, HEADER_BYTES, 4099), *range(-TRAILER_BYTES, 0)]:
        changed = bytearray(sent.content)
        changed[offset] ^= 1
        disk.write(PATH, bytes(changed))
        with pytest.raises(CorruptionError, match=f"^{PATH}: .* must rejoin as a new one"):
            restart(disk)
    disk.write(PATH, sent.content)
    assert restart(disk).base == LAST


# ---- no room, and sources that fail --------------------------------------------------------


def test_rule_11_a_snapshot_that_does_not_fit_is_refused_before_it_is_begun(
    disk: SimDisk, sent: Sent
) -> None:
    used = sum(len(disk.read(path)) for path in disk.paths())
    disk.capacity_bytes = used + len(sent.content) + 99
    match = "does not fit: .* bytes are free, and 100 must remain"
    nothing_changed(disk, write_snapshot(meta_of(LAST), blob_of(LAST), keep_free_bytes=100), match)
    nothing_changed(disk, SnapshotReceiver(sent.info, keep_free_bytes=100).begin(), match)
    run_task(disk, write_snapshot(meta_of(LAST), blob_of(LAST), keep_free_bytes=99))


def test_rule_11_a_disk_that_fills_up_on_the_way_costs_the_snapshot_only(disk: SimDisk) -> None:
    used = sum(len(disk.read(path)) for path in disk.paths())
    for room in (HEADER_BYTES + 10, HEADER_BYTES + 3000 + 10):
        disk.capacity_bytes = used + room
        task = write_snapshot(meta_of(LAST, size=0), blob_of(LAST))
        # The state was said to be smaller than it is, or others took the room meanwhile.
        nothing_changed(disk, skip_first(task), "was not made: No space left on device")
        assert not open_snapshots(disk)


def skip_first(task: DiskTask[SnapshotInfo]) -> DiskTask[SnapshotInfo]:
    """The task on a disk whose free space was asked for in better times."""
    next(task)
    ops = task.send([1 << 40])
    while True:
        try:
            results = yield ops
        except DiskError as error:
            ops = task.throw(error)
        else:
            try:
                ops = task.send(results)
            except StopIteration as stop:
                info: SnapshotInfo = stop.value
                return info


@dataclass(frozen=True)
class Failing:
    """A source or sink that fails half way."""

    error: Exception

    def write_to(self, file: BinaryIO) -> None:
        file.write(b"half")
        raise self.error

    def read_from(self, file: BinaryIO, size: int) -> None:
        file.read(size // 2)
        raise self.error


def test_a_source_that_fails_costs_the_snapshot_only(disk: SimDisk) -> None:
    task = write_snapshot(meta_of(LAST), Failing(RuntimeError("a page is gone")))
    nothing_changed(disk, task, "was not made: RuntimeError: a page is gone")
    task = write_snapshot(meta_of(LAST), Failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(DiskError, match="writefrom failed: Input/output error"):
        run_task(disk, task)
    restart(disk)
    assert not any("snapshot" in path for path in disk.paths())


def test_a_sink_that_fails_is_reported(disk: SimDisk) -> None:
    run_task(disk, make_snapshot(LAST))
    with pytest.raises(DiskError, match="readinto failed: RuntimeError: no engine") as raised:
        run_task(disk, load(NAME, Failing(RuntimeError("no engine"))))
    assert raised.value.errno is None


# ---- receiving -----------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [777, 65536, 1 << 20])
def test_what_was_sent_is_received(disk: SimDisk, sent: Sent, piece_bytes: int) -> None:
    assert run_task(disk, receive(sent, piece_bytes)) == sent.info
    assert disk.read(PATH) == sent.content
    assert not open_snapshots(disk)
    for seed in range(10):
        after = disk.clone()
        after.power_loss(Random(seed))
        assert after.read(PATH) == sent.content


def test_rule_11_a_long_transfer_is_synced_on_its_way(disk: SimDisk) -> None:
    size = 20 << 20
    info = SnapshotInfo(NAME, size, bytes(32), meta_of(LAST))
    receiver = SnapshotReceiver(info)
    run_task(disk, receiver.begin())
    synced = []
    for offset in range(0, 17 << 20, 1 << 20):
        before = disk.op_count
        run_task(disk, receiver.write(offset, bytes(1 << 20)))
        synced.append(disk.op_count - before == 2)
    assert synced == [*[False] * 7, True] * 2 + [False]


def test_a_transfer_goes_on_where_it_stopped(disk: SimDisk, sent: Sent) -> None:
    receiver = SnapshotReceiver(sent.info)
    run_task(disk, receiver.begin())
    assert run_task(disk, receiver.write(0, sent.content[:30_000])) == 30_000
    assert receiver.accepts(sent.info)
    assert not receiver.accepts(sent_snapshot(LAST, size=3001).info)
    # The sender repeats what it is not sure of: all, some, or none of it is news.
    assert run_task(disk, receiver.write(0, sent.content[:10_000])) == 30_000
    assert run_task(disk, receiver.write(20_000, sent.content[20_000:50_000])) == 50_000
    assert run_task(disk, receiver.write(50_000, b"")) == 50_000
    run_task(disk, receiver.write(50_000, sent.content[50_000:]))
    assert run_task(disk, receiver.finish()) == sent.info
    assert disk.read(PATH) == sent.content


def begun(sent: Sent, then: Callable[[SnapshotReceiver], DiskTask[Any]]) -> DiskTask[Any]:
    """Receive the first half of a snapshot, and go on."""
    receiver = SnapshotReceiver(sent.info)
    yield from receiver.begin()
    yield from receiver.write(0, sent.content[:1000])
    return (yield from then(receiver))


def test_rule_10_what_is_not_as_offered_is_refused(disk: SimDisk, sent: Sent) -> None:
    content = sent.content
    nothing_changed(
        disk,
        begun(sent, lambda receiver: receiver.write(1001, b"x")),
        "was not taken: bytes 1001 to 1002 came after byte 1000",
    )
    nothing_changed(
        disk,
        begun(sent, lambda receiver: receiver.write(500, content[500:] + b"x")),
        f"was not taken: bytes 500 to {len(content) + 1} came after byte 1000",
    )
    nothing_changed(
        disk, begun(sent, SnapshotReceiver.finish), f"1000 of {len(content)} bytes were received"
    )
    for offset in range(0, len(content), 4001):
        changed = bytearray(content)
        changed[offset] ^= 1
        nothing_changed(disk, receive(Sent(sent.info, bytes(changed))), "was not taken: ")
    assert not open_snapshots(disk)


def test_rule_10_another_snapshot_than_the_one_offered_is_refused(
    disk: SimDisk, sent: Sent
) -> None:
    # Sound in itself, and of the same length.
    other = sent_snapshot(LAST, cluster_id="c2")
    assert len(other.content) == len(sent.content)
    match = "was not taken: it is not the one that was offered"
    nothing_changed(disk, receive(Sent(sent.info, other.content)), match)
    info = msgspec.structs.replace(sent.info, digest=bytes(32))
    nothing_changed(disk, receive(Sent(info, sent.content)), match)


def test_an_offer_that_makes_no_sense_is_refused(disk: SimDisk, sent: Sent) -> None:
    for changed in (
        {"name": "../identity"},
        {"name": snapshot_name(EntryId(3, 91))},
        {"size_bytes": HEADER_BYTES},
        {"size_bytes": -1},
    ):
        offer = msgspec.structs.replace(sent.info, **changed)
        nothing_changed(disk, SnapshotReceiver(offer).begin(), "no snapshot can be")
    offer = msgspec.structs.replace(sent.info, size_bytes=1 << 62)
    nothing_changed(disk, SnapshotReceiver(offer).begin(), "does not fit")


def test_rule_11_a_disk_that_fills_up_while_receiving_costs_the_snapshot_only(
    disk: SimDisk, sent: Sent
) -> None:
    # Free space is asked for first; then open, truncate, allocate and write may find none.
    for number in range(2, 6):
        disk.fail_at(disk.op_count + number, errno.ENOSPC)
        task = begun(sent, SnapshotReceiver.abandon)
        nothing_changed(disk, task, "was not taken: No space left on device")
        assert not open_snapshots(disk)


def test_an_abandoned_transfer_leaves_nothing(disk: SimDisk, sent: Sent) -> None:
    before = disk.paths()
    run_task(disk, begun(sent, SnapshotReceiver.abandon))
    assert disk.paths() == before
    assert not open_snapshots(disk)
    # One that a crash ended is removed at the next start.
    run_task(disk, begun(sent, lambda receiver: receiver.write(0, b"")))
    assert disk.paths() == sorted([*before, PATH + ".receiving.tmp"])
    open_on(disk)
    assert disk.paths() == before


def test_a_snapshot_is_made_and_received_at_once(disk: SimDisk, sent: Sent) -> None:
    receiver = SnapshotReceiver(sent.info)
    run_task(disk, receiver.begin())
    run_task(disk, receiver.write(0, sent.content[:50_000]))
    assert run_task(disk, make_snapshot(LAST)) == sent.info
    run_task(disk, receiver.write(50_000, sent.content[50_000:]))
    assert run_task(disk, receiver.finish()) == sent.info
    assert run_task(disk, verify_snapshot(NAME)) == sent.info
