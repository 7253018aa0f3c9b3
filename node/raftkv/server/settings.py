"""Everything a node process is told from outside, checked and completed.

Made once by `raftkv.cli.node_command` from the command line, the environment and a configuration
file (`raftkv.server.config_file`); frozen after.
Whatever contradicts itself is refused here with one sentence, before anything is touched.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftkv.node.settings import NodeSettings
from raftkv.server.addresses import Address, parse_address
from raftkv.server.http.settings import HttpSettings
from raftkv.server.peer_list import PeerList, is_named, parse_bare, parse_named
from raftkv.server.tls import TlsFiles
from raftkv.server.volume import QUOTA_BYTES_MIN, default_quota_bytes

HEARTBEAT_MS_DEFAULT: Final = 80
ELECTION_MS_DEFAULT: Final = 300
DRAIN_SECONDS_DEFAULT: Final = 8.0
# Kubernetes ends the pod after 60 s; a drain that long would be cut.
DRAIN_SECONDS_MAX: Final = 40.0
VALUE_BYTES_MAX_DEFAULT: Final = 1 << 20
# A value travels inside one log entry and one peer frame.
VALUE_BYTES_MAX_MAX: Final = 16 << 20

# The store's map is 64 GiB, and what makes room needs room.
QUOTA_BYTES_MAX: Final = 32 << 30
HISTORY_KEEP_DEFAULT: Final = "10m"
HISTORY_KEEP_MS_MIN: Final = 1_000
HISTORY_KEEP_MS_MAX: Final = 7 * 24 * 3_600_000
SNAPSHOT_BYTES_MIN_DEFAULT: Final = 64 << 20
SNAPSHOT_BYTES_MIN_MAX: Final = 16 << 30
WATCHERS_MAX_DEFAULT: Final = 10_000
WATCHERS_MAX_MAX: Final = 1_000_000

_TICKS_PER_HEARTBEAT: Final = 4
# Election timeouts are drawn from [election, election * 11/6): by default 300 to 550 ms.
_ELECTION_JITTER: Final = 5 / 6
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_DURATION_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,253}")


class SettingsError(ValueError):
    """The flags make no sense; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of `raftkv node` as they were given; None where nothing was said.

    The names of the fields are those of the flags, of their environment variables and of the keys
    of a configuration file; their types are what a configuration file is checked against.
    """

    data: Path
    id: str | None = None
    addr: str = "127.0.0.1:7400"
    peer_addr: str | None = None
    admin_addr: str | None = None
    metrics_addr: str | None = None
    advertise_peer: str | None = None
    advertise_client: str | None = None
    peers: str | None = None
    heartbeat_ms: int = HEARTBEAT_MS_DEFAULT
    election_ms: int = ELECTION_MS_DEFAULT
    drain_seconds: float = DRAIN_SECONDS_DEFAULT
    max_value_bytes: int = VALUE_BYTES_MAX_DEFAULT
    max_watchers: int = WATCHERS_MAX_DEFAULT
    quota_bytes: int | None = None
    history_keep: str = HISTORY_KEEP_DEFAULT
    snapshot_min_bytes: int = SNAPSHOT_BYTES_MIN_DEFAULT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    peer_tls_cert: Path | None = None
    peer_tls_key: Path | None = None
    peer_tls_ca: Path | None = None
    auth_token_file: Path | None = None
    rebuild: bool = False
    runtime_dir: Path | None = None
    stop_at_eof: bool = False
    log_format: str = "text"
    log_level: str = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """A consistent set of settings of one node process."""

    name: str
    addr: Address
    peer_addr: Address
    admin_addr: Address | None  # None: changing cluster calls are served on ``addr``
    metrics_addr: Address | None  # None: metrics are served on ``addr`` only
    advertise_peer: Address  # where peers find this node
    advertise_client: str  # "http(s)://host:port", where clients may be redirected to
    tls: TlsFiles | None  # None: clients and administrators are served in plain text
    peer_tls: TlsFiles | None  # None: links between nodes are plain text, and trusted
    token_file: Path | None  # None: whoever can connect may do everything
    peers: PeerList | None  # None: wait for bootstrap, or to be added
    data: Path
    runtime_dir: Path | None  # None: the system's directory for temporary files
    rebuild: bool  # discard the state machine's store and rebuild it from the log
    stop_at_eof: bool  # end when standard input ends
    heartbeat_ms: int
    election_ms: int
    drain_seconds: float
    value_bytes_max: int
    watchers_max: int
    quota_bytes: int | None  # None: what the volume under ``data`` bears
    history_keep_ms: int
    snapshot_bytes_min: int
    log_format: str  # "text" or "json"
    log_level: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an administrator should know; logged at the start and told by `/v1/status`."""
        insecure = self._insecure
        if not insecure:
            return ()
        listed = ", ".join(f"{what} ({address})" for what, address in insecure.items())
        warning = f"listening beyond loopback without TLS for {listed}"
        if self.token_file is not None and insecure.keys() - {"peers"}:
            warning += "; tokens can be read on their way"
        return (warning,)

    @property
    def insecure_listeners(self) -> tuple[str, ...]:
        """Who is listened for beyond loopback in plain text."""
        return tuple(self._insecure)

    @property
    def _insecure(self) -> dict[str, Address]:
        listeners = (
            ("clients", self.addr, self.tls),
            ("peers", self.peer_addr, self.peer_tls),
            ("administrators", self.admin_addr, self.tls),
        )
        return {
            what: address
            for what, address, tls in listeners
            if tls is None and address is not None and not address.is_loopback
        }

    def node_settings(self, version: str) -> NodeSettings:
        """The node class's share. Looks at the volume under ``data``; raises OSError."""
        tick_ms = self.heartbeat_ms / _TICKS_PER_HEARTBEAT
        election_ticks = round(self.election_ms / tick_ms)
        return NodeSettings(
            name=self.name,
            peer_url=str(self.advertise_peer),
            client_url=self.advertise_client,
            version=version,
            tick_seconds=tick_ms / 1000,
            heartbeat_ticks=_TICKS_PER_HEARTBEAT,
            election_ticks=election_ticks,
            election_jitter_ticks=int(election_ticks * _ELECTION_JITTER),
            quota_bytes=(
                default_quota_bytes(self.data) if self.quota_bytes is None else self.quota_bytes
            ),
            history_keep_ms=self.history_keep_ms,
            snapshot_bytes_min=self.snapshot_bytes_min,
        )

    def http_settings(self) -> HttpSettings:
        """The HTTP layer's share."""
        return HttpSettings(
            node_name=self.name,
            value_bytes_max=self.value_bytes_max,
            watchers_max=self.watchers_max,
            warnings=self.warnings,
            insecure_listeners=self.insecure_listeners,
        )


