"""The `raftkv-operator` command: options into settings, settings into a running operator.

Imports little at first. In a container this is process 1, to which a signal without a handler does
not exist: until the handler stands, a deleted pod would hang for its whole grace period.
"""

import signal
import socket
import sys
from types import FrameType

import click

from raftkv_operator import __version__


@click.command(
    context_settings={
        "auto_envvar_prefix": "RAFTKV_OPERATOR",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    }
)
@click.option(
    "--namespaces", default="", help="Namespaces to serve, separated by commas; empty: all."
)
@click.option(
    "--own-namespace",
    help="The operator's own namespace; left out, it is taken to run outside of Kubernetes.",
)
@click.option(
    "--lease-namespace", default="default", help="Where the Lease is, without --own-namespace."
)
@click.option("--identity", help="Holder of the Lease; the host name by default.")
@click.option("--metrics-addr", default="127.0.0.1:8080", help="HOST:PORT of /metrics and /livez.")
@click.option(
    "--resync-seconds",
    default=30.0,
    type=click.FloatRange(min=1),
    help="How often each cluster is looked at when nothing happens.",
)
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(["debug", "info", "warning"]),
    help="The least important lines that are logged.",
)
@click.option(
    "--log-format",
    default="text",
    type=click.Choice(["text", "json"]),
    help="How log lines are written to standard error.",
)
@click.option("--crash-at", hidden=True, help="For tests: die at this point.")
@click.version_option(__version__)
def main(
    *,
    namespaces: str,
    own_namespace: str | None,
    lease_namespace: str,
    identity: str | None,
    metrics_addr: str,
    resync_seconds: float,
    log_level: str,
    log_format: str,
    crash_at: str | None,
) -> None:
    """Run RaftKV clusters on Kubernetes. Each option is also RAFTKV_OPERATOR_<OPTION>."""
    signal.signal(signal.SIGTERM, _leave)
    import uvloop  # noqa: PLC0415 - this and the next take a second: the handler comes first

    from raftkv_operator.errors import KubeError  # noqa: PLC0415
    from raftkv_operator.failpoints import Failpoints  # noqa: PLC0415
    from raftkv_operator.log import configure_logging  # noqa: PLC0415
    from raftkv_operator.operate import Settings, operate  # noqa: PLC0415

    host, _, port = metrics_addr.rpartition(":")
    if not port.isdecimal():
        raise click.UsageError(f"--metrics-addr must be HOST:PORT, not {metrics_addr!r}")
    try:
        failpoints = Failpoints(crash_at or None)
    except ValueError as error:
        raise click.UsageError(f"--crash-at: {error}") from error
    configure_logging(level=log_level.upper(), is_json=log_format == "json")
    settings = Settings(
        namespaces=tuple(part.strip() for part in namespaces.split(",") if part.strip()),
        own_namespace=own_namespace or None,
        lease_namespace=own_namespace or lease_namespace,
        identity=identity or socket.gethostname(),
        metrics_host=host or "0.0.0.0",  # noqa: S104 - the user left the host out
        metrics_port=int(port),
        resync_seconds=resync_seconds,
    )
    try:
        uvloop.run(operate(settings, failpoints))
    except (KubeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _leave(_number: int, _frame: FrameType | None) -> None:
    """The end of a process that has not begun; the running operator has a handler of its own."""
    sys.exit(0)
