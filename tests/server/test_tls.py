"""Certificates of a listener: who is let in, and what a replaced file changes."""

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raftkv.server.metrics import Metrics
from raftkv.server.reload import Reloader, WatchedFiles
from raftkv.server.tls import (
    HANDSHAKE_SECONDS_MAX,
    Handshakes,
    ServerTls,
    TlsFiles,
    names_host,
)
from tests.certificates import Authority, Issued

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

BOTH_LOOPS = True


class Place:
    """A directory in which a listener's files lie, and what happened to its handshakes."""

    def __init__(self, directory: Path) -> None:
        self.servers = Authority(directory / "servers", "servers")
        self.clients = Authority(directory / "clients", "clients")
        self.client = self.clients.issue("client", usage="clientAuth")
        self.files = TlsFiles(
            directory / "tls.pem", directory / "tls.key", directory / "tls-ca.pem"
        )
        self.put(self.servers.issue("first"))
        self.put_ca(self.clients)
        self.failures: list[str] = []
        self.tls = ServerTls(self.files, self.failures.append)
        self.metrics = Metrics()
        self.reloader = Reloader(self.metrics)
        self.reloader.add(WatchedFiles("tls", self.files.paths, self.tls.load))

    def put(self, issued: Issued) -> None:
        shutil.copy(issued.cert, self.files.cert)
        shutil.copy(issued.key, self.files.key)

    def put_ca(self, authority: Authority) -> None:
        assert self.files.ca is not None
        shutil.copy(authority.cert, self.files.ca)

    def client_context(self, issued: Issued | None = None) -> ssl.SSLContext:
        """Trusts the listener's authority, and shows ``issued``, else the good certificate."""
        return self.servers.client_context(issued or self.client)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake without a network: the server's end and the client's. Raises SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(5):
        for end in (there, here):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # A client of TLS 1.3 is done before the server has seen its certificate.
    for reader, writer in ((here, there), (there, here)):
        writer.write(b"x")
        assert reader.read() == b"x"
    return here, there


def name_of(end: ssl.SSLObject) -> str:
    certificate: Any = end.getpeercert()
    [[(_, name)]] = certificate["subject"]
    return str(name)


def test_both_ends_know_each_other(place: Place) -> None:
    here, there = shake(place.tls.context, place.client_context())
    assert (name_of(here), name_of(there)) == ("client", "first")
    assert there.version() == "TLSv1.3"
    assert place.failures == []


def test_row_26_only_certificates_of_the_authority_are_let_in(place: Place) -> None:
    foreign = Authority(place.files.cert.parent / "foreign")
    nobody = ssl.create_default_context(cafile=str(place.servers.cert))
    for client, says in (
        (nobody, "peer did not return a certificate"),
        (place.client_context(foreign.issue("spy")), "unable to get local issuer certificate"),
        (place.client_context(place.clients.issue("late", days=-1)), "certificate has expired"),
        (place.client_context(place.clients.issue("web", usage="serverAuth")), "purpose"),
        (place.client_context(place.servers.issue("other")), "self-signed certificate"),
    ):
        place.failures.clear()
        with pytest.raises(ssl.SSLError):
            shake(place.tls.context, client)
        [failure] = place.failures
        assert says in failure