def resolve(flags: Flags, hostname: str) -> ServerSettings:
    """Complete and check what the command line gave. Raises SettingsError."""
    try:
        return _resolve(flags, hostname)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _resolve(flags: Flags, hostname: str) -> ServerSettings:
    _check_numbers(flags)
    addr = _address("--addr", flags.addr)
    peer_addr = _optional_address("--peer-addr", flags.peer_addr) or _default_peer_addr(addr)
    admin_addr = _optional_address("--admin-addr", flags.admin_addr)
    metrics_addr = _optional_address("--metrics-addr", flags.metrics_addr)
    _check_distinct(addr, peer_addr, admin_addr, metrics_addr)
    name, peers, advertise_peer = _resolve_peers(flags, peer_addr, hostname)
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"--id {name!r} is not made of letters, digits and . _ - alone")
    tls = _tls_files("tls", flags.tls_cert, flags.tls_key, flags.tls_ca)
    peer_tls = _tls_files(
        "peer-tls", flags.peer_tls_cert, flags.peer_tls_key, flags.peer_tls_ca, needs_ca=True
    )
    scheme = "http" if tls is None else "https"
    return ServerSettings(
        name=name,
        addr=addr,
        peer_addr=peer_addr,
        admin_addr=admin_addr,
        metrics_addr=metrics_addr,
        advertise_peer=advertise_peer,
        advertise_client=_client_url(scheme, flags.advertise_client, _reachable(addr, hostname)),
        tls=tls,
        peer_tls=peer_tls,
        token_file=flags.auth_token_file,
        peers=peers,
        data=flags.data,
        runtime_dir=flags.runtime_dir,
        rebuild=flags.rebuild,
        stop_at_eof=flags.stop_at_eof,
        heartbeat_ms=flags.heartbeat_ms,
        election_ms=flags.election_ms,
        drain_seconds=flags.drain_seconds,
        value_bytes_max=flags.max_value_bytes,
        watchers_max=flags.max_watchers,
        quota_bytes=flags.quota_bytes,
        history_keep_ms=_history_keep_ms(flags.history_keep),
        snapshot_bytes_min=flags.snapshot_min_bytes,
        log_format=flags.log_format,
        log_level=flags.log_level,
    )


