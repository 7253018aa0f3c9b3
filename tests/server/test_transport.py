"""Real sockets on loopback: who is let in, what arrives, and what happens when links break."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from raftkv.node.events import FrameReceived, PeerDown, PeerUp
from raftkv.node.messages import Channel, PeerFrame
from raftkv.raft.messages import Append, Entry, EntryType, Heartbeat, Member
from raftkv.server import peer_connection, transport
from raftkv.server.addresses import Address
from raftkv.server.frames import (
    PREAMBLE,
    SIGN_OF_LIFE,
    FrameReader,
    Hello,
    Probe,
    ProbeReply,
    Refusal,
    Refused,
    Welcome,
    decode_reply,
    encode,
)
from raftkv.server.peer_connection import probe
from raftkv.server.transport import PeerTransport
from tests.server.waiting import until

BOTH_LOOPS = True

Event = FrameReceived | PeerUp | PeerDown


class LowestDelay:
    """Reconnects as early as it may."""

    def uniform(self, a: float, b: float) -> float:
        return a


@dataclass
class FakeNode:
    """Takes the transport's events, and is who the test says it is."""

    member_id: int | None
    cluster_id: str | None = "c1"
    events: list[Event] = field(default_factory=list)

    def post(self, event: Event) -> None:
        self.events.append(event)

    def frames(self) -> list[PeerFrame]:
        return [event.frame for event in self.events if isinstance(event, FrameReceived)]

    def links(self) -> list[PeerUp | PeerDown]:
        return [event for event in self.events if not isinstance(event, FrameReceived)]


class Host:
    """One node's transport, listening on loopback."""

    def __init__(self, member_id: int | None, cluster_id: str | None = "c1") -> None:
        self.node = FakeNode(member_id, cluster_id)
        self.refused: list[Refused] = []
        self.transport = PeerTransport(self.node, LowestDelay(), self.refused.append)
        self.address = Address("127.0.0.1", 0)

    async def listen(self, port: int = 0) -> None:
        self.address = await self.transport.listen(Address("127.0.0.1", port), self._describe)

    def _describe(self, sender: int) -> ProbeReply | None:
        if self.node.member_id is None:
            return None
        member_id, cluster_id = self.node.member_id, self.node.cluster_id
        return ProbeReply("n", member_id, cluster_id, "running", "p", "c", None, sender == 1)

    def member(self) -> Member:
        assert self.node.member_id is not None
        return Member(self.node.member_id, f"n{self.node.member_id}", str(self.address), "http://x")


StartHost = Callable[..., Awaitable[Host]]


@pytest.fixture
async def start() -> AsyncIterator[StartHost]:
    hosts: list[Host] = []

    async def start_host(
        member_id: int | None, cluster_id: str | None = "c1", port: int = 0
    ) -> Host:
        host = Host(member_id, cluster_id)
        hosts.append(host)
        await host.listen(port)
        return host

    yield start_host
    for host in hosts:
        await host.transport.close()


async def connect(left: Host, right: Host) -> None:
    """Give ``left`` its links to ``right``."""
    assert right.node.member_id is not None
    left.transport.set_peers("c1", [right.member()])
    await until("up", lambda: PeerUp(right.node.member_id or 0) in left.node.events)


def heartbeat(number: int, sender: int = 1, receiver: int = 2) -> PeerFrame:
    return PeerFrame("c1", sender, receiver, (Heartbeat(sender, receiver, 1, 0, 0, number),))