def test_old_versions_of_tls_are_not_spoken(place: Place) -> None:
    old = place.client_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake(place.tls.context, old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    _, there = shake(place.tls.context, old)
    assert there.version() == "TLSv1.2"


def test_a_new_certificate_counts_from_the_next_connection_on(place: Place) -> None:
    before = shake(place.tls.context, place.client_context())
    place.put(place.servers.issue("second"))
    place.reloader.look()
    _, there = shake(place.tls.context, place.client_context())
    assert name_of(there) == "second"
    before[0].write(b"still here")
    assert before[1].read() == b"still here"


def test_a_new_authority_counts_from_the_next_connection_on(place: Place) -> None:
    other = Authority(place.files.cert.parent / "other", "other")
    new_client = place.client_context(other.issue("new"))
    with pytest.raises(ssl.SSLError):
        shake(place.tls.context, new_client)
    place.put_ca(other)
    place.reloader.look()
    shake(place.tls.context, new_client)
    with pytest.raises(ssl.SSLError):
        shake(place.tls.context, place.client_context())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_old_session_does_not_pass_a_new_authority(
    place: Place, version: ssl.TLSVersion
) -> None:
    """Resuming a session shows no certificate."""
    client = place.client_context()
    client.maximum_version = version
    _, there = shake(place.tls.context, client)
    session = there.session
    assert session is not None

    def resume() -> bool:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = place.tls.context.wrap_bio(to_server, to_client, server_side=True)
        again = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
        for _ in range(5):
            for end in (again, here):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        again.write(b"x")
        assert here.read() == b"x"
        return bool(again.session_reused)

    assert resume()
    place.put_ca(Authority(place.files.cert.parent / "other", "other"))
    place.reloader.look()
    with pytest.raises(ssl.SSLError):
        resume()


def test_half_a_pair_keeps_the_old_one_until_it_is_whole(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    second = place.servers.issue("second")
    shutil.copy(second.cert, place.files.cert)
    for _ in range(3):
        place.reloader.look()
    [record] = caplog.records
    assert "tls.pem and " in record.getMessage()
    assert "key values mismatch" in record.getMessage()
    [warning] = place.reloader.warnings()
    assert "tls.pem" in warning
    value = place.metrics.registry.get_sample_value
    assert value("raftkv_reload_failing", {"files": "tls"}) == 1
    _, there = shake(place.tls.context, place.client_context())
    assert name_of(there) == "first"

    shutil.copy(second.key, place.files.key)
    place.reloader.look()
    assert place.reloader.warnings() == ()
    assert value("raftkv_reload_failing", {"files": "tls"}) == 0
    assert value("raftkv_reloads_total", {"files": "tls"}) == 1
    _, there = shake(place.tls.context, place.client_context())
    assert name_of(there) == "second"


def test_broken_files_are_named_at_the_start(place: Place) -> None:
    cert, key, ca = place.files.paths
    locked = key.with_name("locked.key")
    protect = ("openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret")
    subprocess.run([*protect, "-out", str(locked)], check=True, capture_output=True, timeout=30)
    noise = key.with_name("noise.pem")
    noise.write_bytes(b"\0\xff" * 1000)
    gone = key.with_name("gone.pem")
    for files, says in (
        (TlsFiles(gone, key, ca), "gone.pem"),
        (TlsFiles(cert, gone, ca), "gone.pem"),
        (TlsFiles(cert, key, gone), "gone.pem"),
        (TlsFiles(cert, cert, None), "are not a certificate and its key"),
        (TlsFiles(noise, key, None), "noise.pem and "),
        (TlsFiles(cert, locked, None), "without a password"),
        (TlsFiles(cert, key, noise), "noise.pem holds no certificates"),
        (TlsFiles(cert, key, key), "tls.key holds no certificates"),
        (TlsFiles(cert.parent, key, None), "Is a directory"),
    ):
        with pytest.raises((OSError, ValueError)) as caught:
            ServerTls(files).load()
        assert says in str(caught.value)


# ---- on real sockets ------------------------------------------------------------------------


@asynccontextmanager
async def echoing(place: Place) -> AsyncIterator[int]:
    """The port of a listener that sends back what it gets."""

    class Echo(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        @override
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    server = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", 0, ssl=place.tls.context
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int, context: ssl.SSLContext) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def echo(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    async with asyncio.timeout(5):
        return await streams[0].readexactly(len(data))


def server_name(streams: Streams) -> str:
    return name_of(streams[1].get_extra_info("ssl_object"))


async def test_a_listener_changes_its_certificate_and_authority_while_it_listens(
    place: Place,
) -> None:
    async with echoing(place) as port:
        old = await connect(port, place.client_context())
        assert await echo(old, b"a") == b"a"
        other = Authority(place.files.cert.parent / "other", "other")
        place.put(place.servers.issue("second"))
        place.put_ca(other)
        place.reloader.look()
        new = await connect(port, place.client_context(other.issue("new")))
        assert server_name(old) == "first"
        assert server_name(new) == "second"
        assert await echo(new, b"b") == b"b"
        assert await echo(old, b"c") == b"c"
        refused = await connect(port, place.client_context())
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await echo(refused, b"d")
        for streams in (old, new, refused):
            streams[1].transport.abort()
    assert place.failures == ["unable to get local issuer certificate"]


async def test_who_speaks_no_tls_is_cut_off_and_counted(place: Place) -> None:
    async with echoing(place) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"HTTP" not in await reader.read()
        writer.close()
    [failure] = place.failures
    assert "http request" in failure


async def test_handshakes_that_never_end_are_bounded_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 1 of the bad inputs, before HTTP knows of a connection."""
    failures: list[str] = []
    handshakes = Handshakes(failures.append, at_once_max=3)
    now = 100.0
    monkeypatch.setattr("raftkv.server.tls.time.monotonic", lambda: now)
    ends = [
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a"
        )
        for _ in range(5)
    ]
    for end in ends[:3]:
        handshakes.go_on(end)
    handshakes.go_on(ends[0])  # the next step of one that has begun
    with pytest.raises(ssl.SSLError, match="too many"):
        handshakes.go_on(ends[3])
    handshakes.ended(ends[1])
    handshakes.go_on(ends[3])
    now += HANDSHAKE_SECONDS_MAX
    with pytest.raises(ssl.SSLError, match="too many"):
        handshakes.go_on(ends[4])
    now += 0.1  # by now the event loop has cut those that were there
    handshakes.go_on(ends[4])


async def test_a_listener_with_too_many_handshakes_serves_again_after_them(place: Place) -> None:
    place.tls = ServerTls(place.files, place.failures.append)
    place.tls._handshakes = Handshakes(place.failures.append, at_once_max=2)
    place.tls.load()
    async with echoing(place) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in silent:
            writer.write(b"\x16\x03")  # the first bytes of a handshake
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await echo(await connect(port, place.client_context()), b"a")
        assert place.failures == ["too many handshakes at once"]
        for _, writer in silent:
            writer.write(b"nonsense" * 100)
        async with asyncio.timeout(5):
            for reader, writer in silent:
                await reader.read()
                writer.close()
        served = await connect(port, place.client_context())
        assert await echo(served, b"a") == b"a"
        served[1].transport.abort()


# ---- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "host", "is_named"),
    [
        ((("DNS", "n-0.peers.ns.svc"),), "n-0.peers.ns.svc", True),
        ((("DNS", "N-0.Peers.ns.svc"),), "n-0.peers.ns.SVC.", True),
        ((("DNS", "n-1.peers.ns.svc"),), "n-0.peers.ns.svc", False),
        ((("DNS", "*.peers.ns.svc"),), "n-0.peers.ns.svc", True),
        ((("DNS", "*.peers.ns.svc"),), "peers.ns.svc", False),
        ((("DNS", "*.peers.ns.svc"),), "a.n-0.peers.ns.svc", False),
        ((("DNS", "*"),), "localhost", False),
        ((("DNS", "n*.svc"),), "n1.svc", False),
        ((("DNS", "*.svc"),), ".svc", False),
        ((("DNS", "10.0.0.1"),), "10.0.0.1", False),
        ((("DNS", "a"), ("IP Address", "10.0.0.1")), "10.0.0.1", True),
        ((("IP Address", "10.0.0.1"),), "10.0.0.2", False),
        ((("IP Address", "0:0:0:0:0:0:0:1"),), "::1", True),
        ((("IP Address", "<invalid>"),), "::1", False),
        ((("URI", "localhost"), ("email", "localhost")), "localhost", False),
        ((), "localhost", False),
    ],
)
def test_alternative_names(names: tuple[Any, ...], host: str, is_named: bool) -> None:
    certificate = {"subject": ((("commonName", host),),), "subjectAltName": names}
    assert names_host(certificate, host) is is_named
