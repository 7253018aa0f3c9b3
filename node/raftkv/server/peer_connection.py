"""The two ends of one peer connection: introductions, identity checks, frames in and out.

Used by `raftkv.server.transport`, which decides whom to connect to and what to send; `probe` is
used by `raftkv.server.formation`. Nothing here outlives its socket.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, cast

from raftkv.node.messages import PeerFrame
from raftkv.raft.messages import NodeId
from raftkv.server.addresses import parse_address
from raftkv.server.frames import (
    BODY_BYTES_MAX,
    PREAMBLE,
    FrameReader,
    Hello,
    Opening,
    Probe,
    ProbeReply,
    ProtocolError,
    Refusal,
    Refused,
    Reply,
    Welcome,
    decode_opening,
    decode_peer_frame,
    decode_reply,
    encode,
)
from raftkv.server.tls import describe

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

#: What `ssl.SSLSocket.getpeercert` tells of a certificate that was verified.
Certificate = Mapping[str, Any]

CONNECT_SECONDS_MAX: Final = 2.0
UNACKNOWLEDGED_SECONDS_MAX: Final = 3.0
SILENT_SWEEPS_MAX: Final = 5


class IncomingOwner(Protocol):
    """What an incoming connection asks and tells: implemented by `PeerTransport`."""

    def opened(self, connection: "Incoming") -> tuple[Refused, str] | None:
        """A connection was accepted by the kernel; why it may not stay, or None."""
        ...

    def check_hello(
        self, hello: Hello, certificate: Certificate | None
    ) -> tuple[Refused, str] | None:
        """Why the connection is not for this node, or None (rule 15).

        ``certificate`` is the verified one of the other end; None: the link is not encrypted.
        """
        ...

    def greeted(self, connection: "Incoming", hello: Hello) -> None:
        """``connection`` is from now on the way in of one peer's channel."""
        ...

    def answer_probe(self, sender: NodeId) -> Reply:
        """The answer to a probe."""
        ...

    def received(self, frame: PeerFrame) -> None:
        """A frame came in."""
        ...

    def refused(self, reason: Refused, origin: object, detail: str) -> None:
        """A connection from ``origin`` was cut."""
        ...

    def closed(self, connection: "Incoming") -> None:
        """A connection ended."""
        ...


