"""The links between nodes: sockets, reconnecting, identity checks, bounded queues.

Owns every peer socket. Called by the driver (`send`, `set_peers`) and the process (`listen`,
`close`); tells what happens as events (`FrameReceived`, `PeerUp`, `PeerDown`). Knows frames, not
what is in them. All on the event loop's thread.

A node opens three connections to each peer of its configuration (bulk, control and snapshot:
`Channel`, rule 17), and sends on them; whom it does not know, it answers on the connection that
brought the question. Each peer is found by name: every attempt resolves it anew, attempts are at
most half a second apart. Delivery is what TCP gives while a connection lives and nothing beyond:
Raft repeats what matters.

A dead or half-open connection is found three ways: what was sent stays unacknowledged
(TCP_USER_TIMEOUT), the peer's kernel is gone (keepalive), or the sender's signs of life stop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from raftkv.node.events import FrameReceived, PeerDown, PeerUp
from raftkv.node.messages import Channel, PeerFrame
from raftkv.raft.messages import Member, NodeId
from raftkv.server.addresses import Address, parse_address
from raftkv.server.frames import (
    SIGN_OF_LIFE,
    Hello,
    ProbeReply,
    ProtocolError,
    Refusal,
    Refused,
    Reply,
)
from raftkv.server.peer_connection import Certificate, Incoming, Outgoing, open_outgoing
from raftkv.server.tls import (
    HANDSHAKE_SECONDS_MAX,
    SHUTDOWN_SECONDS_MAX,
    PeerTls,
    names_host,
)

_LOG: Final = logging.getLogger(__name__)

# What may wait in a connection's buffer before frames are dropped. Control traffic that has
# waited is worthless; bulk is bounded by the core's flow control long before.
QUEUE_BYTES_MAX: Final = {
    Channel.BULK: 32 << 20,
    Channel.CONTROL: 1 << 20,
    Channel.SNAPSHOT: 16 << 20,
}
RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 0.5
SWEEP_SECONDS: Final = 1.0
# A refusal of one kind is logged once in this time: who is refused usually tries for ever.
TELL_AGAIN_SECONDS: Final = 30.0
# Connections of which it is not known yet who is at the other end.
STRANGERS_MAX: Final = 256


class NodeView(Protocol):
    """What the links need to know of the node and tell it: implemented by the driver."""

    @property
    def member_id(self) -> NodeId | None:
        """None until recovery has told."""
        ...

    @property
    def cluster_id(self) -> str | None:
        """None while the node belongs to no cluster."""
        ...

    def post(self, event: FrameReceived | PeerUp | PeerDown) -> None:
        """Take an event."""
        ...


class Rng(Protocol):
    """The injected source of randomness."""

    def uniform(self, a: float, b: float) -> float:
        """A number between ``a`` and ``b``."""
        ...


class PeerTransport:
    """All peer connections of one node."""

    def __init__(self, node: NodeView, rng: Rng, count_refused: Callable[[Refused], None]) -> None:
        #: How links are encrypted; to be set before the first use. None: they are not.
        self.tls: PeerTls | None = None
        self._node = node
        self._rng = rng
        self._count_refused = count_refused
        self._loop = asyncio.get_running_loop()
        self._peers: dict[NodeId, _Peer] = {}
        self._incoming: set[Incoming] = set()
        # The latest connection from each peer: only its end means that answers may be lost.
        self._latest: dict[tuple[NodeId, int], Incoming] = {}
        self._server: asyncio.Server | None = None
        self._answer_probe: Callable[[NodeId], ProbeReply | None] = lambda _: None
        self._sweep_timer: asyncio.TimerHandle | None = None
        # When a refusal of this kind was logged last; bounded, as the reasons are.
        self._told_at: dict[Refused, float] = {}
        #: Frames not sent because the peer was not connected or its queue was full.
        self.frames_dropped = 0

    async def listen(
        self, address: Address, answer_probe: Callable[[NodeId], ProbeReply | None]
    ) -> Address:
        """Accept peers; returns the address bound. Raises OSError.

        ``answer_probe`` says who this node is, given who asks; None until recovery has told.
        """
        self._answer_probe = answer_probe
        tls = None if self.tls is None else self.tls.server
        self._server = await self._loop.create_server(
            lambda: Incoming(self),
            address.host,
            address.port,
            backlog=128,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS_MAX,
            ssl_shutdown_timeout=None if tls is None else SHUTDOWN_SECONDS_MAX,
        )
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        port: int = self._server.sockets[0].getsockname()[1]
        return Address(address.host, port)

    def set_peers(self, cluster_id: str, members: Iterable[Member]) -> None:
        """Keep connections to exactly these members, at the addresses they have now."""
        wanted = {member.id: member for member in members}
        for peer_id, peer in list(self._peers.items()):
            member = wanted.get(peer_id)
            if member is None or peer.is_changed(cluster_id, member):
                self._drop_peer(peer_id)
        own_id = self._node.member_id
        assert own_id is not None, "a node knows its own id before it knows peers"
        for member in wanted.values():
            if member.id not in self._peers:
                self._peers[member.id] = _Peer(self, cluster_id, own_id, member)

    def send(self, channel: Channel, frame: PeerFrame) -> None:
        """Send to ``frame.receiver``, or drop: see `Send`."""
        queue_bytes_max = QUEUE_BYTES_MAX[channel]
        peer = self._peers.get(frame.receiver)
        link = None if peer is None else peer.links[channel]
        connection: Outgoing | Incoming | None = None if link is None else link.connection
        if connection is None:
            # Whoever wrote to us can be answered on its own connection: so does a node that
            # knows no configuration yet, and hence no address of the leader that feeds it.
            connection = self._latest.get((frame.receiver, channel))
        if connection is None or not connection.send(frame, queue_bytes_max):
            self.frames_dropped += 1

    def connected(self) -> frozenset[NodeId]:
        """The peers that are up."""
        return frozenset(peer_id for peer_id, peer in self._peers.items() if peer.is_up)

    async def close(self) -> None:
        """End all connections; no event comes after this began."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if self._server is not None:
            self._server.close()
        for peer_id in list(self._peers):
            self._drop_peer(peer_id)
        for connection in list(self._incoming):
            connection.abort()
        if self._server is not None:
            await self._server.wait_closed()

    # ---- what links and connections tell ----------------------------------------------------

    def _drop_peer(self, peer_id: NodeId) -> None:
        peer = self._peers.pop(peer_id)
        peer.close()
        if peer.is_up:
            self._node.post(PeerDown(peer_id))

    def link_changed(self, peer: "_Peer") -> None:
        """A link of ``peer`` came up or broke."""
        is_up = all(link.connection is not None for link in peer.links.values())
        if is_up == peer.is_up or self._peers.get(peer.member.id) is not peer:
            return
        peer.is_up = is_up
        peer.last_failure = ""
        _LOG.info("peer %s is %s", peer.member.name, "connected" if is_up else "disconnected")
        self._node.post(PeerUp(peer.member.id) if is_up else PeerDown(peer.member.id))

    def refused(self, reason: Refused, origin: object, detail: str) -> None:
        """Count and, not too often, tell that a connection from ``origin`` was cut."""
        self._count_refused(reason)
        now = self._loop.time()
        if now - self._told_at.get(reason, float("-inf")) >= TELL_AGAIN_SECONDS:
            self._told_at[reason] = now
            _LOG.warning("connection from %s cut (%s): %s", origin, reason.value, detail)

    def handshake_failed(self, reason: str) -> None:
        """Somebody connected who cannot show a certificate of the peers' authority."""
        self.refused(Refused.TLS, "an unknown address", reason)

    def check_hello(
        self, hello: Hello, certificate: Certificate | None
    ) -> tuple[Refused, str] | None:
        """Why the connection is not for this node, or None (rule 15).

        A node without a cluster lets anybody talk who knows its random id; what makes it adopt
        the sender's cluster is decided by the node.
        """
        member_id, cluster_id = self._node.member_id, self._node.cluster_id
        if member_id is None:
            return Refused.STARTING, "the node is starting"
        if hello.receiver != member_id:
            detail = f"meant for member {hello.receiver:016x}, this is {member_id:016x}"
            return Refused.WRONG_RECEIVER, detail
        if cluster_id is not None and hello.cluster_id != cluster_id:
            detail = f"meant for cluster {hello.cluster_id}, this is {cluster_id}"
            return Refused.WRONG_CLUSTER, detail
        peer = self._peers.get(hello.sender)
        if peer is not None and certificate is not None:
            host = parse_address(peer.member.peer_url).host
            if not names_host(certificate, host):
                detail = f"the certificate does not name {host}, the host of {peer.member.name}"
                return Refused.WRONG_CERTIFICATE, detail
        return None

    def opened(self, connection: "Incoming") -> tuple[Refused, str] | None:
        """A connection was accepted by the kernel; why it may not stay, or None."""
        strangers = sum(1 for other in self._incoming if other.hello is None)
        self._incoming.add(connection)
        if strangers >= STRANGERS_MAX:
            return Refused.TOO_MANY, "too many connections that have not said who they are"
        return None

    def greeted(self, connection: "Incoming", hello: Hello) -> None:
        """``connection`` is from now on the way in of one peer's channel."""
        self._latest[hello.sender, hello.channel] = connection

    def received(self, frame: PeerFrame) -> None:
        """A frame came in."""
        self._node.post(FrameReceived(frame))

    def answer_probe(self, sender: NodeId) -> Reply:
        """The answer to a probe."""
        reply = self._answer_probe(sender)
        return reply or Refusal(Refused.STARTING.value, "the node is starting")

    def closed(self, connection: "Incoming") -> None:
        """A connection ended."""
        self._incoming.discard(connection)
        hello = connection.hello
        if hello is None or self._latest.get((hello.sender, hello.channel)) is not connection:
            return
        del self._latest[hello.sender, hello.channel]
        peer = self._peers.get(hello.sender)
        if peer is not None and peer.is_up:
            # Answers on their way to us are lost as well: what waits for them is unknown. We
            # can still send, so the peer is down and up again.
            self._node.post(PeerDown(hello.sender))
            self._node.post(PeerUp(hello.sender))

    # ---- signs of life ----------------------------------------------------------------------

    def _sweep(self) -> None:
        """Give and expect signs of life.

        Counts sweeps, not seconds: when this process was stopped or slow, one late sweep must
        not make all its connections look dead.
        """
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        for peer in self._peers.values():
            for link in peer.links.values():
                link.show_life()
        for connection in list(self._incoming):
            connection.count_silence()

    def retry_seconds(self, failures: int) -> float:
        """How long to wait before the next attempt to connect."""
        ceiling = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(failures, 10))
        return self._rng.uniform(ceiling / 2, ceiling)


