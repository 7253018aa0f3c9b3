"""TLS of the listeners and of the links between nodes, with certificates that may be replaced.

asyncio keeps the context that a listener was opened with for as long as it listens. So it is given
a `LiveContext`, which hands every new connection to the context made of the files as they are now;
connections that exist keep theirs. A context is always made whole, certificate, key and authorities
together: a new authority counts from the next connection on, and no session that an old one vouched
for can be resumed.

Clients:   the server's certificate; with an authority, clients must have one of it too.
Peers:     both ends show a certificate of the peers' authority. The connecting end checks that the
           peer's names the host it meant to reach; the receiving end that it names the host of the
           member that the connection says it comes from (`names_host`).
"""

import ipaddress
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# A client that does not finish the handshake, or does not answer the end of a connection.
HANDSHAKE_SECONDS_MAX: Final = 10.0
SHUTDOWN_SECONDS_MAX: Final = 2.0
HANDSHAKES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: a certificate (chain), its key, and the authorities of the other end."""

    cert: Path
    key: Path
    ca: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.cert, self.key) if self.ca is None else (self.cert, self.key, self.ca)


class Handshakes:
    """The handshakes of one listener: no more than so many at once, and failures are told.

    asyncio tells nobody of a handshake, so neither the limits of HTTP nor those of the links
    between nodes know of a connection before it has ended; without a limit of their own, those who
    connect and say nothing could take all file descriptors, which the node's own files need.
    """

    def __init__(
        self, on_failure: Callable[[str], None] | None = None, at_once_max: int = HANDSHAKES_MAX
    ) -> None:
        """``on_failure`` hears why a handshake failed."""
        self._on_failure = on_failure
        self._at_once_max = at_once_max
        # When each began, oldest first. One that was cut by its deadline is never heard of again.
        self._began_at: dict[ssl.SSLObject, float] = {}

    def go_on(self, handshake: ssl.SSLObject) -> None:
        """A step of ``handshake`` is about to be made. Raises SSLError if there are too many."""
        if handshake in self._began_at:
            return
        now = time.monotonic()
        for other, began_at in list(self._began_at.items()):
            if now - began_at <= HANDSHAKE_SECONDS_MAX:
                break
            del self._began_at[other]
        if len(self._began_at) >= self._at_once_max:
            raise ssl.SSLError("too many handshakes at once")
        self._began_at[handshake] = now

    def ended(self, handshake: ssl.SSLObject, failure: ssl.SSLError | None = None) -> None:
        """``handshake`` succeeded, or failed for this reason."""
        self._began_at.pop(handshake, None)
        if failure is not None and self._on_failure is not None:
            self._on_failure(describe(failure))


class _Handshake(ssl.SSLObject):
    """Tells `Handshakes` of itself."""

    @override
    def do_handshake(self) -> None:
        context = self.context
        assert isinstance(context, _Context)
        handshakes = context.handshakes
        try:
            handshakes.go_on(self)
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            handshakes.ended(self, error)
            raise
        handshakes.ended(self)


class _Context(ssl.SSLContext):
    """What one set of files means to a listener."""

    sslobject_class: type[ssl.SSLObject] = _Handshake
    handshakes: Handshakes


class LiveContext(ssl.SSLContext):
    """Hands each new connection to the context that is in force now."""

    current: ssl.SSLContext

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """The one way in which event loops use a context."""
        return self.current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    @override
    def wrap_socket(self, *_: object, **__: object) -> ssl.SSLSocket:
        raise NotImplementedError("only event loops use this context")


class ServerTls:
    """TLS of the listeners for clients and administrators."""

    def __init__(self, files: TlsFiles, on_failure: Callable[[str], None] | None = None) -> None:
        """`load` comes before the first use; ``on_failure`` hears why a handshake failed."""
        self.files = files
        self.context: Final = LiveContext(ssl.PROTOCOL_TLS_SERVER)
        self._handshakes = Handshakes(on_failure)

    def load(self) -> None:
        """Use the files as they are now. Raises OSError (also SSLError) or ValueError."""
        made = _server_context(self.files, self._handshakes)
        made.set_alpn_protocols(["http/1.1"])
        self.context.current = made


class PeerTls:
    """TLS of the links between nodes, in both directions."""

    def __init__(self, files: TlsFiles, on_failure: Callable[[str], None] | None = None) -> None:
        """``files`` have an authority. ``on_failure`` hears why somebody was not let in."""
        if files.ca is None:
            raise ValueError("peers need an authority to know each other by")
        self.files = files
        self.server: Final = LiveContext(ssl.PROTOCOL_TLS_SERVER)
        self.client: Final = LiveContext(ssl.PROTOCOL_TLS_CLIENT)
        self._handshakes = Handshakes(on_failure)

    def load(self) -> None:
        """Use the files as they are now. Raises OSError (also SSLError) or ValueError."""
        server = _server_context(self.files, self._handshakes)
        server.num_tickets = 0  # a link lives long; each handshake looks at the certificate
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the name of the host
        client.hostname_checks_common_name = False
        _fill(client, self.files)
        self.server.current, self.client.current = server, client


def _server_context(files: TlsFiles, handshakes: Handshakes) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.handshakes = handshakes
    context.options |= ssl.OP_NO_RENEGOTIATION  # work for us that costs the client nothing
    _fill(context, files)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _fill(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in files.paths:
        path.open("rb").close()  # an error that names the file, which OpenSSL's do not
    try:
        # Without a password, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ValueError(
            f"{files.cert} and {files.key} are not a certificate and its key "
            f"without a password, in PEM ({describe(error)})"
        ) from None
    if files.ca is None:
        return
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise ValueError(f"{files.ca} holds no certificates in PEM ({describe(error)})") from None


def describe(error: ssl.SSLError) -> str:
    """What OpenSSL says, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return str(error.verify_message)
    reason = getattr(error, "reason", None)  # only OpenSSL's own errors have it
    return str(reason or error.args[-1]).lower().replace("_", " ")


def names_host(certificate: Mapping[str, Any], host: str) -> bool:
    """Whether a verified certificate (`getpeercert`) names ``host`` (RFC 6125).

    Only alternative names count, never the common name. ``*`` stands for one whole label.
    """
    names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        wanted = _labels(host)
        return any(kind == "DNS" and _matches(_labels(name), wanted) for kind, name in names)
    return any(kind == "IP Address" and _is_address(name, address) for kind, name in names)


def _labels(name: str) -> list[str]:
    return name.lower().removesuffix(".").split(".")


def _matches(pattern: list[str], wanted: list[str]) -> bool:
    if pattern[0] == "*" and len(pattern) > 1:
        return bool(wanted[0]) and pattern[1:] == wanted[1:]
    return pattern == wanted


def _is_address(text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(text) == address
    except ValueError:
        return False
