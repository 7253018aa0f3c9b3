"""Writes docs/cli.md from what `--help` says: ``python -m raftkv.cli.reference > docs/cli.md``."""

import copy
import sys
from collections.abc import Iterator
from typing import Final

import click

from raftkv.cli.common import CLIENT_PARAMETERS
from raftkv.cli.keys import get_command
from raftkv.cli.main import main

_WIDTH: Final = 96

_HEAD: Final = """\
# Command line

Every command and its options, as `raftkv COMMAND --help` shows them. This page is generated; after
a change run `python -m raftkv.cli.reference > docs/cli.md`.

## For scripts

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error; one sentence on standard error says which, and what to do |
| 2 | wrong usage: nothing was sent |
| 3 | the key, lease, lock or member does not exist |
| 4 | a condition does not hold (`--if-match`, `--create-only`, `--fence`, `txn`), a lock is held |

- Into a pipe or file goes the bare result (`-o raw`): a value byte for byte, a revision, a token.
  A terminal gets tables and sentences (`-o table`). `-o json` is the same everywhere.
- Commands ask any of the nodes that `--endpoint` or `RAFTKV_ENDPOINTS` name, and try again until
  `--timeout` is over where that is safe. A write carries an idempotency key, so that nodes do it
  once. If it cannot be known whether a write took effect, the error says so.
- Keys and values are the bytes that the shell hands over. Keys with empty or dot segments travel
  as base64url, so that no proxy folds them.
- `RAFTKV_TOKEN`, `RAFTKV_TOKEN_FILE`, `RAFTKV_CACERT`, `RAFTKV_CERT`, `RAFTKV_KEY` and
  `RAFTKV_FENCE` stand for the options of these names.

## Commands
"""

_ALSO: Final = "Also the [options of every client command](#options-of-every-client-command).\n"
_OPTIONS_HEAD: Final = "## Options of every client command\n"


def reference() -> str:
    """The whole page."""
    parts = [_HEAD]
    for path, command in _commands(main, "raftkv"):
        is_client = any(each.name in CLIENT_PARAMETERS for each in command.params)
        parts.append(f"### {path}\n\n```text\n{_help(path, command, CLIENT_PARAMETERS)}\n```\n")
        if is_client:
            parts.append(_ALSO)
    parts.append(f"{_OPTIONS_HEAD}\n```text\n{_client_options()}\n```\n")
    return "\n".join(parts)


def _help(path: str, command: click.Command, left_out: frozenset[str]) -> str:
    shown = copy.copy(command)
    shown.params = [each for each in command.params if each.name not in left_out]
    context = click.Context(
        shown,
        info_name=path,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )
    return "\n".join(line.rstrip() for line in shown.get_help(context).rstrip().splitlines())


def _client_options() -> str:
    others = frozenset(each.name or "" for each in get_command.params) - CLIENT_PARAMETERS
    return "Options:\n" + _help("get", get_command, others).partition("Options:\n")[2]


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, f"{path} {name}")


if __name__ == "__main__":
    sys.stdout.write(reference())
