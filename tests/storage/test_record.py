"""Frames and records: bytes <-> values."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft.messages import (
    ConfState,
    Entry,
    EntryId,
    EntryType,
    HardState,
    encode_conf_state,
)
from raftkv.storage.record import (
    HEADER_BYTES,
    SECTOR_BYTES,
    Append,
    SegmentStart,
    Snapshot,
    SnapshotRef,
    decode_frame,
    decode_record,
    encode_frame,
    encode_record,
    find_later_frame,
    frame_bytes,
)

U32 = st.integers(0, (1 << 32) - 1)
U63 = st.integers(0, (1 << 63) - 1)
U64 = st.integers(0, (1 << 64) - 1)
HARD_STATES = st.builds(HardState, term=U63, vote=st.none() | U64, commit=U63)
ENTRIES = st.builds(
    Entry, term=U63, index=U63, type=st.sampled_from(EntryType), data=st.binary(max_size=2000)
)
RECORDS = st.one_of(
    st.builds(
        SegmentStart,
        number=U63,
        size_bytes=U63,
        member_id=U64,
        last=st.builds(EntryId, term=U63, index=U63),
        hard_state=HARD_STATES,
    ),
    st.builds(Append, hard_state=st.none() | HARD_STATES, entries=st.lists(ENTRIES, max_size=5)),
)


def frame_of(payload: bytes, *, sequence: int = 5, salt: int = 77) -> bytes:
    chunks, _ = encode_frame(
        payload, salt=salt, sequence=sequence, durable_sequence=sequence - 1, previous_crc=123
    )
    return b"".join(chunks)


@given(RECORDS)
def test_a_record_survives_encoding(record: Append | SegmentStart) -> None:
    assert decode_record(encode_record(record)) == record


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_refused_in_one_way(data: bytes) -> None:
    try:
        record = decode_record(data)
    except msgspec.MsgspecError:
        return
    assert isinstance(record, Append | SegmentStart)


@given(st.binary(max_size=3000), U64, U64, U64, U32)
def test_a_frame_survives_encoding(
    payload: bytes, salt: int, sequence: int, durable_sequence: int, previous_crc: int
) -> None:
    chunks, crc = encode_frame(
        payload,
        salt=salt,
        sequence=sequence,
        durable_sequence=durable_sequence,
        previous_crc=previous_crc,
    )
    data = bytes(SECTOR_BYTES) + b"".join(chunks) + b"what follows"
    frame = decode_frame(data, SECTOR_BYTES)
    assert frame is not None
    assert frame.offset == SECTOR_BYTES
    assert frame[1:] == (sequence, salt, durable_sequence, previous_crc, crc, payload)
    assert frame.end == SECTOR_BYTES + sum(map(len, chunks))
    assert frame.end % SECTOR_BYTES == 0


@pytest.mark.parametrize("size", [0, 1, 471, 472, 473, 4096, 1 << 20])
def test_a_payload_of_zeros_is_a_payload(size: int) -> None:
    data = frame_of(bytes(size))
    assert len(data) == frame_bytes(size)
    frame = decode_frame(data, 0)
    assert frame is not None
    assert frame.payload == bytes(size)


def test_an_entry_of_zeros_over_whole_sectors_survives() -> None:
    record = Append(None, [Entry(1, 1, EntryType.NORMAL, bytes(4096))])
    frame = decode_frame(frame_of(encode_record(record)), 0)
    assert frame is not None
    assert decode_record(frame.payload) == record


@settings(max_examples=30)
@given(st.binary(max_size=40))
def test_rule_07_every_flipped_bit_makes_a_frame_invalid(payload: bytes) -> None:
    data = frame_of(payload)
    for offset in range(HEADER_BYTES + len(payload)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << bit
            assert decode_frame(bytes(damaged), 0) is None, (offset, bit)


@given(st.binary(min_size=1, max_size=1500), st.data())
def test_rule_07_no_prefix_of_a_frame_is_a_frame(payload: bytes, data: st.DataObject) -> None:
    used = frame_of(payload)[: HEADER_BYTES + len(payload)]
    length = data.draw(st.integers(0, len(used) - 1))
    assert decode_frame(used[:length], 0) is None
    # Whatever stands for the rest, unless it happens to be the rest.
    if any(used[length:]):
        assert decode_frame(used[:length].ljust(len(used), b"\0"), 0) is None


@pytest.mark.parametrize(
    ("sequence", "salt", "is_found"),
    [(6, 77, True), (5, 77, False), (4, 77, False), (6, 78, False)],
)
def test_rule_07_a_later_frame_counts_by_sequence_and_salt(
    sequence: int, salt: int, is_found: bool
) -> None:
    data = bytes(3 * SECTOR_BYTES) + frame_of(b"later", sequence=sequence, salt=salt)
    later = find_later_frame(data, 0, sequence=5, salt=77)
    assert (later is not None) is is_found
    if later is not None:
        assert (later.offset, later.sequence) == (3 * SECTOR_BYTES, sequence)


def test_rule_07_a_later_frame_is_found_whatever_the_damaged_length_says() -> None:
    damaged = bytearray(frame_of(bytes(5000)))
    damaged[4:8] = b"\xff\xff\xff\xff"
    data = bytes(damaged) + frame_of(b"later", sequence=6)
    later = find_later_frame(data, 0, sequence=5, salt=77)
    assert later is not None
    assert later.payload == b"later"


def test_the_format_is_what_the_documentation_says() -> None:
    # Written out by hand after docs/file-formats.md: a change here is a change of the format.
    payload = encode_record(Append(HardState(3, 7, 1), [Entry(3, 2, EntryType.NORMAL, b"hi")]))
    assert payload == b"\x93\x02" + b"\x93\x03\x07\x01" + b"\x91\x94\x03\x02\x00\xc4\x02hi"
    start = SegmentStart(2, 4096, 5, EntryId(3, 1), HardState(3, None, 1))
    body = b"\x01\x02\xcd\x10\x00\x05" + b"\x92\x03\x01" + b"\x93\x03\xc0\x01"
    assert encode_record(start) == b"\x97" + body + b"\xc0"
    # As logs without snapshots were written before there were any.
    assert decode_record(b"\x96" + body) == start
    ref = SnapshotRef(EntryId(3, 1), 1, ConfState((5,)), b"hash", "name")
    assert encode_record(Snapshot(ref, True, HardState(3, None, 1), [])) == (
        b"\x95\x03"
        + (b"\x95\x92\x03\x01\x01" + encode_conf_state(ConfState((5,))))
        + b"\xc4\x04hash\xa4name\xc3\x93\x03\xc0\x01\x90"
    )
    chunks, crc = encode_frame(
        payload,
        salt=0x1122334455667788,
        sequence=9,
        durable_sequence=8,
        previous_crc=0xAABBCCDD,
    )
    fields = (
        b"RKW\x01"
        + len(payload).to_bytes(4, "little")
        + bytes.fromhex("8877665544332211")
        + (9).to_bytes(8, "little")
        + (8).to_bytes(8, "little")
        + bytes.fromhex("ddccbbaa")
    )
    assert crc == 0x918E7980
    frame = fields + crc.to_bytes(4, "little") + payload
    assert b"".join(chunks) == frame.ljust(SECTOR_BYTES, b"\0")