def _address(flag: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise SettingsError(f"{flag}: {error}") from None


def _optional_address(flag: str, text: str | None) -> Address | None:
    return None if text is None else _address(flag, text)


def _check_numbers(flags: Flags) -> None:
    if not 10 <= flags.heartbeat_ms <= 10_000:
        raise SettingsError("--heartbeat-ms is between 10 and 10000")
    if flags.election_ms < 3 * flags.heartbeat_ms:
        # A single lost heartbeat must not start an election.
        raise SettingsError(
            f"--election-ms {flags.election_ms} is less than three heartbeats "
            f"of {flags.heartbeat_ms} ms"
        )
    if flags.election_ms > 60_000:
        raise SettingsError("--election-ms is at most 60000")
    if not 0 <= flags.drain_seconds <= DRAIN_SECONDS_MAX:
        raise SettingsError(f"--drain-seconds is between 0 and {DRAIN_SECONDS_MAX:g}")
    for flag, number, least, most in (
        ("--max-value-bytes", flags.max_value_bytes, 1, VALUE_BYTES_MAX_MAX),
        ("--max-watchers", flags.max_watchers, 0, WATCHERS_MAX_MAX),
        (
            "--quota-bytes",
            QUOTA_BYTES_MIN if flags.quota_bytes is None else flags.quota_bytes,
            QUOTA_BYTES_MIN,
            QUOTA_BYTES_MAX,
        ),
        ("--snapshot-min-bytes", flags.snapshot_min_bytes, 1, SNAPSHOT_BYTES_MIN_MAX),
    ):
        if not least <= number <= most:
            raise SettingsError(f"{flag} is between {least} and {most}")


def _history_keep_ms(text: str) -> int:
    match = _DURATION.fullmatch(text)
    duration_ms = round(float(match[1]) * _DURATION_MS[match[2]]) if match else 0
    if not HISTORY_KEEP_MS_MIN <= duration_ms <= HISTORY_KEEP_MS_MAX:
        raise SettingsError(f"--history-keep {text!r} is no duration from 1s to 7d, as in 10m")
    return duration_ms


def _tls_files(
    prefix: str, cert: Path | None, key: Path | None, ca: Path | None, *, needs_ca: bool = False
) -> TlsFiles | None:
    """The files that belong together; none of them, or all that are needed."""
    flags = {f"--{prefix}-cert": cert, f"--{prefix}-key": key, f"--{prefix}-ca": ca}
    given = [flag for flag, path in flags.items() if path is not None]
    if not given:
        return None
    if cert is None or key is None or (needs_ca and ca is None):
        needed = list(flags) if needs_ca else list(flags)[:2]
        missing = [flag for flag in needed if flags[flag] is None]
        raise SettingsError(f"{' and '.join(given)}: {' and '.join(missing)} is needed as well")
    return TlsFiles(cert, key, ca)


def _default_peer_addr(addr: Address) -> Address:
    if addr.port == 65535:
        raise SettingsError("--peer-addr is needed: there is no port above 65535 to default to")
    return Address(addr.host, addr.port + 1)


def _check_distinct(*addresses: Address | None) -> None:
    given = [address for address in addresses if address is not None]
    for address in given:
        if given.count(address) > 1:
            raise SettingsError(f"two listeners cannot share {address}")


def _resolve_peers(
    flags: Flags, peer_addr: Address, hostname: str
) -> tuple[str, PeerList | None, Address]:
    """The node's name, its peers, and where they find it."""
    given = _optional_address("--advertise-peer", flags.advertise_peer)
    if given is not None and given.is_wildcard:
        raise SettingsError(f"--advertise-peer {given} is no address that a peer could reach")
    advertised = given or _reachable(peer_addr, hostname)
    name = hostname if flags.id is None else flags.id
    if flags.peers is None:
        return name, None, advertised
    if not is_named(flags.peers):
        peers = parse_bare(flags.peers, advertised)
        # Several nodes of one machine share its name, so the address is the better default.
        return flags.id or peers.own.label, peers, peers.own.address
    peers = parse_named(flags.peers, name)
    listed = peers.own.address
    if given is None and listed.port != peer_addr.port:
        raise SettingsError(
            f"--peers lists {name} at {listed}, but it listens for peers at {peer_addr}; "
            "set --peer-addr, or --advertise-peer if the port is translated on the way"
        )
    if given is not None and given != listed:
        raise SettingsError(f"--peers lists {name} at {listed}, but --advertise-peer is {given}")
    return name, peers, listed


def _reachable(address: Address, hostname: str) -> Address:
    return Address(hostname, address.port) if address.is_wildcard else address


def _client_url(scheme: str, given: str | None, default: Address) -> str:
    """``scheme``: what this node speaks; a URL that is given whole may say otherwise."""
    if given is None:
        return f"{scheme}://{default}"
    given_scheme, separator, rest = given.rpartition("://")
    if separator:
        scheme = given_scheme.lower()
    if scheme not in ("http", "https"):
        raise SettingsError(f"--advertise-client {given}: a client comes by http or https")
    address = _address("--advertise-client", rest.removesuffix("/"))
    if address.is_wildcard:
        raise SettingsError(f"--advertise-client {given} is no address that a client could reach")
    return f"{scheme}://{address}"
