"""`raftkv node`: run one node in the foreground.

Where a setting comes from is decided here: the flag, its environment variable, the configuration
file, the default, in this order. What the settings mean is `raftkv.server.settings`.
"""

import socket
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from raftkv.server.config_file import (
    FILE_BYTES_MAX,
    ConfigError,
    Value,
    parse_config,
    write_config,
)
from raftkv.server.logs import FORMATS, LEVELS
from raftkv.server.process import StartError, run
from raftkv.server.settings import (
    DRAIN_SECONDS_DEFAULT,
    ELECTION_MS_DEFAULT,
    HEARTBEAT_MS_DEFAULT,
    HISTORY_KEEP_DEFAULT,
    SNAPSHOT_BYTES_MIN_DEFAULT,
    VALUE_BYTES_MAX_DEFAULT,
    WATCHERS_MAX_DEFAULT,
    Flags,
    ServerSettings,
    SettingsError,
    resolve,
)

# Where `click.Context.meta` keeps the places of the configuration file's entries.
_LINES: Final = "raftkv.config.lines"

F = TypeVar("F", bound=Callable[..., None])

_EPILOG: Final = """\b
The classic demo, one line in each of three terminals:
    raftkv node --id n1 --addr 127.0.0.1:7400 --data n1 --peers $PEERS
    raftkv node --id n2 --addr 127.0.0.1:7410 --data n2 --peers $PEERS
    raftkv node --id n3 --addr 127.0.0.1:7420 --data n3 --peers $PEERS
with PEERS=n1=127.0.0.1:7401,n2=127.0.0.1:7411,n3=127.0.0.1:7421

Each flag can be given as an environment variable (--addr as RAFTKV_ADDR, and so on) and in the
file of --config (addr = "127.0.0.1:7400"). A flag goes before a variable, a variable before the
file. --print-config shows what is in force and where it came from.

The files of certificates and tokens are read again when they change.
"""


