"""Encrypted links between nodes: whose certificate makes a peer, and what a new one changes."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raftkv.node.events import PeerDown, PeerUp
from raftkv.node.messages import Channel, PeerFrame
from raftkv.raft.messages import Append, Entry, EntryType, Member
from raftkv.server import transport
from raftkv.server.frames import Refused
from raftkv.server.peer_connection import probe
from raftkv.server.tls import PeerTls, TlsFiles
from tests.certificates import Authority, Issued
from tests.server.test_transport import Host, connect, heartbeat
from tests.server.waiting import until

BOTH_LOOPS = True


class Peers:
    """An authority, and the nodes that have certificates of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory / "ca", "peers")
        self.hosts: list[Host] = []

    async def start(
        self, member_id: int, issued: Issued | None = None, authority: Authority | None = None
    ) -> Host:
        """A node with ``issued``, else with a good certificate, that trusts ``authority``."""
        host = Host(member_id)
        files = self.files(member_id)
        self.put(member_id, issued or self.authority.issue(f"n{member_id}"), authority)
        tls = PeerTls(files, host.transport.handshake_failed)
        tls.load()
        host.transport.tls = tls
        self.hosts.append(host)
        await host.listen()
        return host

    def files(self, member_id: int) -> TlsFiles:
        start = str(self.directory / f"n{member_id}")
        return TlsFiles(Path(start + ".pem"), Path(start + ".key"), Path(start + "-ca.pem"))

    def put(self, member_id: int, issued: Issued, *authorities: Authority | None) -> None:
        files = self.files(member_id)
        assert files.ca is not None
        shutil.copy(issued.cert, files.cert)
        shutil.copy(issued.key, files.key)
        trusted = [each for each in authorities if each is not None] or [self.authority]
        files.ca.write_text("".join(each.cert.read_text() for each in trusted))


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    made = Peers(tmp_path)
    yield made
    for host in made.hosts:
        await host.transport.close()


def reload(host: Host) -> None:
    assert host.transport.tls is not None
    host.transport.tls.load()


@asynccontextmanager
async def trying(left: Host, right: Host) -> AsyncIterator[None]:
    """``left`` keeps trying to connect to ``right``, in vain."""
    left.transport.set_peers("c1", [right.member()])
    yield
    assert left.node.links() == []
    assert right.node.frames() == []


async def test_frames_pass_between_peers_of_one_authority(peers: Peers) -> None:
    left, right = await peers.start(1), await peers.start(2)
    await connect(left, right)
    await connect(right, left)
    for number in range(3):
        left.transport.send(Channel.CONTROL, heartbeat(number))
    await until("frames", lambda: right.node.frames() == [heartbeat(n) for n in range(3)])
    right.transport.send(Channel.BULK, heartbeat(9, sender=2, receiver=1))
    await until("answer", lambda: left.node.frames() == [heartbeat(9, sender=2, receiver=1)])
    assert left.refused == right.refused == []


async def test_large_frames_pass_and_a_full_queue_drops(peers: Peers) -> None:
    left, right = await peers.start(1), await peers.start(2)
    await connect(left, right)
    entry = Entry(1, 1, EntryType.NORMAL, bytes(range(256)) * (16 << 10))
    frame = PeerFrame("c1", 1, 2, (Append(1, 2, 1, 0, 0, 0, 0, (entry,)),))
    sent = 0
    while not left.transport.frames_dropped:  # nobody reads while this loop runs
        left.transport.send(Channel.BULK, frame)
        sent += 1
        assert sent < 100
    await until("all", lambda: len(right.node.frames()) == sent - 1)
    assert all(each == frame for each in right.node.frames())