class _Peer:
    """One member of the configuration and the links to it, one for each channel."""

    def __init__(
        self, transport: PeerTransport, cluster_id: str, own_id: NodeId, member: Member
    ) -> None:
        self.member = member
        self.is_up = False  # as last told to the node
        self.last_failure = ""  # why it could not be reached, since it was up last
        self._cluster_id = cluster_id
        self.links = {
            channel: _Link(transport, self, channel, Hello(cluster_id, own_id, member.id, channel))
            for channel in Channel
        }

    def is_changed(self, cluster_id: str, member: Member) -> bool:
        """Whether the links do not fit the member any more."""
        return (cluster_id, member.peer_url) != (self._cluster_id, self.member.peer_url)

    def tell_failure(self, failure: str) -> None:
        """Log why the peer cannot be reached: once, until the reason changes."""
        if failure != self.last_failure:
            self.last_failure = failure
            _LOG.info("cannot reach %s at %s: %s", self.member.name, self.member.peer_url, failure)

    def close(self) -> None:
        for link in self.links.values():
            link.close()


class _Link:
    """One outgoing connection, made again whenever it breaks."""

    def __init__(
        self, transport: PeerTransport, peer: _Peer, channel: Channel, hello: Hello
    ) -> None:
        self._owner = transport
        self._peer = peer
        self._hello = hello
        self.connection: Outgoing | None = None  # while it is up
        self._task = asyncio.get_running_loop().create_task(
            self._keep_connected(), name=f"link to {peer.member.name} {channel.name.lower()}"
        )

    def show_life(self) -> None:
        connection = self.connection
        if connection is not None and not connection.queued_bytes():
            connection.write((SIGN_OF_LIFE,))

    def close(self) -> None:
        self._task.cancel()

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            try:
                connection = await open_outgoing(
                    self._peer.member.peer_url,
                    self._hello,
                    self._owner.received,
                    None if self._owner.tls is None else self._owner.tls.client,
                )
            except (OSError, ProtocolError, ValueError) as error:
                self._peer.tell_failure(str(error) or type(error).__name__)
            else:
                failures = 0
                self.connection = connection
                try:
                    self._owner.link_changed(self._peer)
                    await connection.ended
                finally:
                    self.connection = None
                    connection.abort()
                self._owner.link_changed(self._peer)
            await asyncio.sleep(self._owner.retry_seconds(failures))
            failures += 1