def _flag(name: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own types
    """A flag with its environment variable."""
    variable = "RAFTKV_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, **attributes)


def _file_flag(name: str, help_text: str) -> Callable[[F], F]:
    return _flag(name, metavar="FILE", type=click.Path(path_type=Path), help=help_text)


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Make the file's entries click's defaults, below flags and variables."""
    if path is None:
        return None
    try:
        data = path.read_bytes()[: FILE_BYTES_MAX + 1]
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError(f"larger than {FILE_BYTES_MAX} bytes")
        entries = parse_config(data.decode())
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror or error}") from None
    except ValueError as error:  # also UnicodeDecodeError
        raise click.UsageError(f"{path}: {error}") from None
    ctx.default_map = {name: entry.value for name, entry in entries.items()}
    ctx.meta[_LINES] = {name: f"{path}:{entry.line}" for name, entry in entries.items()}
    return path


def _origin(ctx: click.Context, name: str) -> str:
    """Where the value of a setting came from."""
    match ctx.get_parameter_source(name):
        case ParameterSource.COMMANDLINE:
            return "flag"
        case ParameterSource.ENVIRONMENT:
            return f"RAFTKV_{name.upper()}"
        case ParameterSource.DEFAULT_MAP:
            return str(ctx.meta[_LINES][name])
        case _:
            return "default"


def _effective(
    ctx: click.Context, flags: Flags, settings: ServerSettings
) -> dict[str, tuple[Value | None, str]]:
    """Each setting as it is in force, also where it was derived, and where it came from."""
    derived: dict[str, Value] = {
        "id": settings.name,
        "peer_addr": str(settings.peer_addr),
        "advertise_peer": str(settings.advertise_peer),
        "advertise_client": settings.advertise_client,
    }
    effective: dict[str, tuple[Value | None, str]] = {}
    for each in fields(flags):
        value = derived.get(each.name, getattr(flags, each.name))
        shown = str(value) if isinstance(value, Path) else value
        effective[each.name] = (shown, _origin(ctx, each.name))
    return effective


@click.command("node", epilog=_EPILOG)
@_flag(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_read_config,
    help="TOML file with any of these settings: names without the leading dashes.",
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print the settings in force, as such a file, and where each came from; then end.",
)
@_flag(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Data directory; made if missing. Never shared by two nodes.",
)
@_flag("--id", metavar="NAME", help="Name of this node.  [default: the host's name]")
@_flag(
    "--addr",
    metavar="HOST:PORT",
    default="127.0.0.1:7400",
    show_default=True,
    help="Where clients are served.",
)
@_flag(
    "--peer-addr", metavar="HOST:PORT", help="Where peers connect.  [default: --addr's port + 1]"
)
@_flag("--admin-addr", metavar="HOST:PORT", help="Serve calls that change the cluster only here.")
@_flag("--metrics-addr", metavar="HOST:PORT", help="Serve metrics and health here as well.")
@_flag(
    "--advertise-peer",
    metavar="HOST:PORT",
    help="Where peers find this node.  [default: as in --peers, else --peer-addr]",
)
@_flag(
    "--advertise-client",
    metavar="URL",
    help="Where clients are redirected to.  [default: --addr]",
)
@_flag("--peers", metavar="LIST", help="n1=HOST:PORT,n2=... (or HOST:PORT,...): form a cluster.")
@_flag(
    "--heartbeat-ms",
    type=int,
    default=HEARTBEAT_MS_DEFAULT,
    show_default=True,
    help="How often a leader says that it leads.",
)
@_flag(
    "--election-ms",
    type=int,
    default=ELECTION_MS_DEFAULT,
    show_default=True,
    help="Shortest silence that starts an election; at least 3 heartbeats.",
)
@_flag(
    "--drain-seconds",
    type=float,
    default=DRAIN_SECONDS_DEFAULT,
    show_default=True,
    help="Serve on for so long after SIGTERM.",
)
@_flag(
    "--max-value-bytes",
    type=int,
    default=VALUE_BYTES_MAX_DEFAULT,
    show_default=True,
    help="Largest value accepted.",
)
@_flag(
    "--max-watchers",
    type=int,
    default=WATCHERS_MAX_DEFAULT,
    show_default=True,
    help="Most watches and long polls served at once.",
)
@_flag(
    "--quota-bytes",
    type=int,
    help="Size of the store beyond which only what makes room is accepted.  [default: 2 GiB, or a "
    "quarter of the volume less 50 MiB if that is smaller]",
)
@_flag(
    "--history-keep",
    metavar="DURATION",
    default=HISTORY_KEEP_DEFAULT,
    show_default=True,
    help="How long replaced and removed values can still be read and watched.",
)
@_flag(
    "--snapshot-min-bytes",
    type=int,
    default=SNAPSHOT_BYTES_MIN_DEFAULT,
    show_default=True,
    help="Make a snapshot when the log has grown by so much.",
)
@_file_flag("--tls-cert", "Serve clients and administrators by TLS, with this certificate (PEM).")
@_file_flag("--tls-key", "Its key, without a password.")
@_file_flag("--tls-ca", "Clients must have a certificate of one of these authorities.")
@_file_flag("--peer-tls-cert", "Encrypt links between nodes; names this node's host (PEM).")
@_file_flag("--peer-tls-key", "Its key, without a password.")
@_file_flag("--peer-tls-ca", "The authorities whose certificates make a peer.")
@_file_flag("--auth-token-file", "Who may do what: lines 'SHA256-OF-TOKEN ROLE [KEY-PREFIX]'.")
@_flag("--rebuild", is_flag=True, help="Discard the store and rebuild it from the log.")
@_flag(
    "--runtime-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory that a reboot empties: remembers that the store's files were written since."
    "  [default: the system's for temporary files]",
)
@_flag(
    "--stop-at-eof",
    is_flag=True,
    help="End as at Ctrl-C when standard input ends: for whoever starts nodes as children.",
)
@_flag(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How log lines are written to standard error.",
)
@_flag(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="The least important lines that are logged.",
)
@click.pass_context
def node_command(
    ctx: click.Context,
    /,
    config: Path | None,
    print_config: bool,
    **given: Any,  # noqa: ANN401 - typed by `Flags`
) -> None:
    """Run one node in the foreground.

    With --peers and an empty data directory, the nodes of the list form a cluster by
    themselves; without, the node waits to be bootstrapped or added. SIGTERM drains it, Ctrl-C
    ends it at once but in order.
    """
    flags = Flags(**given)
    try:
        settings = resolve(flags, socket.gethostname())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    if print_config:
        click.echo(write_config(_effective(ctx, flags, settings)), nl=False)
        return
    try:
        sys.exit(run(settings))
    except StartError as error:
        raise click.ClickException(str(error)) from None
