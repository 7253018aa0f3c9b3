"""The `raftkv` command: one group, a module for each family of subcommands.

Exit codes, for scripts: 0 ok, 1 error, 2 wrong usage, 3 not found, 4 condition failed.
"""

import sys
from typing import Final

import click

from raftkv.cli.bench import bench_command
from raftkv.cli.completion import completion_command
from raftkv.cli.keys import (
    append_command,
    del_command,
    get_command,
    incr_command,
    put_command,
)
from raftkv.cli.leases import lease_group
from raftkv.cli.local import local_command
from raftkv.cli.locks import lock_group
from raftkv.cli.ls import ls_command
from raftkv.cli.maintenance import backup_command, compact_command, snapshot_command
from raftkv.cli.members import members_group, transfer_command
from raftkv.cli.node_command import node_command
from raftkv.cli.restore import restore_command
from raftkv.cli.status_command import status_command
from raftkv.cli.txn import txn_command
from raftkv.cli.wal import wal_group
from raftkv.cli.watch import watch_command

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

All but `local`, `node` and `wal` are clients: they ask any node of a cluster. They look for one at
http://127.0.0.1:7400, 7410 and 7420, where `raftkv local` serves, unless --endpoint or
RAFTKV_ENDPOINTS names others.
"""


# In the order of --help; a command that is not named here comes last.
_SECTIONS: Final = {
    "Start": ("local", "node", "demo"),
    "Keys": ("put", "get", "del", "append", "incr", "ls", "watch", "txn"),
    "Coordination": ("lease", "lock"),
    "Cluster": ("status", "members", "transfer"),
    "Data": ("backup", "restore", "snapshot", "compact", "wal"),
}


class Sections(click.Group):
    """Lists its commands by what they are for."""

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click."""
        named = {name for names in _SECTIONS.values() for name in names}
        others = tuple(name for name in sorted(self.commands) if name not in named)
        width = max(len(name) for name in self.commands)
        for title, names in (_SECTIONS | {"More": others}).items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(limit=200))
                for name in names
                if name in self.commands and not self.commands[name].hidden
            ]
            if rows:
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


for _command in (
    local_command,
    node_command,
    put_command,
    get_command,
    del_command,
    append_command,
    incr_command,
    ls_command,
    watch_command,
    txn_command,
    lease_group,
    lock_group,
    status_command,
    members_group,
    transfer_command,
    backup_command,
    restore_command,
    snapshot_command,
    compact_command,
    bench_command,
    completion_command,
    wal_group,
):
    main.add_command(_command)
