"""The peer protocol's bytes: what is read back, and what is refused before it is understood."""

import struct
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.node.messages import ForwardReplies, ForwardWrites, PeerFrame
from raftkv.raft.messages import Append, Entry, EntryType, Heartbeat, Message
from raftkv.server.frames import (
    BODY_BYTES_MAX,
    MAGIC,
    OPENING_BYTES_MAX,
    PREAMBLE,
    SIGN_OF_LIFE,
    FrameReader,
    Hello,
    Probe,
    ProbeReply,
    ProtocolError,
    Refusal,
    Refused,
    Welcome,
    decode_opening,
    decode_peer_frame,
    decode_reply,
    encode,
)

HELLO = Hello("c1", 1, 2, 0)


def frame(*messages: Message | ForwardWrites | ForwardReplies) -> PeerFrame:
    return PeerFrame("c1", 1, 2, messages)


FRAMES = [
    frame(Heartbeat(1, 2, 7, 3, 4, 5)),
    frame(
        Append(1, 2, 7, 3, 6, 41, 40, (Entry(7, 42, EntryType.NORMAL, b"x" * 70_000),)),
        Heartbeat(1, 2, 7, 3, 4, 6),
    ),
    frame(ForwardWrites(9, ((1, b"a"), (2, b""))), ForwardReplies(9, ((1, None), (2, b"b")))),
]


def stream(*values: Any) -> bytes:
    return b"".join(part for value in values for part in encode(value))


def header(length: int, crc: int = 0) -> bytes:
    """What begins a frame of ``length`` bytes, with the checksum of that."""
    encoded = struct.pack("<I", length)
    return encoded + struct.pack("<II", google_crc32c.value(encoded), crc)


def reader() -> FrameReader:
    made = FrameReader(expects_preamble=True)
    made.body_bytes_max = BODY_BYTES_MAX
    return made


def refused_of(data: bytes, made: FrameReader | None = None) -> Refused:
    with pytest.raises(ProtocolError) as caught:
        for _ in (made or reader()).feed(data):
            pass
    return caught.value.reason


@given(st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(data: st.DataObject) -> None:
    whole = PREAMBLE + stream(FRAMES[0]) + SIGN_OF_LIFE + stream(FRAMES[2], FRAMES[0])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    made = reader()
    bodies = [body for piece in pieces for body in made.feed(piece)]
    assert [decode_peer_frame(body) for body in bodies] == [FRAMES[0], FRAMES[2], FRAMES[0]]


def test_faults_row_08_slices_of_one_byte() -> None:
    made = reader()
    bodies = [body for number in PREAMBLE + stream(*FRAMES) for body in made.feed(bytes([number]))]
    assert [decode_peer_frame(body) for body in bodies] == FRAMES


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_faults_row_09_a_flipped_bit_never_reaches_the_node(position: int, bit: int) -> None:
    data = bytearray(PREAMBLE + stream(FRAMES[2]))
    position %= len(data)
    data[position] ^= 1 << bit
    with pytest.raises(ProtocolError):
        list(reader().feed(bytes(data)))


@given(st.integers(0, 31))
def test_faults_row_09_a_flipped_bit_of_a_length_is_not_waited_for(bit: int) -> None:
    """The bytes that are missing would come from the frames behind it, for an hour."""
    data = bytearray(encode(FRAMES[2])[0])
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError):
        list(reader().feed(PREAMBLE + data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Refused.NOT_RAFTKV),
        (b"\x16\x03\x01\x02\x00\x01\x00", Refused.NOT_RAFTKV),
        (b"\x00", Refused.NOT_RAFTKV),
        (b"RAFT!", Refused.NOT_RAFTKV),
        (MAGIC + struct.pack("<H", 1), Refused.VERSION),
        (PREAMBLE + header(2**32 - 1), Refused.OVERSIZED),
        (PREAMBLE + header(BODY_BYTES_MAX + 1), Refused.OVERSIZED),
        (PREAMBLE + header(3, 12345) + b"abc", Refused.CHECKSUM),
        (PREAMBLE + struct.pack("<III", 3, 0, 12345), Refused.CHECKSUM),
    ],
)
def test_faults_row_27_garbage_is_refused_with_a_reason(data: bytes, reason: Refused) -> None:
    assert refused_of(data) == reason


def test_a_stranger_may_not_send_much() -> None:
    made = FrameReader(expects_preamble=True)
    assert refused_of(PREAMBLE + header(OPENING_BYTES_MAX + 1), made) == Refused.OVERSIZED


def test_an_incomplete_frame_is_not_looked_at_again_for_every_piece() -> None:
    """A peer that sends a large frame in tiny pieces must not make us copy it each time."""
    made = reader()
    head, body = encode(FRAMES[1])
    assert list(made.feed(PREAMBLE + head)) == []
    before = made._incomplete
    for number in body[:-1]:
        assert list(made.feed(bytes([number]))) == []
    assert made._incomplete is before
    assert len(list(made.feed(body[-1:]))) == 1


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", b"\x93\x01\x02\x03", b"\xff" * 40])
def test_a_body_of_another_shape_is_malformed(body: bytes) -> None:
    for decode in (decode_opening, decode_reply, decode_peer_frame):
        with pytest.raises(ProtocolError) as caught:
            decode(body)
        assert caught.value.reason == Refused.MALFORMED


def test_openings_and_replies_survive_the_wire() -> None:
    for opening in (HELLO, Probe(7)):
        assert decode_opening(encode(opening)[1]) == opening
    probe_reply = ProbeReply("n1", 1, None, "uninitialised", "a:1", "http://a:2", "d", None)
    for reply in (Welcome(), Refusal("starting", "why"), probe_reply):
        assert decode_reply(encode(reply)[1]) == reply


def test_golden_bytes() -> None:
    """The encoding is spoken between versions: a change here needs a new protocol version."""
    head, body = encode(frame(Heartbeat(1, 2, 7, 3, 4, 5)))
    assert body.hex() == "94a26331010291970701020703040" + "5"
    assert head == header(len(body), google_crc32c.value(body))
    assert PREAMBLE.hex() == "524146544b560200"
    assert b"".join(encode(Welcome())).hex() == "02000000466800f7e64f4cbf910b"
    assert encode(HELLO)[1].hex() == "9501a26331010200"
    assert encode(Probe(7))[1].hex() == "920207"
    assert encode(Welcome())[1].hex() == "910b"