async def raw(host: Host) -> socket.socket:
    """A connection to ``host`` in the test's own hands."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, (host.address.host, host.address.port))
    return sock


async def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(10):
        while True:
            try:
                part = await loop.sock_recv(sock, 65536)
            except ConnectionResetError:
                part = b""
            if not part:
                sock.close()
                return data
            data += part


async def greet(host: Host, hello: Hello) -> socket.socket:
    """An accepted connection."""
    loop = asyncio.get_running_loop()
    sock = await raw(host)
    await loop.sock_sendall(sock, PREAMBLE + b"".join(encode(hello)))
    welcome = b"".join(encode(Welcome()))
    async with asyncio.timeout(10):
        assert await loop.sock_recv(sock, 65536) == welcome
    return sock


def replies_in(data: bytes) -> list[object]:
    return [decode_reply(body) for body in FrameReader(expects_preamble=False).feed(data)]


# ---- connecting and sending -----------------------------------------------------------------


async def test_frames_arrive_in_order_on_both_channels(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    for number in range(100):
        left.transport.send(Channel(number % 2), heartbeat(number))
    await until("all frames", lambda: len(right.node.frames()) == 100)
    for channel in (Channel.BULK, Channel.CONTROL):
        numbers = [f.messages[0].round for f in right.node.frames()]  # type: ignore[union-attr]
        assert [n for n in numbers if n % 2 == channel] == list(range(channel, 100, 2))
    assert left.transport.frames_dropped == 0


async def test_a_peer_is_up_only_when_both_links_are(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    assert left.node.links() == [PeerUp(2)]
    assert {c.hello.channel for c in right.transport._incoming if c.hello} == set(Channel)


async def test_a_large_frame_arrives_whole(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    entry = Entry(1, 1, EntryType.NORMAL, bytes(range(256)) * 16_384)
    frame = PeerFrame("c1", 1, 2, (Append(1, 2, 1, 0, 0, 0, 0, (entry,)),))
    left.transport.send(Channel.BULK, frame)
    await until("the frame", lambda: right.node.frames() == [frame])


async def test_links_come_back_after_the_peer_restarted(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    await right.transport.close()
    await until("down", lambda: left.node.links() == [PeerUp(2), PeerDown(2)])
    left.transport.send(Channel.CONTROL, heartbeat(1))
    assert left.transport.frames_dropped == 1
    again = await start(2, port=right.address.port)
    await until("up again", lambda: left.node.links() == [PeerUp(2), PeerDown(2), PeerUp(2)])
    left.transport.send(Channel.CONTROL, heartbeat(2))
    await until("the frame", lambda: again.node.frames() == [heartbeat(2)])


async def test_a_peer_is_resolved_anew_on_every_attempt(
    start: StartHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod comes back under its name with another IP."""
    left, right = await start(1), await start(2)
    loop = asyncio.get_running_loop()
    connect_for_real = loop.create_connection
    names: list[str] = []

    async def create_connection(
        factory: Callable[[], asyncio.Protocol], host: str, _port: int, **_tls: object
    ) -> object:
        names.append(host)
        port = 1 if len(names) < 5 else right.address.port
        return await connect_for_real(factory, "127.0.0.1", port)

    proxy = LoopProxy(loop, create_connection)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: proxy)
    left.transport.set_peers("c1", [Member(2, "n2", "n2.peers.ns.svc:7401", "")])
    await until("up", lambda: left.node.links() == [PeerUp(2)])
    assert set(names) == {"n2.peers.ns.svc"}


class LoopProxy:
    """The running loop with another `create_connection`; uvloop's cannot be patched."""

    def __init__(self, loop: asyncio.AbstractEventLoop, create_connection: object) -> None:
        self._loop = loop
        self.create_connection = create_connection

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def test_peers_that_left_are_disconnected_and_moved_ones_connected_anew(
    start: StartHost,
) -> None:
    left, right, other = await start(1), await start(2), await start(3)
    await connect(left, right)
    left.transport.set_peers("c1", [right.member(), other.member()])
    await until("both up", lambda: left.node.links() == [PeerUp(2), PeerUp(3)])
    moved = await start(2)
    left.transport.set_peers("c1", [moved.member()])
    await until("moved", lambda: left.node.links()[2:] == [PeerDown(2), PeerDown(3), PeerUp(2)])
    left.transport.send(Channel.BULK, heartbeat(1))
    await until("the frame", lambda: moved.node.frames() == [heartbeat(1)])


async def test_retries_are_at_most_half_a_second_apart(start: StartHost) -> None:
    class Highest:
        def uniform(self, a: float, b: float) -> float:
            return b

    host = PeerTransport(FakeNode(1), Highest(), lambda _: None)
    assert [host.retry_seconds(n) for n in (0, 1, 2, 3, 4, 1000)] == [
        0.05, 0.1, 0.2, 0.4, 0.5, 0.5,
    ]  # fmt: skip


