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


class _Handshake(ssl.SSLObject):
    """Tells of a handshake that failed; asyncio tells nobody."""

    @override
    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            context = self.context
            if isinstance(context, _Context) and context.on_failure is not None:
                context.on_failure(describe(error))
            raise


class _Context(ssl.SSLContext):
    """What one set of files means."""

    sslobject_class: type[ssl.SSLObject] = _Handshake
    on_failure: Callable[[str], None] | None = None


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
        self._on_failure = on_failure

    def load(self) -> None:
        """Use the files as they are now. Raises OSError (also SSLError) or ValueError."""
        made = _server_context(self.files, self._on_failure)
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
        self._on_failure = on_failure

    def load(self) -> None:
        """Use the files as they are now. Raises OSError (also SSLError) or ValueError."""
        server = _server_context(self.files, self._on_failure)
        server.num_tickets = 0  # a link lives long; each handshake looks at the certificate
        client = _Context(ssl.PROTOCOL_TLS_CLIENT)  # checks the name of the host
        client.hostname_checks_common_name = False
        _fill(client, self.files)
        self.server.current, self.client.current = server, client


def _server_context(files: TlsFiles, on_failure: Callable[[str], None] | None) -> _Context:
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.on_failure = on_failure
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
    return (error.reason or str(error)).lower().replace("_", " ")


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
