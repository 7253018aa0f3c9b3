"""`raftkv put`, `get`, `del` and `append`: one key at a time."""

import sys

import click
from rich.console import Console
from rich.table import Table

from raftkv.cli.common import Form, NotFoundError, Session, bytes_of, client_options
from raftkv.cli.printing import print_json, print_raw, printable, text_fields
from raftkv.client.http import Consistency, Item, KvClient, Page, Written

_if_match = click.option(
    "--if-match",
    type=click.IntRange(min=1),
    metavar="REVISION",
    help="Only if the key was last changed at this revision (see `raftkv get -o json`);"
    " else exit with 4.",
)
_key = click.argument("key")
_value = click.argument("value", required=False)


@click.command("put")
@_key
@_value
@_if_match
@click.option("--create-only", is_flag=True, help="Only if the key is absent; else exit with 4.")
@client_options
def put_command(
    session: Session, *, key: str, value: str | None, if_match: int | None, create_only: bool
) -> None:
    """Store VALUE under KEY.

    Without VALUE, or with "-", the value is read from standard input, byte for byte.
    """
    if create_only and if_match is not None:
        raise click.UsageError("--create-only and --if-match contradict each other")
    data = _value_bytes(value)

    async def call(client: KvClient) -> Written:
        return await client.put(bytes_of(key), data, if_match=if_match, create_only=create_only)

    _print_written(key, session.run(call), session.form)


@click.command("append")
@_key
@_value
@_if_match
@client_options
def append_command(session: Session, *, key: str, value: str | None, if_match: int | None) -> None:
    """Append VALUE to what is stored under KEY, creating it if it is absent.

    Without VALUE, or with "-", it is read from standard input, byte for byte.
    """
    data = _value_bytes(value)

    async def call(client: KvClient) -> Written:
        return await client.append(bytes_of(key), data, if_match=if_match)

    _print_written(key, session.run(call), session.form)


@click.command("get")
@_key
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "local"]),
    default="linearizable",
    show_default=True,
    help="linearizable: never stale. local: what the node has, without asking the others.",
)
@click.option(
    "--revision",
    type=click.IntRange(min=1),
    metavar="REVISION",
    help="The value as it was at this revision of the store.  [default: now]",
)
@client_options
def get_command(
    session: Session, *, key: str, consistency: Consistency, revision: int | None
) -> None:
    """Print the value of KEY; exit with 3 if there is none.

    Into a pipe or file go the bytes of the value and nothing else.
    """

    async def call(client: KvClient) -> Item | None:
        return await client.get(bytes_of(key), consistency=consistency, revision=revision or 0)

    item = session.run(call)
    if item is None:
        raise NotFoundError(f"there is no key {key!r}")
    match session.form:
        case Form.RAW:
            print_raw(item.value)
        case Form.JSON:
            print_json(
                {
                    **text_fields("key", item.key),
                    **text_fields("value", item.value),
                    "create_revision": item.create_revision,
                    "mod_revision": item.mod_revision,
                    "version": item.version,
                    "revision": item.revision,
                }
            )
        case Form.TABLE:
            table = Table("key", "value", "revision", "version")
            row = (printable(item.key), printable(item.value))
            table.add_row(*row, str(item.mod_revision), str(item.version))
            Console().print(table)


@click.command("incr")
@_key
@click.option("--by", type=int, default=1, show_default=True, metavar="N", help="What to add.")
@client_options
def incr_command(session: Session, *, key: str, by: int) -> None:
    """Add to the number under KEY, which is 0 if there is none, and print the sum."""

    async def call(client: KvClient) -> int:
        return await client.increment(bytes_of(key), by)

    total = session.run(call)
    if session.form is Form.JSON:
        print_json({**text_fields("key", bytes_of(key)), "value": total})
    else:
        click.echo(total)


@click.command("ls")
@click.argument("prefix", default="")
@click.option("--delimiter", default="", help="Show what is deeper than this as one prefix.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option(
    "--revision",
    type=click.IntRange(min=1),
    metavar="REVISION",
    help="The keys as they were at this revision of the store.  [default: now]",
)
@client_options
def ls_command(
    session: Session,
    *,
    prefix: str,
    delimiter: str,
    keys_only: bool,
    reverse: bool,
    revision: int | None,
) -> None:
    """List the keys that begin with PREFIX (default: all), as they were at one moment.

    Into a pipe goes one key a line, and every prefix on a line of its own.
    """

    async def call(client: KvClient) -> Page:
        items: list[Item] = []
        prefixes: list[bytes] = []
        cursor = None
        while True:
            page = await client.list(
                bytes_of(prefix),
                cursor=cursor,
                revision=revision or 0,
                delimiter=bytes_of(delimiter),
                is_descending=reverse,
                keys_only=keys_only or session.form is Form.RAW,
            )
            items += page.items
            prefixes += page.prefixes
            cursor = page.next_cursor
            if cursor is None:
                return Page(tuple(items), tuple(prefixes), page.revision, None)

    _print_page(session.run(call), session.form, with_values=not keys_only)


@click.command("del")
@_key
@_if_match
@client_options
def del_command(session: Session, *, key: str, if_match: int | None) -> None:
    """Remove KEY; exit with 3 if there was none."""

    async def call(client: KvClient) -> tuple[int, int]:
        deleted = await client.delete(bytes_of(key), if_match=if_match)
        return deleted.deleted, deleted.revision

    count, revision = session.run(call)
    match session.form:
        case Form.JSON:
            print_json({"deleted": count, "revision": revision})
        case Form.RAW:
            click.echo(count)
        case Form.TABLE if count:
            click.echo(f"deleted {key!r} at revision {revision}")
        case Form.TABLE:
            pass
    if not count:
        raise NotFoundError(f"there is no key {key!r}")


def _print_page(page: Page, form: Form, *, with_values: bool) -> None:
    match form:
        case Form.RAW:
            for name in (*page.prefixes, *(item.key for item in page.items)):
                print_raw(name + b"\n")
        case Form.JSON:
            items = [
                {
                    **text_fields("key", item.key),
                    **(text_fields("value", item.value) if with_values else {}),
                    "create_revision": item.create_revision,
                    "mod_revision": item.mod_revision,
                    "version": item.version,
                }
                for item in page.items
            ]
            prefixes = [text_fields("prefix", prefix) for prefix in page.prefixes]
            print_json({"revision": page.revision, "items": items, "prefixes": prefixes})
        case Form.TABLE:
            table = Table("key", "value", "revision", "version")
            for prefix in page.prefixes:
                table.add_row(printable(prefix), "", "", "")
            for item in page.items:
                row = (printable(item.key), printable(item.value))
                table.add_row(*row, str(item.mod_revision), str(item.version))
            Console().print(table)


def _value_bytes(value: str | None) -> bytes:
    if value is not None and value != "-":
        return bytes_of(value)
    if value is None and sys.stdin.isatty():
        raise click.UsageError("give a VALUE, or - to type it and end with Ctrl-D")
    return sys.stdin.buffer.read()


def _print_written(key: str, written: Written, form: Form) -> None:
    match form:
        case Form.JSON:
            print_json(
                {
                    **text_fields("key", bytes_of(key)),
                    "revision": written.revision,
                    "version": written.version,
                }
            )
        case Form.RAW:
            click.echo(written.revision)
        case Form.TABLE:
            what = "created" if written.version == 1 else "stored"
            click.echo(f"{what} {key!r} at revision {written.revision}")