async def open_outgoing(
    peer_url: str,
    opening: Opening,
    received: Callable[[PeerFrame], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> "Outgoing":
    """Connect and introduce ourselves. Raises OSError, ProtocolError or ValueError.

    ``received`` is given the frames that come back on the connection of a `Hello`. With ``tls``
    the peer must show a certificate that names the host of ``peer_url``.
    """
    address = parse_address(peer_url)
    loop = asyncio.get_running_loop()
    connection: Outgoing | None = None
    try:
        # Also bounds the name look-up, which has time limits of its own.
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, connection = await loop.create_connection(
                lambda: Outgoing(opening, received),
                address.host,
                address.port,
                ssl=tls,
                server_hostname=None if tls is None else address.host,
            )
            connection.write((PREAMBLE, *encode(opening)))
            reply = await connection.reply
    except BaseException as error:
        if connection is not None:
            connection.abort()
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"no answer within {CONNECT_SECONDS_MAX:g} s") from None
        if isinstance(error, ssl.SSLError):
            raise ConnectionError(f"TLS: {describe(error)}") from None
        if isinstance(error, ConnectionError) and connection is None and not str(error):
            raise ConnectionResetError("the peer hung up during the TLS handshake") from None
        raise
    if isinstance(reply, Refusal):
        connection.abort()
        raise ConnectionRefusedError(f"{reply.reason}: {reply.detail}")
    connection.opening_reply = reply
    return connection


async def probe(peer_url: str, sender: NodeId, tls: ssl.SSLContext | None = None) -> ProbeReply:
    """Ask the node at ``peer_url`` who it is. Raises OSError (also TimeoutError) or ValueError."""
    try:
        connection = await open_outgoing(peer_url, Probe(sender), tls=tls)
    except ProtocolError as error:
        raise ConnectionError(f"not a raftkv peer port of this version: {error}") from None
    connection.abort()
    if not isinstance(connection.opening_reply, ProbeReply):
        raise ConnectionError("the node did not say who it is")
    return connection.opening_reply


class _Connection(asyncio.Protocol):
    """What both ends have in common."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        _set_socket_options(transport.get_extra_info("socket"))

    def write(self, parts: Iterable[bytes]) -> None:
        self._transport.writelines(parts)

    def send(self, frame: PeerFrame, queue_bytes_max: int) -> bool:
        """Whether ``frame`` was taken: not when more than ``queue_bytes_max`` wait already."""
        if self._transport.is_closing() or self.queued_bytes() > queue_bytes_max:
            return False
        self.write(encode(frame))
        return True

    def queued_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        self._transport.abort()


class Outgoing(_Connection):
    """The end that connected: introduces itself, then sends, and hears what comes back."""

    def __init__(self, opening: Opening, received: Callable[[PeerFrame], None] | None) -> None:
        super().__init__(FrameReader(expects_preamble=False))
        self._opening = opening
        self._received = received
        loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[Reply] = loop.create_future()
        self.opening_reply: Reply | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    @override
    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                if self.reply.done():
                    self._on_frame(body)
                else:
                    self._on_reply(decode_reply(body))
        except ProtocolError as error:
            if not self.reply.done():
                self.reply.set_exception(error)
            self.abort()

    def _on_reply(self, reply: Reply) -> None:
        if isinstance(reply, Welcome):
            self._reader.body_bytes_max = BODY_BYTES_MAX
        self.reply.set_result(reply)

    def _on_frame(self, body: bytes) -> None:
        frame, opening = decode_peer_frame(body), self._opening
        if self._received is None or not isinstance(opening, Hello):
            raise ProtocolError(Refused.MALFORMED)
        if (frame.sender, frame.receiver) != (opening.receiver, opening.sender):
            raise ProtocolError(Refused.WRONG_SENDER)
        self._received(frame)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc or ConnectionResetError("the peer hung up"))
            self.reply.exception()  # whoever waited may have been cancelled
        if not self.ended.done():
            self.ended.set_result(None)


class Incoming(_Connection):
    """The receiving end: checks who speaks, then hands frames on."""

    def __init__(self, owner: IncomingOwner) -> None:
        super().__init__(FrameReader(expects_preamble=True))
        self._owner = owner
        self._silent_sweeps = 0
        self._is_cut = False
        self.hello: Hello | None = None  # once it is accepted

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        refusal = self._owner.opened(self)
        if refusal is not None:
            self._cut(*refusal)

    @override
    def data_received(self, data: bytes) -> None:
        self._silent_sweeps = 0
        try:
            for body in self._reader.feed(data):
                if self._is_cut:
                    return
                if self.hello is None:
                    self._on_opening(decode_opening(body))
                else:
                    self._on_frame(self.hello, body)
        except ProtocolError as error:
            self._cut(error.reason, "not the peer protocol of this version")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.closed(self)

    def count_silence(self) -> None:
        """A sweep found the connection open; too many without a byte between them cut it."""
        self._silent_sweeps += 1
        if self._silent_sweeps > SILENT_SWEEPS_MAX:
            self._cut(Refused.SILENT, "no sign of life")

    def _on_opening(self, opening: Opening) -> None:
        if isinstance(opening, Probe):
            self.write(encode(self._owner.answer_probe(opening.sender)))
            self._is_cut = True
            self._transport.close()
            return
        certificate: Certificate | None = self._transport.get_extra_info("peercert")
        refusal = self._owner.check_hello(opening, certificate)
        if refusal is not None:
            self.write(encode(Refusal(refusal[0].value, refusal[1])))
            self._cut(*refusal)
            return
        self.hello = opening
        self._reader.body_bytes_max = BODY_BYTES_MAX
        self._owner.greeted(self, opening)
        self.write(encode(Welcome()))

    def _on_frame(self, hello: Hello, body: bytes) -> None:
        frame = decode_peer_frame(body)
        if frame.sender != hello.sender or frame.receiver != hello.receiver:
            raise ProtocolError(Refused.WRONG_SENDER)
        self._owner.received(frame)

    def _cut(self, reason: Refused, detail: str) -> None:
        if not self._is_cut:
            self._is_cut = True
            self._owner.refused(reason, self._transport.get_extra_info("peername"), detail)
            self._transport.close()


def _set_socket_options(sock: socket.socket) -> None:
    """Small frames at once, and dead peers found in seconds. Options a system lacks are left."""
    wanted = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 2),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(UNACKNOWLEDGED_SECONDS_MAX * 1000)),
    ]
    for level, name, value in wanted:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)
