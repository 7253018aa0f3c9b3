"""The `raftkv` command: one group, a module for each family of subcommands.

Exit codes, for scripts: 0 ok, 1 error, 2 wrong usage, 3 not found, 4 condition failed.
"""

import sys
from importlib import import_module
from typing import Final

import click

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# \b keeps click from filling the lines that follow.
_HELP: Final = """RaftKV: a replicated key-value store.

Start a cluster on this machine, then write and read a key:

\b
    raftkv local
    raftkv put greeting hello
    raftkv get greeting

All but `local`, `node`, `demo` and `wal` are clients: they ask any node of a cluster. They look for
one at http://127.0.0.1:7400, 7410 and 7420, where `raftkv local` serves, unless --endpoint or
RAFTKV_ENDPOINTS names others.
"""


# In the order of --help: where each command is. A module is imported when its command is used,
# because nodes and clients have little in common and every `raftkv get` would wait for all.
_SECTIONS: Final = {
    "Start": {
        "local": "local:local_command",
        "node": "node_command:node_command",
        "demo": "demo:demo_command",
    },
    "Keys": {
        "put": "keys:put_command",
        "get": "keys:get_command",
        "del": "keys:del_command",
        "append": "keys:append_command",
        "incr": "keys:incr_command",
        "ls": "ls:ls_command",
        "watch": "watch:watch_command",
        "txn": "txn:txn_command",
    },
    "Coordination": {
        "lease": "leases:lease_group",
        "lock": "locks:lock_group",
    },
    "Cluster": {
        "status": "status_command:status_command",
        "top": "top:top_command",
        "members": "members:members_group",
        "transfer": "members:transfer_command",
    },
    "Data": {
        "backup": "maintenance:backup_command",
        "restore": "restore:restore_command",
        "snapshot": "maintenance:snapshot_command",
        "compact": "maintenance:compact_command",
        "wal": "wal:wal_group",
    },
    "More": {
        "bench": "bench:bench_command",
        "completion": "completion:completion_command",
    },
}
_PLACES: Final = {name: place for names in _SECTIONS.values() for name, place in names.items()}


class Sections(click.Group):
    """Lists its commands by what they are for, and imports those that are used."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Called by click."""
        return list(_PLACES)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Called by click."""
        if cmd_name not in _PLACES:
            return None
        module, _, attribute = _PLACES[cmd_name].partition(":")
        command = getattr(import_module(f"raftkv.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click."""
        width = max(map(len, _PLACES))
        for title, names in _SECTIONS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name.ljust(width), command.get_short_help_str(limit=200)))
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(
    cls=Sections,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(package_name="raftkv", prog_name="raftkv")
def main() -> None:
    """Called by `raftkv.__main__`."""
