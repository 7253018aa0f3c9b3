"""Fuzzed: what is on disk. Segments of the log, snapshots, the identity."""

from functools import cache

import google_crc32c

from raftkv.kv.environment import decode_state, encode_state
from raftkv.raft.messages import HardState
from raftkv.storage.disk import run_task
from raftkv.storage.errors import CorruptionError, SnapshotRefusedError, StorageError
from raftkv.storage.identity import decode_identity, encode_identity
from raftkv.storage.record import (
    HEADER_BYTES,
    decode_frame,
    decode_record,
    encode_frame,
    encode_record,
    find_later_frame,
    frame_bytes,
)
from raftkv.storage.snapshots import (
    HEADER_BYTES as SNAPSHOT_HEADER_BYTES,
)
from raftkv.storage.snapshots import (
    Checksum,
    decode_header,
    decode_trailer,
    verify_snapshot,
)
from tests.fuzz.support import Taken, must
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    SEGMENT_BYTES,
    found_on,
    frames_of,
    make_entries,
    open_on,
    restart,
    segment_path,
    state_of,
)


def wal_frame(data: bytes) -> None:
    """Frames and records: undamaged ones come out as they went in, others not at all."""
    taken = Taken(data)
    mode = taken.number(1)
    content = taken.rest
    if mode % 2:
        chunks, _ = encode_frame(content, salt=mode, sequence=7, durable_sequence=6, previous_crc=5)
        content = b"".join(chunks)
    frame = decode_frame(content, 0)
    assert (frame is not None) or not mode % 2
    find_later_frame(content, 0, sequence=1, salt=mode)
    if frame is None:
        return
    again, crc = encode_frame(
        frame.payload,
        salt=frame.salt,
        sequence=frame.sequence,
        durable_sequence=frame.durable_sequence,
        previous_crc=frame.previous_crc,
    )
    used = HEADER_BYTES + len(frame.payload)
    assert (b"".join(again)[:used], crc) == (content[:used], frame.crc)
    try:
        record = decode_record(frame.payload)
    except ValueError:
        return
    assert decode_record(encode_record(record)) == record


@cache
def _log() -> SimDisk:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(HardState(1, 7, 0), make_entries(1, 3)))
    run_task(disk, recovered.wal.append(HardState(2, None, 2), make_entries(4, 2, term=2)))
    disk.kill()
    return disk


def wal_recovery(data: bytes) -> None:
    """A directory with a made-up log: recovered, the same again a second time, or refused."""
    disk = _log().clone()
    path = segment_path("00000001.active")
    content = bytearray(disk.read(path))
    taken = Taken(data)
    mode = taken.number(1)
    if mode % 3 == 0:
        place = taken.number(2) % len(content)
        content[place : place + len(taken.rest)] = taken.rest
        del content[SEGMENT_BYTES:]
    else:
        frames = list(frames_of(bytes(content)))
        kept = frames[: mode % len(frames)] if mode % 3 == 1 else frames
        at = kept[-1].end if kept else 0
        crc = kept[-1].crc if kept else 0
        sequence = kept[-1].sequence if kept else 0
        for payload in taken.pieces():
            if at + frame_bytes(len(payload)) > len(content):
                break
            sequence += 1
            chunks, crc = encode_frame(
                payload,
                salt=frames[0].salt,
                sequence=sequence,
                durable_sequence=sequence - 1,
                previous_crc=crc,
            )
            written = b"".join(chunks)
            content[at : at + len(written)] = written
            at += len(written)
        content[at:] = bytes(len(content) - at)
    disk.write(path, bytes(content))
    _opens_or_refuses(disk)


def _opens_or_refuses(disk: SimDisk) -> None:
    before = {path: disk.read(path) for path in disk.paths()}
    try:
        recovered = open_on(disk)
    except StorageError as error:
        must(str(error))
        must({path: disk.read(path) for path in disk.paths()} == before)
        return
    assert recovered.hard_state.commit <= state_of(recovered).last_index
    assert state_of(restart(disk)) == state_of(recovered)


def identity(data: bytes) -> None:
    """An identity file: what it says, or refused; what is read is written the same."""
    taken = Taken(data)
    mode = taken.number(1)
    content = taken.rest
    if mode:
        body = content.rstrip(b"\n") + b"\n"
        content = b"raftkv identity 1 crc32c %08x\n%s" % (google_crc32c.value(body), body)
    try:
        found = decode_identity(content)
    except CorruptionError as error:
        must("must rejoin as a new one" in str(error))
        return
    assert decode_identity(encode_identity(found)) == found


def env_state(data: bytes) -> None:
    """The file that vouches for the state machine: read, or taken for unreadable."""
    state = decode_state(data)
    assert state is None or decode_state(encode_state(state)) == state


def snapshot_header(data: bytes) -> None:
    """Header and trailer of a snapshot, sealed or not, and files around them."""
    taken = Taken(data)
    mode = taken.number(1)
    block = taken.rest
    if mode % 2:
        payload = block[: SNAPSHOT_HEADER_BYTES - 12]
        fields = b"RKS\x01" + len(payload).to_bytes(4, "little")
        rest = payload.ljust(SNAPSHOT_HEADER_BYTES - 12, b"\0")
        block = fields + google_crc32c.value(fields + rest).to_bytes(4, "little") + rest
    for judge in (
        lambda: decode_header(block),
        lambda: decode_trailer(block[:48], mode),
        lambda: _checksum(block),
    ):
        try:
            judge()
        except ValueError as error:
            must(str(error))
    disk = _log().clone()
    name = "00000000000000000004-2.snapshot"
    disk.write(f"snapshots/{name}", block)
    try:
        run_task(disk, verify_snapshot(name))
    except (CorruptionError, SnapshotRefusedError) as error:
        must(name in str(error))


def _checksum(content: bytes) -> None:
    checksum = Checksum()
    for start in range(0, len(content), 1000):
        checksum.update(content[start : start + 1000])
    checksum.verify()
