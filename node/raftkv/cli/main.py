"""The `raftkv` command: one group, a module for each family of subcommands.

Exit codes, for scripts: 0 ok, 1 error, 2 wrong usage, 3 key not found, 4 condition failed.
"""

from typing import Final

import click

from raftkv.cli.keys import (
    append_command,
    del_command,
    get_command,
    incr_command,
    put_command,
)
from raftkv.cli.local import local_command
from raftkv.cli.ls import ls_command
from raftkv.cli.node_command import node_command
from raftkv.cli.status_command import status_command

# \b keeps click from filling the lines that follow.
_HELP: Final = """RaftKV: a replicated key-value store.

Start a cluster on this machine, then write and read a key:

\b
    raftkv local
    raftkv put greeting hello
    raftkv get greeting

put, get, ls, del, append, incr and status talk to any node of a cluster. They look for one at
http://127.0.0.1:7400, 7410 and 7420, where `raftkv local` serves, unless --endpoint or
RAFTKV_ENDPOINTS names others.
"""


@click.group(
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
    status_command,
):
    main.add_command(_command)