async def test_a_frame_is_dropped_when_the_queue_is_full(
    start: StartHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that takes nothing costs a bounded amount of memory, and one channel only."""
    monkeypatch.setitem(transport.QUEUE_BYTES_MAX, Channel.BULK, 1 << 20)
    left, right = await start(1), await start(2)
    await connect(left, right)
    for connection in right.transport._incoming:
        if connection.hello is not None and connection.hello.channel == Channel.BULK:
            connection._transport.pause_reading()
    entry = Entry(1, 1, EntryType.NORMAL, bytes(256 << 10))
    frame = PeerFrame("c1", 1, 2, (Append(1, 2, 1, 0, 0, 0, 0, (entry,)),))
    sent = 0
    while left.transport.frames_dropped == 0:
        left.transport.send(Channel.BULK, frame)
        sent += 1
        assert sent < 200
        await asyncio.sleep(0)
    link = left.transport._peers[2].links[Channel.BULK].connection
    assert link is not None
    assert link.queued_bytes() <= (1 << 20) + (300 << 10)
    left.transport.send(Channel.CONTROL, heartbeat(1))
    await until("control traffic", lambda: right.node.frames() == [heartbeat(1)])


async def test_a_node_without_configuration_answers_on_the_incoming_connection(
    start: StartHost,
) -> None:
    leader, newcomer = await start(1), await start(2, cluster_id=None)
    await connect(leader, newcomer)
    newcomer.transport.send(Channel.BULK, heartbeat(5, sender=2, receiver=1))
    await until("the answer", lambda: leader.node.frames() == [heartbeat(5, 2, 1)])


async def test_answers_lost_with_an_incoming_connection_are_reported(start: StartHost) -> None:
    """Node design, rule 18: what was forwarded and is unanswered becomes unknown at once."""
    left, right = await start(1), await start(2)
    await connect(left, right)
    hello = Hello("c1", 2, 1, Channel.BULK)
    superseded, latest = await greet(left, hello), await greet(left, hello)
    superseded.close()
    await until("one connection", lambda: len(left.transport._incoming) == 1)
    assert left.node.links() == [PeerUp(2)]
    latest.close()
    await until("told", lambda: left.node.links() == [PeerUp(2), PeerDown(2), PeerUp(2)])


# ---- who is let in --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello("c2", 1, 2, 0), Refused.WRONG_CLUSTER),
        (Hello("c1", 1, 3, 0), Refused.WRONG_RECEIVER),
        (Hello("", 1, 2, 0), Refused.WRONG_CLUSTER),
    ],
)
async def test_rule_15_a_hello_for_another_node_or_cluster_is_refused(
    start: StartHost, hello: Hello, reason: Refused
) -> None:
    host = await start(2)
    sock = await raw(host)
    await asyncio.get_running_loop().sock_sendall(sock, PREAMBLE + b"".join(encode(hello)))
    [reply] = replies_in(await read_to_end(sock))
    assert isinstance(reply, Refusal)
    assert reply.reason == reason
    assert host.refused == [reason]
    assert host.node.events == []


async def test_rule_15_a_node_without_cluster_listens_to_whoever_knows_its_id(
    start: StartHost,
) -> None:
    host = await start(2, cluster_id=None)
    sock = await greet(host, Hello("any", 1, 2, 0))
    frame = PeerFrame("any", 1, 2, ())
    await asyncio.get_running_loop().sock_sendall(sock, b"".join(encode(frame)))
    await until("the frame", lambda: host.node.frames() == [frame])
    sock.close()


async def test_a_node_that_recovers_refuses_for_now(start: StartHost) -> None:
    host = await start(None)
    sock = await raw(host)
    await asyncio.get_running_loop().sock_sendall(
        sock, PREAMBLE + b"".join(encode(Hello("c1", 1, 2, 0)))
    )
    await read_to_end(sock)
    assert host.refused == [Refused.STARTING]
    with pytest.raises(ConnectionRefusedError, match="starting"):
        await probe(str(host.address), 1)


async def test_a_frame_in_another_name_ends_the_connection(start: StartHost) -> None:
    host = await start(2)
    sock = await greet(host, Hello("c1", 1, 2, 0))
    stolen = b"".join(encode(heartbeat(1, sender=3)))
    await asyncio.get_running_loop().sock_sendall(sock, stolen)
    await read_to_end(sock)
    assert host.refused == [Refused.WRONG_SENDER]
    assert host.node.frames() == []


def flipped() -> bytes:
    header, body = encode(heartbeat(1))
    return header + body[:-1] + bytes([body[-1] ^ 0x10])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", Refused.NOT_RAFTKV),
        (bytes(range(255, 200, -1)), Refused.NOT_RAFTKV),
        (b"RAFTKV\x01\x00" + bytes(8), Refused.VERSION),
        (PREAMBLE + b"\xff" * 4 + b"\xff" * 8, Refused.OVERSIZED),
        (PREAMBLE + b"".join(encode(heartbeat(1))), Refused.MALFORMED),
    ],
    ids=["http", "noise", "version", "length", "not an opening"],
)
async def test_faults_row_27_strangers_are_cut_and_counted(
    start: StartHost, data: bytes, reason: Refused
) -> None:
    host = await start(2)
    sock = await raw(host)
    await asyncio.get_running_loop().sock_sendall(sock, data)
    await read_to_end(sock)
    assert host.refused == [reason]
    assert host.node.events == []


async def test_faults_row_09_a_flipped_bit_ends_the_connection_and_peers_reconnect(
    start: StartHost,
) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    link = left.transport._peers[2].links[Channel.BULK].connection
    assert link is not None
    link.write((flipped(),))
    await until("cut", lambda: right.refused == [Refused.CHECKSUM])
    await until("up again", lambda: left.node.links() == [PeerUp(2), PeerDown(2), PeerUp(2)])
    assert right.node.frames() == []


async def test_faults_row_08_reset_in_the_middle_of_a_frame(start: StartHost) -> None:
    host = await start(2)
    sock = await greet(host, Hello("c1", 1, 2, 0))
    whole = b"".join(encode(heartbeat(1)))
    await asyncio.get_running_loop().sock_sendall(sock, whole + whole[: len(whole) // 2])
    await until("the whole frame", lambda: len(host.node.frames()) == 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
    await until("closed", lambda: not host.transport._incoming)
    assert host.node.frames() == [heartbeat(1)]


async def test_strangers_are_bounded(start: StartHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STRANGERS_MAX", 3)
    host = await start(2)
    waiting = [await raw(host) for _ in range(3)]
    await until("three strangers", lambda: len(host.transport._incoming) == 3)
    assert await read_to_end(await raw(host)) == b""
    assert host.refused == [Refused.TOO_MANY]
    for sock in waiting:
        sock.close()


async def test_half_open_connections_are_cut_for_want_of_signs_of_life(start: StartHost) -> None:
    """One late sweep counts once: time in which this process stood still is no evidence."""
    host = await start(2)
    silent = await greet(host, Hello("c1", 1, 2, 0))
    alive = await greet(host, Hello("c1", 3, 2, 0))
    for _ in range(peer_connection.SILENT_SWEEPS_MAX + 1):
        await asyncio.get_running_loop().sock_sendall(alive, SIGN_OF_LIFE)
        [connection] = [
            each for each in host.transport._incoming if each.hello and each.hello.sender == 3
        ]
        await until("heard", lambda c=connection: c._silent_sweeps == 0)  # type: ignore[misc]
        assert host.refused == []
        host.transport._sweep()
    assert host.refused == [Refused.SILENT]
    assert await read_to_end(silent) == b""
    alive.close()


async def test_sweeps_send_signs_of_life(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    for connection in right.transport._incoming:
        connection._silent_sweeps = 3
    left.transport._sweep()
    await until("heard", lambda: all(c._silent_sweeps == 0 for c in right.transport._incoming))
    assert right.node.events == []


# ---- probes ---------------------------------------------------------------------------------


async def test_a_probe_is_answered_and_hung_up_on(start: StartHost) -> None:
    host = await start(2, cluster_id=None)
    reply = await probe(str(host.address), 1)
    assert (reply.member_id, reply.cluster_id, reply.lists_sender) == (2, None, True)
    sock = await raw(host)
    await asyncio.get_running_loop().sock_sendall(sock, PREAMBLE + b"".join(encode(Probe(9))))
    assert len(replies_in(await read_to_end(sock))) == 1
    assert host.refused == []


async def test_a_probe_of_something_else_fails_clearly(start: StartHost) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionError, match="not a raftkv peer port"):
        await probe(f"127.0.0.1:{port}", 1)
    server.close()


async def test_small_frames_leave_at_once_and_dead_peers_are_found(start: StartHost) -> None:
    left, right = await start(1), await start(2)
    await connect(left, right)
    link = left.transport._peers[2].links[Channel.CONTROL].connection
    assert link is not None
    [incoming] = [
        each
        for each in right.transport._incoming
        if each.hello is not None and each.hello.channel == Channel.CONTROL
    ]
    for connection in (link, incoming):
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000


async def test_a_peer_that_accepts_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its process is stopped, say: the kernel still accepts for it."""
    monkeypatch.setattr(peer_connection, "CONNECT_SECONDS_MAX", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            await probe(f"127.0.0.1:{port}", 1)


async def test_who_tries_for_ever_fills_a_metric_and_not_the_log(
    start: StartHost, caplog: pytest.LogCaptureFixture
) -> None:
    """Two links of every peer knock at a node that lost its disk, each twice a second."""
    host = await start(2)
    host.refused.clear()
    for port, reason in ((1, Refused.SILENT), (2, Refused.SILENT), (3, Refused.CHECKSUM)):
        host.transport.refused(reason, ("10.0.0.1", port), "cut")
    assert host.refused == [Refused.SILENT, Refused.SILENT, Refused.CHECKSUM]
    told = [record.getMessage() for record in caplog.records]
    assert [message.split()[3:] for message in told] == [
        ["1)", "cut", "(silent):", "cut"],
        ["3)", "cut", "(checksum):", "cut"],
    ]