async def test_row_26_another_authority_makes_no_peer(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the node that connects nor the one that is connected to accepts the other."""
    caplog.set_level("INFO")
    other = Authority(peers.directory / "other", "other")
    right = await peers.start(2)
    async with trying(await peers.start(1, peers.authority.issue("n1"), other), right):
        await until("told", lambda: "cannot reach n2" in caplog.text)
    assert "TLS: self-signed certificate in certificate chain" in caplog.text
    async with trying(await peers.start(3, other.issue("spy"), peers.authority), right):
        await until("refused", lambda: Refused.TLS in right.refused)


@pytest.mark.parametrize(
    ("usage", "days"), [("serverAuth,clientAuth", -1), ("serverAuth", 1)], ids=["expired", "usage"]
)
async def test_row_26_a_certificate_that_is_not_valid_makes_no_peer(
    peers: Peers, usage: str, days: int
) -> None:
    left = await peers.start(1, peers.authority.issue("bad", usage=usage, days=days))
    right = await peers.start(2)
    async with trying(left, right):
        await until("refused", lambda: Refused.TLS in right.refused)


async def test_row_26_no_certificate_and_no_tls_make_no_peer(peers: Peers) -> None:
    right = await peers.start(2)
    plain = Host(1)
    peers.hosts.append(plain)
    await plain.listen()
    async with trying(plain, right):
        await until("refused", lambda: Refused.TLS in right.refused)
    plain.transport.set_peers("c1", [])
    right.refused.clear()
    with pytest.raises(OSError, match=r"TLS|reset|hung up"):
        await probe(str(right.address), 1, peers.authority.client_context())
    await until("refused", lambda: Refused.TLS in right.refused)
    with pytest.raises(OSError, match="hung up during the TLS handshake"):
        await probe(str(plain.address), 1, peers.authority.client_context())


async def test_row_26_a_certificate_of_something_else_makes_no_known_member(peers: Peers) -> None:
    """One authority for all purposes: a client's certificate names no member's host."""
    left = await peers.start(1, peers.authority.issue("web", names="DNS:web.example.org"))
    right = await peers.start(2)
    right.transport.set_peers("c1", [left.member()])
    async with trying(left, right):
        await until("refused", lambda: Refused.WRONG_CERTIFICATE in right.refused)


async def test_the_host_of_the_peer_is_named_by_its_certificate(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    left = await peers.start(1)
    right = await peers.start(2, peers.authority.issue("n2", names="DNS:n2.example.org"))
    async with trying(left, right):
        await until("told", lambda: "IP address mismatch" in caplog.text)
    assert "cannot reach n2" in caplog.text


async def test_a_host_name_is_checked_as_a_name(peers: Peers) -> None:
    names = "DNS:localhost"  # and no address
    left = await peers.start(1)
    right = await peers.start(2, peers.authority.issue("n2", names=names))
    left.transport.set_peers("c1", [Member(2, "n2", f"localhost:{right.address.port}", "")])
    await until("up", lambda: left.node.links() == [PeerUp(2)])


async def test_a_probe_is_answered_by_tls(peers: Peers) -> None:
    left, right = await peers.start(1), await peers.start(2)
    assert left.transport.tls is not None
    reply = await probe(str(right.address), 1, left.transport.tls.client)
    assert reply.member_id == 2


async def test_links_outlive_the_replacement_of_all_certificates(peers: Peers) -> None:
    left, right = await peers.start(1), await peers.start(2)
    await connect(left, right)
    other = Authority(peers.directory / "other", "other")
    for member_id, host in ((1, left), (2, right)):
        peers.put(member_id, other.issue(f"new{member_id}"), other)
        reload(host)
    left.transport.send(Channel.CONTROL, heartbeat(1))
    await until("frame", lambda: right.node.frames() == [heartbeat(1)])
    assert left.node.links() == [PeerUp(2)]
    # A link that breaks is made anew with what the files hold now.
    left.transport.set_peers("c1", [])
    await until("down", lambda: left.node.links()[-1] == PeerDown(2))
    left.node.events.clear()
    await connect(left, right)
    assert left.transport.tls is not None
    with pytest.raises(OSError, match="TLS"):
        await probe(str(right.address), 1, peers.authority.client_context())


async def test_an_authority_is_replaced_without_an_interruption(peers: Peers) -> None:
    """First trust both, then show the new certificate, then trust the new one alone."""
    left, right = await peers.start(1), await peers.start(2)
    other = Authority(peers.directory / "other", "other")
    old = {1: peers.authority.issue("old1"), 2: peers.authority.issue("old2")}
    new = {1: other.issue("new1"), 2: other.issue("new2")}
    steps: list[tuple[dict[int, Issued], tuple[Authority, ...]]] = [
        (old, (peers.authority, other)),
        (new, (peers.authority, other)),
        (new, (other,)),
    ]
    for issued, authorities in steps:
        for member_id, host in ((1, left), (2, right)):
            peers.put(member_id, issued[member_id], *authorities)
            reload(host)
            # New links stand whenever one node is a step ahead of the other.
            left.node.events.clear()
            await connect(left, right)
            left.transport.set_peers("c1", [])
            await until("down", lambda: PeerDown(2) in left.node.events)
    assert left.refused == right.refused == []


async def test_a_stalled_handshake_ends(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS_MAX", 0.1)
    host = await peers.start(1)
    reader, writer = await asyncio.open_connection(host.address.host, host.address.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_stalled_handshake_holds_nothing_up(peers: Peers) -> None:
    left, right = await peers.start(1), await peers.start(2)
    silent = [
        await asyncio.open_connection(right.address.host, right.address.port) for _ in range(20)
    ]
    await connect(left, right)
    for _, writer in silent:
        writer.transport.abort()


def test_peers_need_an_authority(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="authority"):
        PeerTls(TlsFiles(tmp_path, tmp_path, None))


def test_a_link_of_an_old_version_of_tls_is_not_made(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("n1")
    tls = PeerTls(TlsFiles(issued.cert, issued.key, authority.cert))
    tls.load()
    for context in (tls.server.current, tls.client.current):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert tls.client.current.check_hostname
    assert tls.server.current.num_tickets == 0, "no link begins without a look at a certificate"
