"""Fuzzed: what peers send, from a connection's first byte to a message's content."""

from typing import Any, cast

import google_crc32c

from raftkv.node.requests import _decode_reply, _is_command
from raftkv.raft.confchange import decode_config_change
from raftkv.raft.messages import Append as AppendMessage
from raftkv.raft.messages import Entry, EntryType, NodeId, decode_conf_state
from raftkv.raft.validation import is_plausible
from raftkv.server.frames import (
    PREAMBLE,
    FrameReader,
    Hello,
    ProbeReply,
    ProtocolError,
    Refused,
    Reply,
    decode_opening,
    decode_peer_frame,
    decode_reply,
    encode,
)
from raftkv.server.peer_connection import Certificate, Incoming
from tests.fuzz.support import Sink, Taken, must


class _Owner:
    """The receiving side of peer connections: whoever knows our name may come in."""

    def opened(self, connection: Incoming) -> tuple[Refused, str] | None:
        return None

    def check_hello(
        self, hello: Hello, certificate: Certificate | None
    ) -> tuple[Refused, str] | None:
        return None if hello.receiver == 2 else (Refused.WRONG_RECEIVER, "not me")

    def greeted(self, connection: Incoming, hello: Hello) -> None: ...

    def answer_probe(self, sender: NodeId) -> Reply:
        return ProbeReply("n", 2, None, "running", "h:1", "http://h:2", None, None)

    def received(self, frame: Any) -> None:
        assert frame.receiver == 2

    def refused(self, reason: Refused, origin: object, detail: str) -> None:
        assert reason in Refused

    def closed(self, connection: Incoming) -> None: ...


def peer_stream(data: bytes) -> None:
    """A connection to the peer port: frames are taken or the connection is cut, never more."""
    taken = Taken(data)
    mode, step = taken.number(1), taken.number(1) + 1
    content = taken.rest
    if mode % 4:
        bodies = taken.pieces()
        content = PREAMBLE if mode % 4 == 1 else b""
        for body in bodies:
            length = len(body).to_bytes(4, "little")
            content += length + google_crc32c.value(length).to_bytes(4, "little")
            content += google_crc32c.value(body).to_bytes(4, "little") + body
    if mode % 4 == 2:
        reader = FrameReader(expects_preamble=False)
        try:
            for start in range(0, len(content), step):
                for body in reader.feed(content[start : start + step]):
                    decode_reply(body)
        except ProtocolError as error:
            must(error.reason in Refused)
        return
    if mode % 4 == 3:
        content = PREAMBLE + b"".join(encode(Hello("c1", 1, 2, 0))) + content
    connection, sink = Incoming(_Owner()), Sink()
    connection.connection_made(sink)
    for start in range(0, len(content), step):
        if not sink.is_closed:
            connection.data_received(content[start : start + step])
    connection.connection_lost(None)


def peer_message(data: bytes) -> None:
    """A body behind its checksum: decoded or refused, and plausible or dropped, never a crash."""
    for decode in (decode_opening, decode_reply):
        try:
            decode(data)
        except ProtocolError:
            continue
    assert _is_command(data) in (True, False)
    assert _decode_reply(data) is not None
    try:
        frame = decode_peer_frame(data)
    except ProtocolError:
        return
    for message in frame.messages:
        if hasattr(message, "receiver"):
            is_plausible(cast("Any", message), 2)
    assert decode_peer_frame(encode(frame)[1]) == frame


def configuration(data: bytes) -> None:
    """The data of an entry with a configuration, and an order to change one."""
    entry = Entry(1, 2, EntryType.CONFIG, data)
    message = AppendMessage(1, 2, 1, 1, 1, 1, 0, (entry,))
    if is_plausible(message, 2):
        assert decode_conf_state(data).voters
    try:
        decode_config_change(data)
    except ValueError as error:
        must(str(error))
