"""`raftkv node`: run one node in the foreground. Flags and environment only; see `process`."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from raftkv.server.logs import FORMATS, LEVELS
from raftkv.server.process import StartError, run
from raftkv.server.settings import (
    DRAIN_SECONDS_DEFAULT,
    ELECTION_MS_DEFAULT,
    HEARTBEAT_MS_DEFAULT,
    VALUE_BYTES_MAX_DEFAULT,
    Flags,
    SettingsError,
    resolve,
)

F = TypeVar("F", bound=Callable[..., None])

_EPILOG: Final = """\b
The classic demo, one line in each of three terminals:
    raftkv node --id n1 --addr 127.0.0.1:7400 --data n1 --peers $PEERS
    raftkv node --id n2 --addr 127.0.0.1:7410 --data n2 --peers $PEERS
    raftkv node --id n3 --addr 127.0.0.1:7420 --data n3 --peers $PEERS
with PEERS=n1=127.0.0.1:7401,n2=127.0.0.1:7411,n3=127.0.0.1:7421

Each flag can be given as an environment variable: --addr as RAFTKV_ADDR, and so on.
"""


def _flag(name: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own types
    """A flag with its environment variable."""
    variable = "RAFTKV_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, **attributes)


@click.command("node", epilog=_EPILOG)
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
def node_command(**flags: Any) -> None:  # noqa: ANN401 - typed by `Flags`
    """Run one node in the foreground.

    With --peers and an empty data directory, the nodes of the list form a cluster by
    themselves; without, the node waits to be bootstrapped or added. SIGTERM drains it, Ctrl-C
    ends it at once but in order.
    """
    try:
        settings = resolve(Flags(**flags), socket.gethostname())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        sys.exit(run(settings))
    except StartError as error:
        raise click.ClickException(str(error)) from None
